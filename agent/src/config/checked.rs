//! Receives what the files say; hands on a configuration in which every value is there and can be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::interval::Every;
use super::written::{Enforce, ImageFiles, Level, Listen, Mode, Pace, Written};
use super::{ConfigError, Surroundings};
use crate::scan::Pass;
use crate::watch::attribution::CommandLine;

/// What the daemon runs by.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The collector's address, where it is not the join token's.
    pub collector_url: Option<String>,
    /// CA certificates to trust at enrolment, instead of the join token's digest.
    pub ca_file: Option<PathBuf>,
    /// The fleet that this instance is for, where that is not left to the join token.
    pub fleet: Option<String>,
    /// Where the join token would be: the first that is there counts.
    pub token_files: Vec<PathBuf>,
    /// Where the cloud's id of this machine would be: the first that is there counts.
    pub cloud_id_files: Vec<PathBuf>,
    /// What to verify against.
    pub image: Image,
    /// The root of the tree to verify.
    pub root: PathBuf,
    /// How often to scan.
    pub schedule: Schedule,
    /// Whether scans make way for others.
    pub pace: Pace,
    /// As many bytes an adaptive scan reads in a second.
    pub max_bytes_per_second: u64,
    /// How many threads read and hash; none: half of the processors.
    pub threads: Option<usize>,
    /// How long after multi-user what may change once may still change.
    pub first_boot_window: Duration,
    /// What is seen between scans.
    pub watches: Watches,
    /// What becomes of programs that the image does not hold.
    pub enforce: Enforce,
    /// Where any may be run all the same.
    pub enforce_allow: Vec<PathBuf>,
    /// How much of command lines is told.
    pub command_line: CommandLine,
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
    /// From the end of one sweep of the disk to the start of the next; none: never.
    pub disk: Option<Duration>,
    /// From one sweep of the processes to the next; none: never.
    pub processes: Option<Duration>,
    /// A pass that would take longer is paced no more.
    pub finish: Duration,
}

impl Schedule {
    /// How long ago, at most, the oldest was verified that such a pass verifies: one began, took its time, was rested
    /// from, and another has not ended yet. None where nothing is promised.
    pub fn ceiling(&self, pass: Pass) -> Option<Duration> {
        let interval = match pass {
            Pass::Full => self.full,
            Pass::Disk => self.disk?,
            Pass::Quick => return None,
        };
        Some(self.finish + interval + self.finish)
    }
}

/// What is seen between scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watches {
    /// Every change, as it happens.
    Everything,
    /// Nothing.
    Nothing,
}

/// What makes the health probe unhealthy.
pub use super::written::Mode as ProbeMode;

