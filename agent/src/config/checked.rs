//! Receives what the files say; hands on a configuration in which every value is there and can be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::written::{ImageFiles, Level, Listen, Mode, Written};
use super::{ConfigError, Surroundings};

/// What the daemon runs by.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The collector's address, where it is not the join token's.
    pub collector_url: Option<String>,
    /// CA certificates to trust at enrolment, instead of the join token's digest.
    pub ca_file: Option<PathBuf>,
    /// Where the join token would be.
    pub token_file: Option<PathBuf>,
    /// Where the cloud's id of this machine would be.
    pub cloud_id_file: Option<PathBuf>,
    /// What to verify against.
    pub image: Image,
    /// The root of the tree to verify.
    pub root: PathBuf,
    /// How often to scan.
    pub schedule: Schedule,
    /// How many threads read and hash; none: half of the processors.
    pub threads: Option<usize>,
    /// How long after multi-user what may change once may still change.
    pub first_boot_window: Duration,
    /// Where the health probe listens.
    pub probe_listen: Listen,
    /// What makes the health probe unhealthy.
    pub probe_mode: ProbeMode,
    /// How many bytes of reports may wait on disk.
    pub spool_max_bytes: u64,
    /// Identity, spool, held values.
    pub state_directory: PathBuf,
    /// Where `status` asks.
    pub status_socket: PathBuf,
    /// What is logged.
    pub log: Level,
}

/// The files that say what this instance was baked from.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The manifest.
    pub manifest: PathBuf,
    /// Its signature.
    pub signature: PathBuf,
    /// Files or directories of public keys that may have signed it.
    pub trust: Vec<PathBuf>,
}

/// How often to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the end of one full scan to the start of the next.
    pub full: Duration,
    /// From the end of any scan to the start of the next quick one.
    pub quick: Duration,
}

/// What makes the health probe unhealthy.
pub use super::written::Mode as ProbeMode;

/// More often than this is a busy loop.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Rarer than this is never.
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 86_400);
/// Less would not hold one report in parts.
const MIN_SPOOL_BYTES: u64 = 8 * 1024 * 1024;
/// More threads than this only fight for the disk.
const MAX_THREADS: u32 = 256;

impl Config {
    /// Fills in what is not written, and refuses what cannot be.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first such key.
    pub fn check(written: Written, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let collector = written.collector.unwrap_or_default();
        let enroll = written.enroll.unwrap_or_default();
        let scan = written.scan.unwrap_or_default();
        let probe = written.probe.unwrap_or_default();
        let credential = |name| {
            surroundings
                .credentials_directory
                .as_ref()
                .map(|at| at.join(name))
        };
        let config = Config {
            collector_url: collector.url,
            ca_file: collector.ca_file,
            token_file: enroll.token_file.or_else(|| credential("driftmark.token")),
            cloud_id_file: enroll
                .cloud_id_file
                .or_else(|| credential("driftmark.cloud-id")),
            image: image(written.image.unwrap_or_default()),
            root: written.root.unwrap_or_else(|| "/".into()),
            schedule: Schedule {
                full: scan
                    .full_interval
                    .map_or(Duration::from_secs(86_400), |interval| interval.0),
                quick: scan
                    .quick_interval
                    .map_or(Duration::from_secs(300), |interval| interval.0),
            },
            threads: scan.threads.map(|threads| threads as usize),
            first_boot_window: scan
                .first_boot_window
                .map_or(Duration::from_secs(600), |interval| interval.0),
            probe_listen: probe
                .listen
                .unwrap_or(Listen::At(([127, 0, 0, 1], 8445).into())),
            probe_mode: probe.mode.unwrap_or(Mode::Collector),
            spool_max_bytes: written
                .spool
                .unwrap_or_default()
                .max_bytes
                .unwrap_or(64 * 1024 * 1024),
            state_directory: written
                .state_directory
                .or_else(|| surroundings.state_directory.clone())
                .unwrap_or_else(|| "/var/lib/driftmark".into()),
            status_socket: written
                .status_socket
                .unwrap_or_else(|| crate::status::SOCKET.into()),
            log: written.log.unwrap_or(Level::Info),
        };
        config.refuse_what_cannot_be()?;
        Ok(config)
    }

