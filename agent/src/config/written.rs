//! Receives the text of one file; hands on what it says, typed, with nothing filled in.
//!
//! Unknown and duplicate keys are refused here, where file and line are still known.

use std::net::SocketAddr;
use std::path::PathBuf;

use drift::written::{Keys, Problem, Readable, Value, text, word};

use super::interval::{Every, Interval};
use crate::enforce;
use crate::watch::attribution::CommandLine;

/// A section in which every key may be missing, and the later of two files wins key by key.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $line:literal])+ $key:ident: $type:ty $(= $value:expr)? $(=> $section:ty)?,)+
    }) => {
        drift::documented! {
            $(#[$doc])*
            #[derive(Debug, Clone, Default, PartialEq)]
            pub struct $name {
                $($(#[doc = $line])+ pub $key: Option<$type> $(= $value)? $(=> $section)?,)+
            }
        }

        impl Readable for $name {
            fn read(value: Value<'_>) -> Result<Self, Problem> {
                let keys = Keys::of(value, &[$(stringify!($key)),+])?;
                Ok($name { $($key: keys.read(stringify!($key))?,)+ })
            }
        }

        impl Overlay for $name {
            fn overlaid(self, later: Self) -> Self {
                $name { $($key: Overlay::overlaid(self.$key, later.$key),)+ }
            }

            fn name_keys(&self, own: &str, named: &mut dyn FnMut(String)) {
                let lead = if own.is_empty() { String::new() } else { format!("{own}.") };
                $(self.$key.name_keys(&format!("{lead}{}", stringify!($key).replace('_', "-")), named);)+
            }
        }
    };
}

/// Two files as one: what the later says, else what the earlier says.
pub(super) trait Overlay {
    /// This with `later` laid over it.
    fn overlaid(self, later: Self) -> Self;
    /// Names every key that says something, as `section.key`; `own` is the name of this one.
    fn name_keys(&self, own: &str, named: &mut dyn FnMut(String));
}

impl<T: Replaced> Overlay for Option<T> {
    fn overlaid(self, later: Self) -> Self {
        match (self, later) {
            (Some(earlier), Some(later)) => Some(earlier.replaced(later)),
            (earlier, later) => later.or(earlier),
        }
    }

    fn name_keys(&self, own: &str, named: &mut dyn FnMut(String)) {
        if let Some(value) = self {
            value.name_keys_below(own, named);
        }
    }
}

/// How two values of one key become one.
pub(super) trait Replaced {
    /// For a plain value: the later. For a section: key by key.
    fn replaced(self, later: Self) -> Self;
    /// For a plain value: its own name. For a section: those of its keys.
    fn name_keys_below(&self, own: &str, named: &mut dyn FnMut(String));
}

macro_rules! plain {
    ($($type:ty),+) => { $(impl Replaced for $type {
        fn replaced(self, later: Self) -> Self { later }
        fn name_keys_below(&self, own: &str, named: &mut dyn FnMut(String)) { named(own.to_owned()) }
    })+ };
}

macro_rules! nested {
    ($($type:ty),+) => { $(impl Replaced for $type {
        fn replaced(self, later: Self) -> Self { self.overlaid(later) }
        fn name_keys_below(&self, own: &str, named: &mut dyn FnMut(String)) { self.name_keys(own, named) }
    })+ };
}

plain!(
    String,
    PathBuf,
    Vec<PathBuf>,
    Interval,
    Every,
    Listen,
    Mode,
    Enforce,
    Pace,
    Level,
    CommandLine,
    bool,
    u64,
    u32
);
nested!(
    Collector,
    Enroll,
    ImageFiles,
    Scan,
    Watch,
    Told,
    Probe,
    SpoolLimits
);

section! {
    /// One configuration file.
    Written {
        /// `[collector]`: where reports go. Normally the join token says it.
        collector: Collector => Collector,
        /// `[enroll]`: how this instance gets its identity.
        enroll: Enroll => Enroll,
        /// `[image]`: what this instance is verified against.
        image: ImageFiles => ImageFiles,
        /// `root`: the root of the tree that is verified. Default `/`.
        root: PathBuf = "/",
        /// `[scan]`: how often, and how hard.
        scan: Scan => Scan,
        /// `[watch]`: what is seen between scans.
        watch: Watch => Watch,
        /// `enforce`: what becomes of programs that the image does not hold: `off` (they run, and it is told), `permissive`
        /// (they run, and it is told that they would be refused) or `image-programs` (they are refused). Default `off`.
        enforce: Enforce = "off",
        /// `enforce-allow`: directories in which any program may be run all the same. Default none.
        enforce_allow: Vec<PathBuf> = [],
        /// `[attribution]`: what is told of who changed something.
        attribution: Told => Told,
        /// `[probe]`: the health probe for autoscalers.
        probe: Probe => Probe,
        /// `[spool]`: where reports wait for the collector.
        spool: SpoolLimits => SpoolLimits,
        /// `state-directory`: identity, spool and held values. Default `$STATE_DIRECTORY`, else `/var/lib/driftmark`.
        state_directory: PathBuf = "/var/lib/driftmark",
        /// `status-socket`: where `status` asks. Default `/run/driftmark/agent.sock`.
        status_socket: PathBuf = "/run/driftmark/agent.sock",
        /// `log`: `error`, `warn` or `info` (the default).
        log: Level = "info",
    }
}

section! {
    /// `[collector]`.
    Collector {
        /// `url`: `https://HOST:PORT` of the collector's port for agents, instead of the one in the join token.
        url: String = "https://collector.example:8443",
        /// `ca-file`: PEM with the CA certificates to trust at enrolment, instead of the digest in the join token.
        ca_file: PathBuf = "/etc/driftmark/collector-ca.pem",
    }
}

section! {
    /// `[enroll]`.
    Enroll {
        /// `fleet`: the fleet that this instance is for; a join token of another one is refused. Default: the token's.
        fleet: String = "web",
        /// `token-file`: the join token. Default `$CREDENTIALS_DIRECTORY/driftmark.token`, else `/run/driftmark/token`.
        token_file: PathBuf = "/run/driftmark/token",
        /// `cloud-id-file`: the cloud's id of this machine, one line. Default `$CREDENTIALS_DIRECTORY/driftmark.cloud-id`,
        /// else `/run/driftmark/cloud-id`.
        cloud_id_file: PathBuf = "/run/driftmark/cloud-id",
    }
}

section! {
    /// `[image]`.
    ImageFiles {
        /// `manifest`: the image's signed manifest. Default `/usr/lib/driftmark/image.manifest`.
        manifest: PathBuf = "/usr/lib/driftmark/image.manifest",
        /// `signature`: the manifest's signature. Default the manifest's name with `.sig`.
        signature: PathBuf = "/usr/lib/driftmark/image.manifest.sig",
        /// `trust`: the public keys that may sign it, as files or directories. Default `["/usr/lib/driftmark/trust.d"]`.
        trust: Vec<PathBuf> = ["/usr/lib/driftmark/trust.d"],
    }
}

section! {
    /// `[scan]`.
    Scan {
        /// `full-interval`: from the end of one full scan to the start of the next. Default `24h`.
        full_interval: Interval = "24h",
        /// `quick-interval`: from the end of one scan to the start of the next quick one, which does not wait for a full one
        /// that goes on. Default `5m`.
        quick_interval: Interval = "5m",
        /// `disk-interval`: from the end of one sweep of the disk to the start of the next, or `off`. It reads every file
        /// around the page cache. Default `7d`; what only a sweep can see is looked at again after `full-interval`.
        disk_interval: Every = "7d",
        /// `process-interval`: from one sweep of the processes to the next, or `off`. It finds what no event tells: programs
        /// that run from deleted files or from memory, files that are mapped for writing, mounts that only some processes
        /// see, kernel modules that are not the image's. Default `1m`.
        process_interval: Every = "1m",
        /// `finish-within`: a scan that would take longer than this is held back less and less. Together with the
        /// intervals it bounds how old a verification gets. Default `30m`; the first full scan has 2 minutes.
        finish_within: Interval = "30m",
        /// `pace`: `adaptive` (a scan makes way: it rests more while others use processors and disks, and less while nobody
        /// does) or `unpaced`. Default `adaptive`.
        pace: Pace = "adaptive",
        /// `max-bytes-per-second`: as many bytes of files an adaptive scan reads in a second, unless it would take longer
        /// than `finish-within`. Default 64 MiB.
        max_bytes_per_second: u64 = 67_108_864,
        /// `threads`: how many threads read and hash. Default: half of the processors, at least one.
        threads: u32 = 2,
        /// `first-boot-window`: how long after multi-user what may change once may still change. Default `10m`.
        first_boot_window: Interval = "10m",
    }
}

section! {
    /// `[watch]`.
    Watch {
        /// `enabled`: whether changes are seen as they happen, with who makes them. Default `true`; with `false` only scans
        /// find drift, and the coverage says so.
        enabled: bool = true,
    }
}

section! {
    /// `[attribution]`.
    Told {
        /// `command-line`: how much of a process's command line leaves this machine: `full`, `redacted` (values after
        /// password, token, secret and key options are `***`) or `none`. Default `redacted`.
        command_line: CommandLine = "redacted",
    }
}

section! {
    /// `[probe]`.
    Probe {
        /// `listen`: `ADDRESS:PORT`, or `off`. Default `127.0.0.1:8445`.
        listen: Listen = "127.0.0.1:8445",
        /// `mode`: `collector` (unhealthy only while an order of the collector is executing) or `local` (unhealthy at
        /// the first drift). Default `collector`.
        mode: Mode = "collector",
    }
}

section! {
    /// `[spool]`.
    SpoolLimits {
        /// `max-bytes`: how many bytes of reports may wait on disk. Default 64 MiB.
        max_bytes: u64 = 67_108_864,
    }
}

/// Where a server listens, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl Readable for Listen {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        match text(value)? {
            "off" => Ok(Listen::Off),
            address => address.parse().map(Listen::At).map_err(|_| {
                Problem::of(value, "expected `ADDRESS:PORT` (an IP address) or `off`")
            }),
        }
    }
}