/// Where a boot step (cloud-init, say) puts a join token; gone at the next boot.
pub(super) const TOKEN_FILE: &str = "/run/driftmark/token";
/// Where it puts the cloud's id of this machine, before the token.
const CLOUD_ID_FILE: &str = "/run/driftmark/cloud-id";
/// The longest name of a fleet that a collector has.
const MAX_FLEET_BYTES: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
/// More often than this is a busy loop.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Rarer than this is never.
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 86_400);
/// Less would not hold one report in parts.
const MIN_SPOOL_BYTES: u64 = 8 * 1024 * 1024;
/// Less is a misprint: a root would take days.
const MIN_BYTES_PER_SECOND: u64 = 64 * 1024;
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
        let attribution = written.attribution.unwrap_or_default();
        let places = |written: Option<PathBuf>, credential: &str, file: &str| match written {
            Some(written) => vec![written],
            None => surroundings
                .credentials_directory
                .iter()
                .map(|at| at.join(credential))
                .chain([PathBuf::from(file)])
                .collect(),
        };
        let config = Config {
            collector_url: collector.url,
            ca_file: collector.ca_file,
            fleet: enroll.fleet,
            token_files: places(enroll.token_file, "driftmark.token", TOKEN_FILE),
            cloud_id_files: places(enroll.cloud_id_file, "driftmark.cloud-id", CLOUD_ID_FILE),
            image: image(written.image.unwrap_or_default()),
            root: written.root.unwrap_or_else(|| "/".into()),
            schedule: Schedule {
                full: scan
                    .full_interval
                    .map_or(Duration::from_secs(86_400), |interval| interval.0),
                quick: scan
                    .quick_interval
                    .map_or(Duration::from_secs(300), |interval| interval.0),
                disk: every(scan.disk_interval, 7 * DAY),
                processes: every(scan.process_interval, MINUTE),
                finish: scan
                    .finish_within
                    .map_or(Duration::from_secs(1800), |interval| interval.0),
            },
            pace: scan.pace.unwrap_or(Pace::Adaptive),
            max_bytes_per_second: scan.max_bytes_per_second.unwrap_or(64 * 1024 * 1024),
            threads: scan.threads.map(|threads| threads as usize),
            first_boot_window: scan
                .first_boot_window
                .map_or(Duration::from_secs(600), |interval| interval.0),
            watches: match written.watch.unwrap_or_default().enabled {
                Some(false) => Watches::Nothing,
                None | Some(true) => Watches::Everything,
            },
            enforce: written.enforce.unwrap_or(Enforce::Off),
            enforce_allow: written.enforce_allow.unwrap_or_default(),
            command_line: attribution.command_line.unwrap_or_default(),
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
            refuse_unless("collector.url", host.is_ascii(), || {
                format!("`{url}` is not ASCII: write the host's name as DNS has it, `xn--…`")
            })?;
            refuse_unless(
                "collector.url",
                !host.contains(['/', '?', '#', '@', ' ']),
                || format!("`{url}` has more than `https://HOST:PORT`"),
            )?;
        }
        if let Some(fleet) = &self.fleet {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_name = fleet.len() <= MAX_FLEET_BYTES
                && fleet.bytes().all(plain)
                && fleet
                    .bytes()
                    .next()
                    .is_some_and(|byte| byte.is_ascii_alphanumeric());
            refuse_unless("enroll.fleet", is_name, || {
                format!(
                    "`{}` is not the name of a fleet",
                    drift::escape(fleet.as_bytes())
                )
            })?;
        }
        for (key, interval) in [
            ("scan.full-interval", self.schedule.full),
            ("scan.quick-interval", self.schedule.quick),
            ("scan.disk-interval", self.schedule.disk.unwrap_or(DAY)),
            (
                "scan.process-interval",
                self.schedule.processes.unwrap_or(DAY),
            ),
            ("scan.finish-within", self.schedule.finish),
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
        refuse_unless(
            "scan.max-bytes-per-second",
            self.max_bytes_per_second >= MIN_BYTES_PER_SECOND,
            || format!("must be at least {MIN_BYTES_PER_SECOND}"),
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
        let is_all = |path: &PathBuf| path.parent().is_none();
        refuse_unless(
            "enforce-allow",
            !self.enforce_allow.iter().any(is_all),
            || "allows everything: that is `enforce = \"off\"`".into(),
        )?;
        self.paths().try_for_each(|(key, path)| {
            refuse_unless(key, path.is_absolute(), || {
                format!("`{}` is not absolute", path.display())
            })
        })
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        fn each<'a>(
            key: &'static str,
            paths: impl IntoIterator<Item = &'a PathBuf>,
        ) -> impl Iterator<Item = (&'static str, &'a Path)> {
            paths.into_iter().map(move |path| (key, path.as_path()))
        }
        [
            ("image.manifest", self.image.manifest.as_path()),
            ("image.signature", self.image.signature.as_path()),
            ("root", self.root.as_path()),
            ("state-directory", self.state_directory.as_path()),
            ("status-socket", self.status_socket.as_path()),
        ]
        .into_iter()
        .chain(each("collector.ca-file", &self.ca_file))
        .chain(each("enroll.token-file", &self.token_files))
        .chain(each("enroll.cloud-id-file", &self.cloud_id_files))
        .chain(each("image.trust", &self.image.trust))
        .chain(each("enforce-allow", &self.enforce_allow))
    }
}

