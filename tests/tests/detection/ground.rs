//! Receives a file system; hands on what the agent says about the trees in it, in lines that a test can compare.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::mutations::{DEPTH, PRELUDE};
use driftmark_tests::process::{finish, run};
use driftmark_tests::{FileSystem, LoopFs, Program, Running};
use serde_json::Value;

/// A check of a small tree takes milliseconds; after this long it hangs.
const HANGS_AFTER_SECONDS: &str = "60";

/// Set where every file of every tree is to have fs-verity: on a kernel that has it, which this machine's may not. What a
/// story writes to is made an ordinary file before, and one with fs-verity after.
const VERITY: &str = "DRIFTMARK_FS_VERITY";
const FREEZE: &str = include_str!("freeze.pl");

/// A file system with trees in it, and the agent.
pub(crate) struct Ground {
    fs: LoopFs,
    agent: PathBuf,
    has_verity: bool,
}

/// A run of the agent that ended by itself and did not panic.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// What a check said.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) code: i32,
    /// `KIND PATH ATTRIBUTE...`, the path escaped.
    pub(crate) drifts: BTreeSet<String>,
    /// `PATH REASON`.
    pub(crate) gaps: BTreeSet<String>,
    pub(crate) lines: Vec<Value>,
    pub(crate) summary: Value,
}

/// Which kind of pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Full,
    Quick,
    Disk,
}

impl Ground {
    /// A fresh file system, with a key pair beside it.
    pub(crate) fn new(file_system: FileSystem, mebibytes: u64) -> Result<Self> {
        let ground = Self {
            fs: LoopFs::new(file_system, mebibytes)?,
            agent: Program::Agent.path()?,
            has_verity: std::env::var_os(VERITY).is_some(),
        };
        fs::create_dir(ground.root().join("keep")).context("make a directory")?;
        ground.ok(&["keygen", "--output", &ground.text("keys")])?;
        Ok(ground)
    }

    pub(crate) fn fs(&self) -> &LoopFs {
        &self.fs
    }

    /// The file system's root, for this process.
    pub(crate) fn root(&self) -> PathBuf {
        self.fs.root()
    }

    /// A tree of the file system, as the agent sees it.
    pub(crate) fn tree(&self, name: &str) -> String {
        self.fs.inside().join(name).display().to_string()
    }

