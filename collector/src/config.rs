//! What the operator wants, in three stages: as written → merged → checked.
//!
//! Receives files and flags, hands on a [`Config`] in which everything has a value. Unknown keys and files that anyone
//! may write are refused: a collector with a wrong configuration does not run.

mod span;
mod written;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use span::{BadSpan, Span};
pub use written::{Written, read_private};

/// Everything that the collector needs to know before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Certificates, database and first operator token.
    pub data: PathBuf,
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where operators connect.
    pub operators: SocketAddr,
    /// Names and addresses that agents and operators use for this machine; the first is in join tokens.
    pub advertise: Vec<String>,
    /// The fleets and their policy.
    pub fleets: PathBuf,
    /// How often agents report.
    pub heartbeat: Duration,
    /// How long an instance's certificate lives.
    pub certificate_life: Duration,
}

/// What the command line says; stronger than the files.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// [`Config::data`].
    pub data: Option<PathBuf>,
    /// [`Config::agents`].
    pub agents: Option<SocketAddr>,
    /// [`Config::operators`].
    pub operators: Option<SocketAddr>,
}

/// A configuration that is refused. The exit code is 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Anyone may write it.
    #[error("{} can be written by anyone: `chmod o-w` it after a look at what it says", path.display())]
    WorldWritable {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read it, and it is a secret.
    #[error("{} can be read by others: `chmod 600` it, and make a new one if they may have", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// Too long to be a configuration.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most it may have.
        limit: u64,
    },
    /// Not what a configuration says.
    #[error("understand {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("`{key}` {wrong}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        wrong: String,
    },
}

/// Where drop-ins lie, the weakest first.
pub const DIRECTORIES: [&str; 3] = [
    "/usr/lib/driftmark/collector.d",
    "/run/driftmark/collector.d",
    "/etc/driftmark/collector.d",
];

/// Reads `file`, or the drop-ins where there is none, under `flags`.
///
/// # Errors
/// The first thing that is refused.
pub fn load(file: Option<&Path>, flags: Flags) -> Result<Config, ConfigError> {
    let written = match file {
        Some(file) => written::read_file(file)?,
        None => written::merge_directories(&DIRECTORIES.map(Path::new))?,
    };
    check(written, flags)
}

/// `/var/lib/driftmark-collector` for root, else below the user's own state directory.
pub fn default_data_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/driftmark-collector");
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")));
    state.unwrap_or_default().join("driftmark-collector")
}

impl Config {
    /// The defaults, with everything in `data`.
    pub fn of(data: PathBuf) -> Self {
        Config {
            fleets: data.join("fleets.toml"),
            data,
            agents: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443),
            operators: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8444),
            advertise: Vec::new(),
            heartbeat: Duration::from_secs(60),
            certificate_life: Duration::from_hours(24),
        }
    }
}

fn check(written: Written, flags: Flags) -> Result<Config, ConfigError> {
    let data = flags
        .data
        .or(written.data)
        .unwrap_or_else(default_data_directory);
    let mut config = Config::of(data);
    config.agents = flags.agents.or(written.agents).unwrap_or(config.agents);
    config.operators = flags
        .operators
        .or(written.operators)
        .unwrap_or(config.operators);
    config.advertise = written.advertise.unwrap_or_default();
    if let Some(fleets) = written.fleets {
        config.fleets = config.data.join(fleets);
    }
    config.heartbeat = written.heartbeat.map_or(config.heartbeat, |span| span.0);
    config.certificate_life = written
        .certificate_life
        .map_or(config.certificate_life, |span| span.0);
    within(
        "heartbeat",
        config.heartbeat,
        Duration::from_secs(1),
        Duration::from_hours(1),
    )?;
    within(
        "certificate-life",
        config.certificate_life,
        Duration::from_secs(1),
        Duration::from_hours(24 * 7),
    )?;
    if config.advertise.len() > MAX_ADVERTISED {
        return Err(ConfigError::Value {
            key: "advertise",
            wrong: format!("has more than {MAX_ADVERTISED} names"),
        });
    }
    if let Some(bad) = config.advertise.iter().find(|name| !is_host(name)) {
        let wrong = format!(
            "has `{}`, which is neither a host name nor an address",
            drift::escape(bad.as_bytes())
        );
        return Err(ConfigError::Value {
            key: "advertise",
            wrong,
        });
    }
    Ok(config)
}

/// More names than any certificate should carry.
const MAX_ADVERTISED: usize = 64;

fn within(
    key: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let wrong = format!(
        "is {}s, and from {}s to {}s is allowed",
        value.as_secs(),
        least.as_secs(),
        most.as_secs()
    );
    Err(ConfigError::Value { key, wrong })
}

fn is_host(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (rustls_pki_types::DnsName::try_from(name).is_ok()
            && name.bytes().any(|byte| byte.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn checked(text: &str) -> Result<Config, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let flags = Flags {
            data: Some("/data".into()),
            ..Flags::default()
        };
        check(written, flags).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_written_is_a_whole_configuration_on_loopback() {
        let config = checked("").unwrap();
        assert_eq!(config, Config::of("/data".into()));
        assert!(config.agents.ip().is_loopback() && config.operators.ip().is_loopback());
    }

    #[test]
    fn what_is_written_holds_unless_a_flag_is_stronger() {
        let config = checked(
            "data = '/other'\nagents = '0.0.0.0:1'\nadvertise = ['c.example', '10.0.0.1']\nfleets = 'f.toml'\n\
             heartbeat = '30s'\ncertificate-life = '1h'",
        )
        .unwrap();
        assert_eq!(config.data, Path::new("/data"));
        assert_eq!(config.fleets, Path::new("/data/f.toml"));
        assert_eq!(config.agents.port(), 1);
        assert_eq!(
            (
                config.heartbeat.as_secs(),
                config.certificate_life.as_secs()
            ),
            (30, 3600)
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, word) in [
            ("hartbeat = '1s'", "hartbeat"),
            ("certificate_life = '1h'", "certificate_life"),
            ("heartbeat = '1s'\nheartbeat = '2s'", "duplicate"),
            ("heartbeat = 60", "heartbeat"),
            ("heartbeat = '2h'", "heartbeat"),
            ("certificate-life = '90d'", "certificate-life"),
            ("agents = 'localhost'", "agents"),
            ("advertise = ['https://c.example']", "advertise"),
            ("advertise = ['1.2.3']", "advertise"),
        ] {
            let refused = checked(text).unwrap_err();
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }

    #[test]
    fn a_file_that_anyone_may_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("collector.toml");
        std::fs::write(&file, "heartbeat = '5s'").unwrap();
        assert_eq!(
            load(Some(&file), Flags::default())
                .unwrap()
                .heartbeat
                .as_secs(),
            5
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(
            load(Some(&file), Flags::default()),
            Err(ConfigError::WorldWritable { .. })
        ));
    }
}
