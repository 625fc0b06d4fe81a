//! Receives configuration files and the surroundings; hands on a checked [`Config`], or a refusal that says what to do.
//!
//! Three stages: as written ([`Written`], one file, typed and strict), merged ([`Merged`]), checked ([`Config`], every
//! value there and sensible). An agent without any configuration runs.
//!
//! The weakest first: the image's drop-ins, those of `/run`, those of `/etc`, the kernel command line, the credential
//! `driftmark.config`. What was made for this one machine holds over what was made for all of them, and of that what
//! only its own service manager can hand over comes last.

mod checked;
mod command_line;
mod interval;
mod merged;
mod written;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::log::Chain;

pub use checked::{Config, Image, ProbeMode, Schedule, Watches};
pub use merged::{CREDENTIAL, DIRECTORIES, Merged, merge_directories, read_file};
pub use written::{Enforce, Level, Listen, Pace, Written};

/// `EX_CONFIG` of `sysexits.h`: the configuration is refused.
pub const EXIT_CONFIG: u8 = 78;

/// What decides defaults besides the files: read once, at the edge.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `$STATE_DIRECTORY`, as systemd sets it.
    pub state_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, as systemd sets it.
    pub credentials_directory: Option<PathBuf>,
}

/// The credentials of the agent's unit, for commands beside it: where systemd puts them while it runs.
const UNIT_CREDENTIALS: &str = "/run/credentials/driftmark-agent.service";

impl Surroundings {
    /// Those of the daemon, for a command that runs beside it: what it sees is what the daemon sees.
    pub fn of_the_daemon() -> Self {
        let mut own = Self::of_process();
        let credentials = Path::new(UNIT_CREDENTIALS);
        if own.credentials_directory.is_none() && credentials.is_dir() {
            own.credentials_directory = Some(credentials.to_owned());
        }
        own
    }

    /// Those of this process.
    pub fn of_process() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Surroundings {
            state_directory: path("STATE_DIRECTORY"),
            credentials_directory: path("CREDENTIALS_DIRECTORY"),
        }
    }
}

/// Loads `file` alone, or, without one, everything that says something.
///
/// # Errors
/// [`ConfigError`]: what is wrong, where, and what to do about it.
pub fn load(file: Option<&Path>, surroundings: &Surroundings) -> Result<Config, ConfigError> {
    Config::check(merge(file, surroundings)?.written, surroundings)
}

fn merge(file: Option<&Path>, surroundings: &Surroundings) -> Result<Merged, ConfigError> {
    if let Some(file) = file {
        return Merged::default().overlaid_by_file(file);
    }
    let merged = merge_directories(DIRECTORIES.iter().map(Path::new))?;
    let said = command_line::understand(&command_line::words()?)?;
    // Whoever cannot get into a machine any more but at its boot has the last word on that.
    let switch = Written {
        enforce: said.enforce,
        ..Written::default()
    };
    let merged = merged.overlaid(said, command_line::SOURCE);
    let merged = match &surroundings.credentials_directory {
        Some(credentials) if credentials.join(CREDENTIAL).exists() => {
            merged.overlaid_by_file(&credentials.join(CREDENTIAL))?
        }
        _ => merged,
    };
    Ok(merged.overlaid(switch, command_line::SOURCE))
}