    /// A path beside the file system, the same for this process and the agent.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.fs.sandbox().directory().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.outside(name).display().to_string()
    }

    /// Runs lines of shell in a tree; they stop at the first thing that goes wrong.
    pub(crate) fn shell(&self, tree: &str, script: &str) -> Result<String> {
        if self.has_verity && script.contains("mount ") {
            // What lies beneath a mount can be made neither an ordinary file nor one with fs-verity: command by command.
            let told = script.split("; ").map(|command| {
                let mounts = command.starts_with("mount ") || command.starts_with("umount ");
                self.run_shell(tree, command, !mounts)
            });
            return told.collect();
        }
        self.run_shell(tree, script, true)
    }

    fn run_shell(&self, tree: &str, script: &str, writes: bool) -> Result<String> {
        let variables = format!(
            "KEEP='{}'\nWORK='{}'\nDEPTH={DEPTH}\n",
            self.tree("keep"),
            self.text("")
        );
        let mut command = self.fs.sandbox().command("bash");
        command.current_dir("/").arg("-euc");
        command.arg(OsStr::new(&format!(
            "{variables}{PRELUDE}\ncd '{}'\n{script}",
            self.tree(tree)
        )));
        if !writes {
            return run(&mut command);
        }
        self.freeze("thaw")?;
        let told = run(&mut command);
        self.freeze("freeze")?;
        told
    }

    /// Whether every file of every tree has fs-verity.
    pub(crate) fn has_verity(&self) -> bool {
        self.has_verity
    }

    /// Gives all files fs-verity, or makes all of them ordinary again; only where that is asked for.
    fn freeze(&self, what: &str) -> Result<()> {
        if !self.has_verity {
            return Ok(());
        }
        let mut perl = self.fs.sandbox().command("perl");
        perl.args(["-e", FREEZE, what]).arg(self.fs.inside());
        run(&mut perl).map(drop)
    }

    /// The agent as a command of the sandbox, ended if it hangs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fs.sandbox().command("timeout");
        command
            .args(["--signal=KILL", HANGS_AFTER_SECONDS])
            .arg(&self.agent)
            .args(arguments);
        command
    }

    /// Runs the agent.
    ///
    /// # Errors
    /// It panicked, was killed or hung.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Result<Run> {
        let output = finish(&mut self.command(arguments))?;
        let err = String::from_utf8(output.stderr).context("standard error is text")?;
        let code = output
            .status
            .code()
            .with_context(|| format!("{arguments:?} was killed:\n{err}"))?;
        ensure!(
            code != 137 && code != 101 && !err.contains("panicked"),
            "{arguments:?} ended with {code}:\n{err}"
        );
        Ok(Run {
            code,
            out: output.stdout,
            err,
        })
    }

    /// Runs the agent, which is to succeed, and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Result<String> {
        let run = self.agent(arguments)?;
        ensure!(
            run.code == 0,
            "{arguments:?} ended with {}:\n{}",
            run.code,
            run.err
        );
        String::from_utf8(run.out).context("standard output is text")
    }

    /// Bakes a tree into `OUTPUT/image.manifest`, signed with the ground's own key.
    pub(crate) fn bake(&self, tree: &str, output: &str, more: &[&str]) -> Result<Run> {
        let (root, output, key) = (
            self.tree(tree),
            self.text(output),
            self.text("keys/driftmark.key"),
        );
        let mut arguments = vec!["bake", "--root", &root, "--name", "web", "--version", "1"];
        arguments.extend(["--output", &output, "--key", &key]);
        arguments.extend(more);
        self.agent(&arguments)
    }

    /// Bakes with these rules, or with none.
    pub(crate) fn bake_well(
        &self,
        tree: &str,
        output: &str,
        rules: Option<&str>,
    ) -> Result<String> {
        let file = self.text(&format!("{output}.toml"));
        if let Some(rules) = rules {
            fs::write(&file, rules).context("write rules")?;
        }
        let run = self.bake(tree, output, &["--rules", rules.map_or("none", |_| &file)])?;
        ensure!(
            run.code == 0,
            "baking {tree} ended with {}:\n{}",
            run.code,
            run.err
        );
        String::from_utf8(run.out).context("standard output is text")
    }

    /// The arguments of a check of a tree against `OUTPUT/image.manifest`.
    pub(crate) fn check_arguments(&self, tree: &str, output: &str, pass: Pass) -> Vec<String> {
        let state = match pass {
            Pass::Full => "state-full",
            Pass::Quick => "state-quick",
            Pass::Disk => "state-disk",
        };
        let mut arguments = vec!["check".to_owned(), "--root".to_owned(), self.tree(tree)];
        arguments.extend([
            "--manifest".to_owned(),
            self.text(&format!("{output}/image.manifest")),
        ]);
        arguments.extend(["--trust".to_owned(), self.text("keys/driftmark.pub")]);
        arguments.extend(["--state".to_owned(), self.text(state)]);
        arguments.extend((pass == Pass::Quick).then(|| "--quick".to_owned()));
        arguments.extend((pass == Pass::Disk).then(|| "--disk".to_owned()));
        arguments
    }

    /// Checks a tree; the memory of quick checks is apart from that of full ones.
    pub(crate) fn check(&self, tree: &str, output: &str, pass: Pass) -> Result<Checked> {
        let mut arguments = self.check_arguments(tree, output, pass);
        arguments.push("--json".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = self.agent(&arguments)?;
        let checked = Checked::read(run).with_context(|| format!("{arguments:?}"))?;
        ensure!(
            !self.has_verity
                || pass == Pass::Quick
                || checked.summary["measured"].as_u64() > Some(0),
            "nothing was measured: {}",
            checked.summary
        );
        Ok(checked)
    }

    /// Starts the daemon over a tree, these being the keys of its `[scan]`.
    pub(crate) fn daemon(&self, tree: &str, output: &str, scan: &str) -> Result<Running> {
        let config = self.text("agent.toml");
        let text = format!(
            "root = {:?}\nstate-directory = {:?}\nstatus-socket = {:?}\n[enroll]\ntoken-file = {:?}\n[image]\n\
             manifest = {:?}\ntrust = [{:?}]\n[probe]\nlisten = \"off\"\n[scan]\n{scan}\n",
            self.tree(tree),
            self.text("daemon"),
            self.text("agent.sock"),
            self.text("no-token"),
            self.text(&format!("{output}/image.manifest")),
            self.text("keys/driftmark.pub"),
        );
        fs::write(&config, text).context("write a configuration")?;
        let mut command = self.fs.sandbox().command(&self.agent);
        command.args(["run", "--config", &config]);
        Running::start("agent", command)
    }

    /// What the daemon says of itself; nothing while it does not answer yet.
    pub(crate) fn status(&self) -> Result<Value> {
        let run = self.agent(&["status", "--json", "--socket", &self.text("agent.sock")])?;
        Ok(serde_json::from_slice(&run.out).unwrap_or_default())
    }

    /// A full check that remembers what it verified for quick ones.
    pub(crate) fn remember(&self, tree: &str, output: &str) -> Result<()> {
        let mut arguments = self.check_arguments(tree, output, Pass::Quick);
        arguments.retain(|argument| argument != "--quick");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.ok(&arguments).map(drop)
    }
}

