//! Receives merged texts, and hands on policies that make sense.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use drift::class::Severity;
use serde::{Deserialize, Serialize};

use super::measure::{BadMeasure, Share, parse_duration, shown_duration};
use super::{merged, written};

/// The longest name of a fleet or channel: it is part of addresses, tables and every ledger entry.
pub const MAX_NAME_BYTES: usize = 64;
/// The most fleets in one file: every one is judged in every round.
pub const MAX_FLEETS: usize = 10_000;
/// The most replacements in flight in one fleet.
pub const MAX_PARALLEL: u32 = 1_000;
/// The longest duration of a policy: beyond it, it is a slip of the pen.
pub const MAX_DURATION: Duration = Duration::from_secs(7 * 86_400);
/// How long a replacer's program may run where nothing is said.
const DEFAULT_TIMEOUT: &str = "10m";

/// The policies of all fleets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleets {
    by_name: BTreeMap<String, Policy>,
}

/// What the operators of one fleet allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The channel that the fleet should run; without one there is no last good image and nothing to replace with.
    pub channel: Option<String>,
    /// How far the collector may go by itself.
    pub mode: Mode,
    /// How long a planned order waits before it may execute.
    pub grace: Duration,
    /// How many replacements may be in flight, at least one.
    pub parallel: usize,
    /// The unhealthy share above which nothing is replaced.
    pub stop_above: Share,
    /// The least severity that is worth a replacement.
    pub minimum_severity: Severity,
    /// How long an executing order may take until it is verified.
    pub verify_within: Duration,
    /// Who terminates and replaces.
    pub replacer: Replacer,
}

/// How far the collector may go by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It says what would happen.
    Observe,
    /// It plans orders, and an approver lets each go.
    Approve,
    /// It replaces, within the breakers.
    Replace,
}

/// Who terminates and replaces an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacer {
    /// The autoscaler: the agent's health probe turns unhealthy, and the autoscaler does what it does.
    Probe,
    /// A program of the operator's.
    Command {
        /// Its absolute path.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// How long it may run.
        timeout: Duration,
    },
}

/// What a fleets file says that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// A fleet is named twice.
    #[error("fleet `{0}` is there twice")]
    Twice(String),
    /// Too many fleets.
    #[error("{0} fleets, and at most {MAX_FLEETS} are allowed")]
    TooMany(usize),
    /// A name that is no name.
    #[error(
        "`{0}` is not a name: letters, digits, `-`, `_` and `.`, at most {MAX_NAME_BYTES}, the first a letter or digit"
    )]
    Name(String),
    /// One value of one fleet.
    #[error("fleet `{fleet}`: {value}")]
    Fleet {
        /// The fleet.
        fleet: String,
        /// The value.
        value: BadValue,
    },
}

/// One value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Not a mode.
    #[error("mode `{0}` is none of observe, approve and replace")]
    Mode(String),
    /// Not a severity.
    #[error("minimum-severity `{0}` is none of info, low, medium, high and critical")]
    Severity(String),
    /// Not a replacer.
    #[error("replacer `{0}` is neither \"probe\" nor {{ command = [\"/path\", …] }}")]
    Replacer(String),
    /// A program without an absolute path.
    #[error("the replacer's command begins with the absolute path of a program")]
    Program,
    /// Not within its limits.
    #[error("parallel is {0}, and must be from 1 to {MAX_PARALLEL}")]
    Parallel(u32),
    /// Not a duration or share.
    #[error("{key}: {measure}")]
    Measure {
        /// Whose value.
        key: &'static str,
        /// What is wrong with it.
        measure: BadMeasure,
    },
    /// A duration beyond all sense, or of nothing where something must pass.
    #[error("{key} is {value}, and must be from {least} to 7d")]
    Duration {
        /// Whose value.
        key: &'static str,
        /// The value.
        value: String,
        /// The shortest.
        least: &'static str,
    },
    /// A program that may run longer than its order may take.
    #[error(
        "the replacer's timeout is {timeout}, longer than verify-within, which is {verify_within}: its order would \
         have failed while it still runs"
    )]
    Timeout {
        /// How long the program may run.
        timeout: String,
        /// How long the order may take.
        verify_within: String,
    },
    /// Replacing without saying with what.
    #[error(
        "mode `approve` and `replace` need a channel: without one there is nothing to replace with"
    )]
    NoChannel,
}