/// `check-config`: prints what is in force and who says so and ends 0, or says what is wrong and ends [`EXIT_CONFIG`].
pub fn check(file: Option<&Path>) -> ExitCode {
    let surroundings = Surroundings::of_the_daemon();
    let checked = merge(file, &surroundings).and_then(|Merged { written, origins }| {
        Ok((Config::check(written, &surroundings)?, origins))
    });
    match checked {
        Ok((config, origins)) => {
            for (key, value) in config.rows() {
                let origin = origins.get(key).map_or("default", String::as_str);
                println!("{key} = {value}  # {origin}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

/// Says on standard error why the configuration is refused.
pub(crate) fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("driftmark-agent: {}", Chain(error));
    ExitCode::from(EXIT_CONFIG)
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anyone could have written it.
    #[error("configuration {} is writable by everyone: run `chmod o-w {}`", path.display(), path.display())]
    WorldWritable {
        /// The file.
        path: PathBuf,
    },
    /// Longer than any configuration is.
    #[error("configuration {} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Not TOML, an unknown or duplicate key, or a value of another type.
    #[error("understand configuration {} (`man driftmark-agent.toml` lists the keys)", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<drift::written::BadText>,
    },
    /// A word of the kernel command line that cannot be.
    #[error("`{word}` on the kernel command line {problem}")]
    CommandLine {
        /// The word, without its value.
        word: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A join token where everyone can read it.
    #[error(
        "`driftmark.token` on the kernel command line: everyone can read it there, so revoke that token, and hand a new \
         one over as the system credential `driftmark.token` or in {}",
        checked::TOKEN_FILE
    )]
    SecretOnCommandLine,
    /// A value that cannot be.
    #[error("configuration key `{key}`: {problem}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong and what is right.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings {
            state_directory: None,
            credentials_directory: Some("/run/credentials/x".into()),
        }
    }

    #[test]
    fn no_configuration_at_all_is_enough() {
        let empty = tempfile::tempdir().unwrap();
        let written =
            merge_directories([empty.path(), Path::new("/nonexistent/agent.d")].into_iter())
                .unwrap()
                .written;
        let config = Config::check(written, &surroundings()).unwrap();
        assert_eq!(config.state_directory, Path::new("/var/lib/driftmark"));
        assert_eq!(
            config.token_files,
            ["/run/credentials/x/driftmark.token", "/run/driftmark/token"].map(PathBuf::from)
        );
        assert_eq!(config.probe_mode, ProbeMode::Collector);
    }

    #[test]
    fn later_directories_mask_files_and_override_keys() {
        let home = tempfile::tempdir().unwrap();
        let [usr, etc] = ["usr", "etc"].map(|name| home.path().join(name));
        for directory in [&usr, &etc] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(
            usr.join("10-a.toml"),
            "[scan]\nfull-interval = \"1h\"\nthreads = 3\n",
        )
        .unwrap();
        std::fs::write(usr.join("20-b.toml"), "[scan]\nquick-interval = \"9s\"\n").unwrap();
        std::fs::write(etc.join("20-b.toml"), "log = \"warn\"\n").unwrap();
        std::fs::write(etc.join("30-c.toml"), "[scan]\nfull-interval = \"2h\"\n").unwrap();
        std::fs::write(etc.join("ignored.txt"), "not toml").unwrap();
        let merged = merge_directories([usr.as_path(), etc.as_path()].into_iter()).unwrap();
        let says = |key: &str| merged.origins.get(key).map(Path::new);
        assert_eq!(says("scan.full-interval"), Some(&*etc.join("30-c.toml")));
        assert_eq!(says("scan.threads"), Some(&*usr.join("10-a.toml")));
        assert_eq!(says("scan.quick-interval"), None);
        let config = Config::check(merged.written, &surroundings()).unwrap();
        assert_eq!(config.schedule.full.as_secs(), 7200, "etc comes after usr");
        assert_eq!(
            config.schedule.quick.as_secs(),
            300,
            "the masked file does not count"
        );
        assert_eq!((config.threads, config.log), (Some(3), Level::Warn));
    }

    #[test]
    fn the_credential_is_laid_over_everything_else() {
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(
            credentials.path().join(CREDENTIAL),
            "[enroll]\nfleet = \"web\"\n",
        )
        .unwrap();
        let surroundings = Surroundings {
            credentials_directory: Some(credentials.path().to_owned()),
            ..Surroundings::default()
        };
        let merged = merge(None, &surroundings).unwrap();
        let origin = &merged.origins["enroll.fleet"];
        assert!(origin.ends_with("driftmark.config"), "{origin}");
        let config = Config::check(merged.written, &surroundings).unwrap();
        assert_eq!(config.fleet.as_deref(), Some("web"));
        std::fs::write(credentials.path().join(CREDENTIAL), "fleet = \"web\"\n").unwrap();
        assert!(
            merge(None, &surroundings).is_err(),
            "a wrong one is refused"
        );
    }

    #[test]
    fn a_world_writable_file_is_refused_and_the_message_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("agent.toml");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = read_file(&file).unwrap_err();
        assert!(error.to_string().contains("chmod o-w"), "{error}");
    }

    #[test]
    fn every_bad_configuration_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-config");
        let mut seen = 0;
        for case in std::fs::read_dir(folder).unwrap() {
            for file in std::fs::read_dir(case.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                let refused =
                    read_file(&file).and_then(|written| Config::check(written, &surroundings()));
                assert!(refused.is_err(), "{} is accepted", file.display());
                seen += 1;
            }
        }
        assert!(seen >= 10, "{seen}");
    }
}
