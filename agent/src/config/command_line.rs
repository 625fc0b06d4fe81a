//! Receives the kernel command line; hands on what it says about the agent: the collector's address, the fleet, and that
//! no program is to be refused.
//!
//! Everyone on the machine can read it, and so can everyone who may look at the machine's definition: it never holds a
//! secret, and one that is there is refused with the advice to end it. In a container the kernel's own command line is
//! the host's, so the arguments of process 1 are read there, as systemd does.

use std::io::{self, Read as _};
use std::path::Path;

use super::ConfigError;
use super::written::{Collector, Enforce, Enroll, Written};

/// What check-config names as the source.
pub(super) const SOURCE: &str = "kernel command line";

/// The kernel keeps 4 KiB at most on every architecture; the arguments of a container's process 1 may be longer.
const MAX_BYTES: u64 = 64 * 1024;
/// What the agent's words begin with.
const PREFIX: &str = "driftmark.";

/// The words of this machine's command line; none where there is no `/proc`.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn words() -> Result<Vec<String>, ConfigError> {
    // Written by systemd as process 1 of a container, and by nobody else.
    let is_container = Path::new("/run/systemd/container").exists();
    let path = if is_container {
        "/proc/1/cmdline"
    } else {
        "/proc/cmdline"
    };
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ConfigError::Read {
                path: path.into(),
                source: error,
            });
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(if is_container {
        text.split('\0').map(str::to_owned).collect()
    } else {
        split(&text)
    })
}

/// What the words say about the agent. As everywhere on a kernel command line, the last of several counts.
///
/// # Errors
/// A word that begins with `driftmark.` and is not one of ours, a value that is missing, or a secret.
pub(super) fn understand(words: &[String]) -> Result<Written, ConfigError> {
    let (mut url, mut fleet, mut enforce) = (None, None, None);
    for word in words {
        let Some(rest) = word.strip_prefix(PREFIX) else {
            continue;
        };
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        let place = match key {
            "collector" => &mut url,
            "fleet" => &mut fleet,
            "enforce" if value == "off" => {
                enforce = Some(Enforce::Off);
                continue;
            }
            "enforce" => return Err(bad(key, "can only be `off`")),
            "token" => return Err(ConfigError::SecretOnCommandLine),
            _ => {
                return Err(bad(
                    key,
                    "is not known: `driftmark.collector`, `driftmark.fleet` and `driftmark.enforce` are",
                ));
            }
        };
        if value.is_empty() {
            return Err(bad(key, "has no value"));
        }
        *place = Some(value.to_owned());
    }
    Ok(Written {
        collector: url.map(|url| Collector {
            url: Some(url),
            ..Collector::default()
        }),
        enroll: fleet.map(|fleet| Enroll {
            fleet: Some(fleet),
            ..Enroll::default()
        }),
        enforce,
        ..Written::default()
    })
}

fn bad(key: &str, problem: &'static str) -> ConfigError {
    ConfigError::CommandLine {
        word: crate::log::peer_words(&format!("{PREFIX}{key}")),
        problem,
    }
}

/// Words as systemd splits them: by white space, quotes of either kind hold a word together and go, and a backslash is
/// a character like any other. A quote that is never closed ends with the line.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for character in line.chars() {
        match (character, quote) {
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<(Option<String>, Option<String>), String> {
        let written = understand(&split(line)).map_err(|error| error.to_string())?;
        Ok((
            written.collector.and_then(|collector| collector.url),
            written.enroll.and_then(|enroll| enroll.fleet),
        ))
    }

    #[test]
    fn words_are_split_as_systemd_splits_them() {
        for (line, words) in [
            ("", &[][..]),
            ("  quiet\tro\n", &["quiet", "ro"]),
            ("a=\"b c\" d", &["a=b c", "d"]),
            ("\"a=b c\" 'd e'f", &["a=b c", "d ef"]),
            ("a='it\"s' \"\" b\\ c", &["a=it\"s", "", "b\\", "c"]),
            ("a=\"open end", &["a=open end"]),
        ] {
            assert_eq!(split(line), words, "{line:?}");
        }
    }

    #[test]
    fn collector_and_fleet_are_taken_and_everyone_else_s_words_are_not_ours() {
        let line = "root=/dev/nvme0n1 driftmark.fleet=old driftmark.collector=\"https://c:8443\" xdriftmark.fleet=no \
                    driftmark.fleet=web";
        assert_eq!(
            of(line),
            Ok((Some("https://c:8443".into()), Some("web".into())))
        );
        assert_eq!(of("quiet"), Ok((None, None)));
    }

    #[test]
    fn that_nothing_is_refused_can_be_said_and_no_more() {
        let said = understand(&split("driftmark.enforce=off")).unwrap();
        assert_eq!(said.enforce, Some(Enforce::Off));
        for line in ["driftmark.enforce=image-programs", "driftmark.enforce"] {
            assert!(
                of(line).unwrap_err().contains("driftmark.enforce"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_secret_is_refused_and_never_repeated() {
        for line in [
            "driftmark.token=dmjt1.abc",
            "driftmark.fleet=web \"driftmark.token=dmjt1.abc\"",
        ] {
            let refused = of(line).unwrap_err();
            assert!(
                refused.contains("everyone") && refused.contains("revoke"),
                "{refused}"
            );
            assert!(!refused.contains("dmjt1"), "{refused}");
        }
    }

    #[test]
    fn what_is_not_known_or_has_no_value_is_refused() {
        for line in [
            "driftmark.flet=web",
            "driftmark.fleet",
            "driftmark.fleet=",
            "driftmark.",
            "driftmark.\u{1b}[31m=1",
        ] {
            let refused = of(line).unwrap_err();
            assert!(refused.contains("driftmark."), "{refused}");
            assert!(!refused.contains('\u{1b}'), "{refused}");
        }
    }
}