/// What makes the probe unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An executing order of the collector.
    Collector,
    /// The first drift.
    Local,
}

impl Readable for Mode {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(
            value,
            &[("collector", Mode::Collector), ("local", Mode::Local)],
        )
    }
}

/// What becomes of programs that the image does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforce {
    /// They run.
    Off,
    /// They are asked about.
    On(enforce::Mode),
}

impl Enforce {
    /// The words for it, and what they mean.
    pub const WORDS: [(&'static str, Enforce); 3] = [
        ("off", Enforce::Off),
        ("permissive", Enforce::On(enforce::Mode::Permissive)),
        ("image-programs", Enforce::On(enforce::Mode::ImagePrograms)),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        let mut words = Enforce::WORDS.iter();
        words
            .find(|(_, enforce)| *enforce == self)
            .map_or("off", |(word, _)| word)
    }
}

impl Readable for Enforce {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(value, &Enforce::WORDS)
    }
}

/// Whether a scan makes way for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As much as they feel it.
    Adaptive,
    /// Not at all.
    Unpaced,
}

impl Readable for Pace {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(
            value,
            &[("adaptive", Pace::Adaptive), ("unpaced", Pace::Unpaced)],
        )
    }
}

/// What is logged: this and everything worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What someone must act on.
    Error,
    /// What someone should know.
    Warn,
    /// What happened.
    Info,
}

impl Readable for Level {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(
            value,
            &[
                ("error", Level::Error),
                ("warn", Level::Warn),
                ("info", Level::Info),
            ],
        )
    }
}