impl Checked {
    /// Reads what `check --json` printed.
    pub(crate) fn read(run: Run) -> Result<Self> {
        let text = String::from_utf8(run.out).context("standard output is text")?;
        let parsed = text
            .lines()
            .map(serde_json::from_str::<Value>)
            .collect::<Result<Vec<_>, _>>();
        let mut lines =
            parsed.with_context(|| format!("one JSON object a line: {text}\n{}", run.err))?;
        let mut last = lines
            .pop()
            .with_context(|| format!("no output, exit code {}:\n{}", run.code, run.err))?;
        let summary = last["summary"].take();
        ensure!(summary.is_object(), "the last line is no summary: {text}");
        let mut checked = Checked {
            code: run.code,
            drifts: BTreeSet::new(),
            gaps: BTreeSet::new(),
            lines: Vec::new(),
            summary,
        };
        for line in lines {
            let gap = &line["gap"];
            let is_new = if gap.is_object() {
                checked
                    .gaps
                    .insert(format!("{} {}", shown_path(gap)?, word(gap, "reason")?))
            } else {
                checked.drifts.insert(shown_drift(&line)?)
            };
            ensure!(is_new, "told twice: {line}");
            checked.lines.push(line);
        }
        ensure!(
            checked.summary["drifts"] == checked.drifts.len(),
            "drifts are not those counted: {text}"
        );
        ensure!(
            checked.summary["gaps"] == checked.gaps.len(),
            "gaps are not those counted: {text}"
        );
        Ok(checked)
    }

    /// The line of a drift, by its path as it is shown.
    pub(crate) fn line(&self, path: &str) -> Result<&Value> {
        let found = self
            .lines
            .iter()
            .find(|line| shown_path(line).is_ok_and(|shown| shown == path));
        found.with_context(|| format!("no line about {path}"))
    }

    /// Holds what was said against what is to be said, no more and no less, exit code included.
    pub(crate) fn is(&self, drifts: &[&str], gaps: &[&str]) -> Result<()> {
        let set = |lines: &[&str]| {
            lines
                .iter()
                .map(|&line| line.to_owned())
                .collect::<BTreeSet<_>>()
        };
        let (drifts, gaps) = (set(drifts), set(gaps));
        ensure!(
            self.drifts == drifts,
            "drifts are {:#?}\nand not {drifts:#?}",
            self.drifts
        );
        ensure!(
            self.gaps == gaps,
            "gaps are {:#?}\nand not {gaps:#?}",
            self.gaps
        );
        let code = match (drifts.is_empty(), gaps.is_empty()) {
            (false, _) => 1,
            (true, false) => 2,
            (true, true) => 0,
        };
        ensure!(
            self.code == code,
            "the exit code is {} and not {code}: {}",
            self.code,
            self.summary
        );
        Ok(())
    }
}

/// `KIND PATH ATTRIBUTE...` of one line, which must have all that a line has.
fn shown_drift(line: &Value) -> Result<String> {
    for key in [
        "expected",
        "found",
        "class",
        "severity",
        "technique",
        "package",
    ] {
        ensure!(line.get(key).is_some(), "no {key} in {line}");
    }
    let kind = word(line, "kind")?;
    ensure!(
        line["expected"].is_null() == (kind == "added") || kind == "covered",
        "what was expected: {line}"
    );
    ensure!(
        line["found"].is_null() != matches!(kind, "added" | "changed"),
        "what was found: {line}"
    );
    let mut text = format!("{kind} {}", shown_path(line)?);
    for attribute in line["changed"].as_array().context("`changed` is a list")? {
        text.push(' ');
        text.push_str(attribute.as_str().context("an attribute is a word")?);
    }
    Ok(text)
}

/// The path of a line, escaped; a path that is not UTF-8 has its bytes beside it, and no other has.
fn shown_path(line: &Value) -> Result<String> {
    let text = word(line, "path")?;
    let Some(encoded) = line.get("path_bytes") else {
        ensure!(
            !text.contains(char::REPLACEMENT_CHARACTER),
            "{text:?} lost its bytes"
        );
        return Ok(drift::escape(text.as_bytes()));
    };
    let bytes = drift::from_base64(encoded.as_str().context("base64 is text")?)?;
    ensure!(
        std::str::from_utf8(&bytes).is_err(),
        "{text:?} needs no bytes"
    );
    ensure!(
        String::from_utf8_lossy(&bytes) == text,
        "{text:?} is not its bytes"
    );
    Ok(drift::escape(&bytes))
}

fn word<'l>(line: &'l Value, key: &str) -> Result<&'l str> {
    line[key]
        .as_str()
        .with_context(|| format!("no {key} in {line}"))
}

/// Whether bytes could be anything but plain lines on a terminal.
pub(crate) fn has_control_bytes(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .any(|character| character.is_control() && character != '\n')
}