    fn refuse_what_cannot_be(&self) -> Result<(), ConfigError> {
        if let Some(url) = &self.collector_url {
            let host = url
                .strip_prefix("https://")
                .unwrap_or_default()
                .trim_end_matches('/');
            refuse_unless("collector.url", !host.is_empty(), || {
                format!("`{url}` is not `https://HOST:PORT`")
            })?;
            refuse_unless(
                "collector.url",
                !host.contains(['/', '?', '#', '@', ' ']),
                || format!("`{url}` has more than `https://HOST:PORT`"),
            )?;
        }
        for (key, interval) in [
            ("scan.full-interval", self.schedule.full),
            ("scan.quick-interval", self.schedule.quick),
        ] {
            refuse_unless(
                key,
                (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval),
                || "must lie between 1s and 30d".into(),
            )?;
        }
        refuse_unless(
            "scan.first-boot-window",
            self.first_boot_window <= MAX_INTERVAL,
            || "at most 30d".into(),
        )?;
        let threads = self.threads.unwrap_or(1);
        refuse_unless(
            "scan.threads",
            (1..=MAX_THREADS as usize).contains(&threads),
            || format!("must lie between 1 and {MAX_THREADS}"),
        )?;
        refuse_unless(
            "spool.max-bytes",
            self.spool_max_bytes >= MIN_SPOOL_BYTES,
            || format!("must be at least {MIN_SPOOL_BYTES}"),
        )?;
        refuse_unless("image.trust", !self.image.trust.is_empty(), || {
            "is empty: without a trusted key nothing can be verified".into()
        })?;
        self.paths().try_for_each(|(key, path)| {
            refuse_unless(key, path.is_absolute(), || {
                format!("`{}` is not absolute", path.display())
            })
        })
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let optional = [
            ("collector.ca-file", self.ca_file.as_deref()),
            ("enroll.token-file", self.token_file.as_deref()),
            ("enroll.cloud-id-file", self.cloud_id_file.as_deref()),
        ];
        [
            ("image.manifest", self.image.manifest.as_path()),
            ("image.signature", self.image.signature.as_path()),
            ("root", self.root.as_path()),
            ("state-directory", self.state_directory.as_path()),
            ("status-socket", self.status_socket.as_path()),
        ]
        .into_iter()
        .chain(
            optional
                .into_iter()
                .filter_map(|(key, path)| path.map(|path| (key, path))),
        )
        .chain(
            self.image
                .trust
                .iter()
                .map(|path| ("image.trust", path.as_path())),
        )
    }
}

fn image(written: ImageFiles) -> Image {
    let manifest = written
        .manifest
        .unwrap_or_else(|| "/usr/lib/driftmark/image.manifest".into());
    let beside = || {
        let mut name = manifest.clone().into_os_string();
        name.push(".sig");
        name.into()
    };
    Image {
        signature: written.signature.unwrap_or_else(beside),
        trust: written
            .trust
            .unwrap_or_else(|| vec!["/usr/lib/driftmark/trust.d".into()]),
        manifest,
    }
}

fn refuse_unless(
    key: &'static str,
    right: bool,
    problem: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if right {
        Ok(())
    } else {
        Err(ConfigError::Value {
            key,
            problem: problem(),
        })
    }
}

/// What is in force, one `key = value` a line.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or("none".into(), |path| path.display().to_string())
        };
        let trust: Vec<_> = self
            .image
            .trust
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        writeln!(
            f,
            "collector.url = {}",
            self.collector_url
                .as_deref()
                .unwrap_or("from the join token")
        )?;
        writeln!(f, "collector.ca-file = {}", shown(&self.ca_file))?;
        writeln!(f, "enroll.token-file = {}", shown(&self.token_file))?;
        writeln!(f, "enroll.cloud-id-file = {}", shown(&self.cloud_id_file))?;
        writeln!(f, "image.manifest = {}", self.image.manifest.display())?;
        writeln!(f, "image.signature = {}", self.image.signature.display())?;
        writeln!(f, "image.trust = {}", trust.join(", "))?;
        writeln!(f, "root = {}", self.root.display())?;
        writeln!(f, "scan.full-interval = {:?}", self.schedule.full)?;
        writeln!(f, "scan.quick-interval = {:?}", self.schedule.quick)?;
        writeln!(
            f,
            "scan.threads = {}",
            self.threads
                .map_or("half of the processors".into(), |n| n.to_string())
        )?;
        writeln!(f, "scan.first-boot-window = {:?}", self.first_boot_window)?;
        match self.probe_listen {
            Listen::Off => writeln!(f, "probe.listen = off")?,
            Listen::At(address) => writeln!(f, "probe.listen = {address}")?,
        }
        writeln!(
            f,
            "probe.mode = {}",
            match self.probe_mode {
                Mode::Collector => "collector",
                Mode::Local => "local",
            }
        )?;
        writeln!(f, "spool.max-bytes = {}", self.spool_max_bytes)?;
        writeln!(f, "state-directory = {}", self.state_directory.display())?;
        writeln!(f, "status-socket = {}", self.status_socket.display())?;
        writeln!(
            f,
            "log = {}",
            match self.log {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
            }
        )
    }
}