impl Fleets {
    /// Checks every fleet of a file.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn check(fleets: Vec<merged::Fleet>) -> Result<Self, Unacceptable> {
        if fleets.len() > MAX_FLEETS {
            return Err(Unacceptable::TooMany(fleets.len()));
        }
        let mut by_name = BTreeMap::new();
        for fleet in fleets {
            let name = fleet.name.clone();
            for name in std::iter::once(&name).chain(&fleet.channel) {
                if !is_name(name) {
                    return Err(Unacceptable::Name(name.clone()));
                }
            }
            let policy = Policy::check(fleet).map_err(|value| Unacceptable::Fleet {
                fleet: name.clone(),
                value,
            })?;
            if by_name.insert(name.clone(), policy).is_some() {
                return Err(Unacceptable::Twice(name));
            }
        }
        Ok(Fleets { by_name })
    }

    /// The policy of a fleet; a fleet that is not in the file is observed and nothing else.
    pub fn of(&self, fleet: &str) -> Policy {
        self.by_name
            .get(fleet)
            .cloned()
            .unwrap_or_else(Policy::unnamed)
    }

    /// All fleets of the file in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Policy)> {
        self.by_name
            .iter()
            .map(|(name, policy)| (name.as_str(), policy))
    }
}

impl Policy {
    /// What holds for a fleet that no file names.
    pub fn unnamed() -> Self {
        let nothing = written::Section::default();
        let merged = merged::Fleet::over(&nothing, String::new(), nothing.clone());
        Policy::check(merged).expect("the built-in values are within their limits")
    }

    fn check(fleet: merged::Fleet) -> Result<Self, BadValue> {
        let mode = match fleet.mode.as_str() {
            "observe" => Mode::Observe,
            "approve" => Mode::Approve,
            "replace" => Mode::Replace,
            _ => return Err(BadValue::Mode(fleet.mode)),
        };
        if mode != Mode::Observe && fleet.channel.is_none() {
            return Err(BadValue::NoChannel);
        }
        let minimum_severity = match Severity::from(fleet.minimum_severity) {
            Severity::Unknown(word) => return Err(BadValue::Severity(word)),
            known => known,
        };
        if !(1..=MAX_PARALLEL).contains(&fleet.parallel) {
            return Err(BadValue::Parallel(fleet.parallel));
        }
        let stop_above = Share::parse(&fleet.stop_above).map_err(|measure| BadValue::Measure {
            key: "stop-above",
            measure,
        })?;
        let verify_within = duration("verify-within", &fleet.verify_within, "1s")?;
        Ok(Policy {
            channel: fleet.channel,
            mode,
            grace: duration("grace", &fleet.grace, "0s")?,
            parallel: fleet.parallel as usize,
            stop_above,
            minimum_severity,
            verify_within,
            replacer: Replacer::check(fleet.replacer, verify_within)?,
        })
    }
}

impl Mode {
    /// The word for it in the fleets file and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Approve => "approve",
            Mode::Replace => "replace",
        }
    }
}

impl Replacer {
    /// The word for [`Replacer::Probe`].
    pub const PROBE: &str = "probe";
    /// The word for [`Replacer::Command`].
    pub const COMMAND: &str = "command";

    /// The word for it in orders, verdicts and on screen.
    pub fn word(&self) -> &'static str {
        match self {
            Replacer::Probe => Self::PROBE,
            Replacer::Command { .. } => Self::COMMAND,
        }
    }

    fn check(written: written::Replacer, verify_within: Duration) -> Result<Self, BadValue> {
        let command = match written {
            written::Replacer::Named(name) if name == Self::PROBE => return Ok(Replacer::Probe),
            written::Replacer::Named(name) => return Err(BadValue::Replacer(name)),
            written::Replacer::Command(command) => command,
        };
        let timeout = match command.timeout.as_deref() {
            Some(text) => duration("timeout", text, "1s")?,
            None => duration("timeout", DEFAULT_TIMEOUT, "1s")?.min(verify_within),
        };
        if timeout > verify_within {
            return Err(BadValue::Timeout {
                timeout: shown_duration(timeout),
                verify_within: shown_duration(verify_within),
            });
        }
        let mut words = command.command.into_iter();
        let program = words
            .next()
            .map(PathBuf::from)
            .filter(|program| program.is_absolute());
        let program = program.ok_or(BadValue::Program)?;
        Ok(Replacer::Command {
            program,
            arguments: words.collect(),
            timeout,
        })
    }
}

/// Whether a text can name a fleet or a channel.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= MAX_NAME_BYTES
        && text.bytes().all(plain)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