impl Config {
    /// What is in force, for people: every key with its value.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let shown = |paths: &[PathBuf], word: &str| {
            let shown: Vec<_> = paths
                .iter()
                .map(|path| drift::escape(path.as_os_str().as_encoded_bytes()))
                .collect();
            shown.join(word)
        };
        let one = |path: &Path| drift::escape(path.as_os_str().as_encoded_bytes());
        let from_token = || "from the join token".to_owned();
        vec![
            (
                "collector.url",
                self.collector_url.clone().unwrap_or_else(from_token),
            ),
            (
                "collector.ca-file",
                self.ca_file.as_deref().map_or_else(|| "none".into(), one),
            ),
            (
                "enroll.fleet",
                self.fleet.clone().unwrap_or_else(from_token),
            ),
            ("enroll.token-file", shown(&self.token_files, ", else ")),
            (
                "enroll.cloud-id-file",
                shown(&self.cloud_id_files, ", else "),
            ),
            ("image.manifest", one(&self.image.manifest)),
            ("image.signature", one(&self.image.signature)),
            ("image.trust", shown(&self.image.trust, ", ")),
            ("root", one(&self.root)),
            ("scan.full-interval", format!("{:?}", self.schedule.full)),
            ("scan.quick-interval", format!("{:?}", self.schedule.quick)),
            ("scan.disk-interval", interval_or_off(self.schedule.disk)),
            (
                "scan.process-interval",
                interval_or_off(self.schedule.processes),
            ),
            ("scan.finish-within", format!("{:?}", self.schedule.finish)),
            (
                "scan.pace",
                match self.pace {
                    Pace::Adaptive => "adaptive".into(),
                    Pace::Unpaced => "unpaced".into(),
                },
            ),
            (
                "scan.max-bytes-per-second",
                self.max_bytes_per_second.to_string(),
            ),
            (
                "scan.threads",
                self.threads
                    .map_or("half of the processors".into(), |n| n.to_string()),
            ),
            (
                "scan.first-boot-window",
                format!("{:?}", self.first_boot_window),
            ),
            (
                "watch.enabled",
                (self.watches == Watches::Everything).to_string(),
            ),
            ("enforce", self.enforce.word().into()),
            (
                "enforce-allow",
                match self.enforce_allow.as_slice() {
                    [] => "none".into(),
                    allow => shown(allow, ", "),
                },
            ),
            (
                "attribution.command-line",
                match self.command_line {
                    CommandLine::Full => "full".into(),
                    CommandLine::Redacted => "redacted".into(),
                    CommandLine::None => "none".into(),
                },
            ),
            (
                "probe.listen",
                match self.probe_listen {
                    Listen::Off => "off".into(),
                    Listen::At(address) => address.to_string(),
                },
            ),
            (
                "probe.mode",
                match self.probe_mode {
                    Mode::Collector => "collector".into(),
                    Mode::Local => "local".into(),
                },
            ),
            ("spool.max-bytes", self.spool_max_bytes.to_string()),
            ("state-directory", one(&self.state_directory)),
            ("status-socket", one(&self.status_socket)),
            (
                "log",
                match self.log {
                    Level::Error => "error".into(),
                    Level::Warn => "warn".into(),
                    Level::Info => "info".into(),
                },
            ),
        ]
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

fn every(written: Option<Every>, default: Duration) -> Option<Duration> {
    match written {
        None => Some(default),
        Some(Every::Never) => None,
        Some(Every::Interval(interval)) => Some(interval.0),
    }
}

fn interval_or_off(interval: Option<Duration>) -> String {
    interval.map_or("off".into(), |interval| format!("{interval:?}"))
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
