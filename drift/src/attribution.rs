//! Who did it: the process behind a change, as far as that could be told, and how sure it is.
//!
//! All of it is what the instance's kernel said to an agent that may itself be lied to by whoever owns the instance: it
//! is shown, and decides nothing. Texts are escaped ([`crate::escape`]) and cut to their limits where they are made.

use serde::{Deserialize, Serialize};

/// The process that made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// How sure it is.
    pub confidence: Confidence,
    /// The process; none with [`Confidence::None`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

/// How sure it is that a process did it, and that it is described as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// It is the process that did it, and lived while all of this was read of it; it is not known to have become another
    /// program since. That it has not is not proven: one that it became just before it was looked at goes unseen.
    Certain,
    /// It had ended before all of this was read, or nothing shows that its number is still its own: what is told is of it,
    /// or of whoever last started a program under its number, and there may be more to tell.
    Exited,
    /// It is the process that did it, but it was looked at long after, or runs another program than it did then, or may.
    Late,
    /// It cannot be told at all.
    None,
    /// A confidence of a later version.
    #[serde(other)]
    Unknown,
}

/// A process, as `/proc` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its number, in the agent's pid namespace.
    pub pid: u32,
    /// When it started, in milliseconds since boot: with its number this names it for as long as the machine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_milliseconds: Option<u64>,
    /// What it runs; none for the kernel's own threads, and where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<Executable>,
    /// Its arguments, parted by spaces, without what looks like a secret: at most
    /// [`Attribution::MAX_COMMAND_LINE_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Its working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Its effective user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The user who logged in at the beginning of it all, whoever they became since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The audit session of that login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// The systemd unit that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The container that it lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Who started it, and who started that one, up to process 1 or [`Attribution::MAX_ANCESTORS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
}

/// The file that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Its path.
    pub path: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The image contains this file.
    Image,
    /// It is a file that the image does not contain.
    Foreign,
    /// The file that it runs has been removed, or replaced.
    Deleted,
    /// It was never in any file system (`memfd_create`).
    Memory,
    /// That was not asked, or cannot be told.
    #[serde(other)]
    Unknown,
}

/// A root other than the machine's, or a control group as container runtimes make them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Which runtime its control group looks like; none where it is just another root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Its name or number, as the control group has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A process that another one comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its number.
    pub pid: u32,
    /// Its name: the kernel keeps 15 bytes, and it may call itself anything.
    pub name: String,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Its effective user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl Attribution {
    /// The longest command line, secrets left out.
    pub const MAX_COMMAND_LINE_BYTES: usize = 4096;
    /// Chains are this long at most: a login shell is five or six processes from process 1.
    pub const MAX_ANCESTORS: usize = 16;
    /// The longest of all other texts: paths are cut there.
    pub const MAX_TEXT_BYTES: usize = 1024;

    /// Nobody can be named.
    pub fn none() -> Self {
        Attribution {
            confidence: Confidence::None,
            process: None,
        }
    }

    /// Which process it was, without what it did otherwise and where it came from.
    #[must_use]
    pub fn in_short(&self) -> Self {
        let short = |process: &Process| Process {
            command_line: None,
            directory: None,
            cgroup: None,
            ancestors: Vec::new(),
            ..process.clone()
        };
        Attribution {
            confidence: self.confidence,
            process: self.process.as_ref().map(short),
        }
    }

    /// Whether every list and text is within its limit.
    pub fn is_within_limits(&self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let command_line = process.command_line.as_ref().map_or(0, String::len);
        command_line <= Attribution::MAX_COMMAND_LINE_BYTES
            && process.ancestors.len() <= Attribution::MAX_ANCESTORS
            && process
                .texts()
                .all(|text| text.len() <= Attribution::MAX_TEXT_BYTES)
    }

    /// The longest of its texts, in bytes.
    pub fn longest(&self) -> usize {
        let process = self.process.iter();
        let texts =
            process.flat_map(|process| process.texts().chain(process.command_line.as_deref()));
        texts.map(str::len).max().unwrap_or(0)
    }
}

impl Process {
    /// All of them but the command line.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let container = self.container.as_ref();
        let texts = [
            self.executable.as_ref().map(|executable| &executable.path),
            self.directory.as_ref(),
            self.unit.as_ref(),
            self.cgroup.as_ref(),
            container.and_then(|container| container.runtime.as_ref()),
            container.and_then(|container| container.id.as_ref()),
        ];
        let ancestors = self.ancestors.iter();
        let named = ancestors.flat_map(|one| [Some(&one.name), one.executable.as_ref()]);
        let texts = texts.into_iter().chain(named).flatten();
        texts.map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Attribution {
        let process = Process {
            pid: 812,
            started_milliseconds: Some(91_230),
            executable: Some(Executable {
                path: "/usr/bin/dpkg".into(),
                origin: Origin::Image,
            }),
            command_line: Some("dpkg --unpack".into()),
            directory: Some("/".into()),
            uid: Some(0),
            login_uid: Some(1000),
            session: Some(3),
            unit: Some("session-3.scope".into()),
            cgroup: Some("/user.slice/user-1000.slice/session-3.scope".into()),
            container: None,
            ancestors: vec![Ancestor {
                pid: 1,
                name: "systemd".into(),
                executable: Some("/usr/lib/systemd/systemd".into()),
                uid: Some(0),
            }],
        };
        Attribution {
            confidence: Confidence::Certain,
            process: Some(process),
        }
    }

    #[test]
    fn it_comes_back_from_json() {
        for attribution in [example(), Attribution::none()] {
            let json = serde_json::to_string(&attribution).unwrap();
            let back: Attribution = serde_json::from_str(&json).unwrap();
            assert_eq!(back, attribution, "{json}");
        }
    }

    #[test]
    fn what_a_later_version_says_is_taken() {
        let json = r#"{"confidence": "guessed", "process": {"pid": 1, "executable": {"path": "/x", "origin": "moon"}, "mood": 1}}"#;
        let attribution: Attribution = serde_json::from_str(json).unwrap();
        assert_eq!(attribution.confidence, Confidence::Unknown);
        let executable = attribution.process.and_then(|process| process.executable);
        assert_eq!(
            executable.map(|executable| executable.origin),
            Some(Origin::Unknown)
        );
    }

    #[test]
    fn each_list_and_text_has_a_limit() {
        let long = "x".repeat(Attribution::MAX_COMMAND_LINE_BYTES + 1);
        let table: [fn(&mut Process, String); 6] = [
            |process, long| process.command_line = Some(long),
            |process, long| process.directory = Some(long),
            |process, long| process.unit = Some(long),
            |process, long| process.ancestors[0].name = long,
            |process, long| {
                process.container = Some(Container {
                    runtime: None,
                    id: Some(long),
                });
            },
            |process, _| process.ancestors = vec![process.ancestors[0].clone(); 17],
        ];
        assert!(example().is_within_limits());
        for exceed in table {
            let mut attribution = example();
            exceed(attribution.process.as_mut().unwrap(), long.clone());
            assert!(!attribution.is_within_limits(), "{attribution:?}");
        }
    }
}