fn duration(key: &'static str, text: &str, least: &'static str) -> Result<Duration, BadValue> {
    let value = parse_duration(text).map_err(|measure| BadValue::Measure { key, measure })?;
    let shortest = parse_duration(least).expect("the limits are durations");
    if (shortest..=MAX_DURATION).contains(&value) {
        Ok(value)
    } else {
        Err(BadValue::Duration {
            key,
            value: shown_duration(value),
            least,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Fleets, String> {
        let written = written::File::parse(text).map_err(|error| error.message().to_owned())?;
        Fleets::check(merged::merge(written)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fleet_says_little_and_gets_careful_values() {
        let policy = check("[[fleet]]\nname = \"web\"").unwrap().of("web");
        assert_eq!(policy, Policy::unnamed());
        assert_eq!((policy.mode, policy.parallel), (Mode::Observe, 1));
        assert_eq!(policy.grace, Duration::from_secs(300));
        assert_eq!(policy.stop_above.to_string(), "20%");
        assert_eq!(policy.replacer, Replacer::Probe);
    }

    #[test]
    fn a_fleet_is_over_the_default_of_its_file() {
        let fleets = check(
            "[default]\nchannel = \"stable\"\nmode = \"replace\"\ngrace = \"1m\"\n\
             [[fleet]]\nname = \"web\"\ngrace = \"0s\"\n[[fleet]]\nname = \"db\"\nmode = \"approve\"",
        )
        .unwrap();
        assert_eq!(
            (fleets.of("web").mode, fleets.of("web").grace),
            (Mode::Replace, Duration::ZERO)
        );
        assert_eq!(
            (fleets.of("db").mode, fleets.of("db").grace),
            (Mode::Approve, Duration::from_secs(60))
        );
    }

    #[test]
    fn a_fleet_that_is_not_in_the_file_is_observed_whatever_the_default_says() {
        let fleets = check("[default]\nchannel = \"stable\"\nmode = \"replace\"").unwrap();
        assert_eq!(fleets.of("unheard-of"), Policy::unnamed());
    }

    #[test]
    fn a_command_has_an_absolute_path_and_a_time_limit() {
        let web = "[[fleet]]\nname = \"web\"\nreplacer = ";
        let fleets = check(&format!("{web}{{ command = [\"/bin/replace\", \"-x\"] }}")).unwrap();
        let expected = Replacer::Command {
            program: "/bin/replace".into(),
            arguments: vec!["-x".into()],
            timeout: Duration::from_secs(600),
        };
        assert_eq!(fleets.of("web").replacer, expected);
        let brief = format!("{web}{{ command = [\"/r\"] }}\nverify-within = \"1m\"");
        let Replacer::Command { timeout, .. } = check(&brief).unwrap().of("web").replacer else {
            panic!("a command")
        };
        assert_eq!(
            timeout,
            Duration::from_secs(60),
            "never longer than its order may take"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_why() {
        let web = |line: &str| format!("[[fleet]]\nname = \"web\"\n{line}");
        let refused = [
            (web("grace-period = \"5m\""), "grace-period"),
            (web("grace = \"5m\"\ngrace = \"6m\""), "duplicate"),
            (web("grace = \"5\""), "grace: `5` is not a duration"),
            (web("grace = \"8d\""), "grace is 8d"),
            (web("verify-within = \"0s\""), "verify-within is 0s"),
            (web("mode = \"Replace\""), "mode `Replace`"),
            (web("mode = \"replace\""), "need a channel"),
            (web("parallel = 0"), "parallel is 0"),
            (web("parallel = -1"), "fleet `web`"),
            (web("stop-above = \"0%\""), "stop-above"),
            (web("stop-above = 20"), "fleet `web`"),
            (
                web("minimum-severity = \"dire\""),
                "minimum-severity `dire`",
            ),
            (web("replacer = \"asg\""), "replacer `asg`"),
            (web("replacer = { command = [] }"), "absolute path"),
            (
                web("replacer = { command = [\"replace\"] }"),
                "absolute path",
            ),
            (
                web("replacer = { command = [\"/r\"], time = \"1m\" }"),
                "fleet `web`",
            ),
            (
                web("verify-within = \"5m\"\nreplacer = { command = [\"/r\"], timeout = \"6m\" }"),
                "timeout is 6m, longer than verify-within, which is 5m",
            ),
            (web("channel = \"a b\""), "`a b` is not a name"),
            (web("[[fleet]]\nname = \"web\""), "twice"),
            ("[[fleet]]\nname = \"\"".into(), "is not a name"),
            ("[[fleet]]\nmode = \"observe\"".into(), "name"),
            ("[fleets]".into(), "fleets"),
        ];
        for (text, why) in refused {
            let message = check(&text).expect_err(&text);
            assert!(message.contains(why), "{text}\n→ {message}");
        }
    }
}
