//! A tree on a file system of its own that is baked and guarded, and what is told of it.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use drift::finding::Drift;

use super::super::{Counts, Guard, Mode, Order, Told};
use crate::bake::{self, BakeArguments};
use crate::baseline::{Baseline, BaselinePaths};
use crate::keygen;
use crate::watch::attribution::CommandLine;

/// Nothing takes so long.
pub(super) const SOON: Duration = Duration::from_secs(60);
const INSIDE: &str = "DRIFTMARK_OWN_MOUNTS";
const TREE: &str = "
mkdir -p bin etc tmp
for name in known other third; do cp /bin/true bin/$name; done
printf '#!/bin/sh\nexit 0\n' > bin/script; chmod 755 bin/script
printf '#!/bin/sh\nexit 0\n' > etc/text
";
const RULES: &str = "[[rule]]\ntype = \"volatile\"\npath = \"/tmp\"\nreason = \"temporary\"\n";

/// What became of an execution.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ran,
    Refused,
}

pub(super) struct World {
    pub(super) root: PathBuf,
    pub(super) off_switch: PathBuf,
    pub(super) guard: Option<Guard>,
    pub(super) foreign: Vec<Drift>,
    pub(super) limits: Vec<String>,
    baseline: Arc<Baseline>,
    told: Receiver<Told>,
    runner: RefCell<Runner>,
    _home: tempfile::TempDir,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    bake: BakeArguments,
}

/// Runs the test of this name where what it mounts is seen by nobody else, and goes with it: on a fresh file system of each
/// kind.
pub(super) fn in_own_mounts(name: &str, test: impl Fn(&str, &Path)) {
    if std::env::var_os(INSIDE).is_some() {
        for kind in ["tmpfs", "ext4"] {
            let home = tempfile::tempdir_in("/var/tmp").unwrap();
            test(kind, home.path());
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let is_allowed = std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none();
        assert!(
            is_allowed,
            "it must not be skipped here: mounting needs root"
        );
        return println!("skipped: mounting needs root");
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]);
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", &format!("enforce::tests::{name}"), "--nocapture"]);
    let output = again.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let is_passed = output.status.success() && said.contains("1 passed");
    assert!(
        is_passed,
        "{name} in its own mounts: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl World {
    /// The tree, on a fresh file system of this kind, and its manifest.
    pub(super) fn baked(kind: &str, home: &Path) -> World {
        let root = home.join("root");
        fs::create_dir(&root).unwrap();
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            mount.args(["-t", "tmpfs", "tmpfs"]);
        } else {
            let disk = home.join("disk");
            fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
            let mut make = Command::new("mkfs.ext4");
            assert!(
                make.args(["-q", "-F"])
                    .arg(&disk)
                    .status()
                    .unwrap()
                    .success()
            );
            mount.args(["-o", "loop"]).arg(disk);
        }
        assert!(mount.arg(&root).status().unwrap().success());
        sh(&root, TREE);
        let beside = tempfile::tempdir_in("/var/tmp").unwrap();
        World {
            baseline: Arc::new(baked(beside.path(), &root)),
            off_switch: beside.path().join("enforce-off"),
            _home: beside,
            root,
            guard: None,
            foreign: Vec::new(),
            limits: Vec::new(),
            told: channel().1,
            runner: RefCell::new(Runner::start()),
        }
    }

    /// The same, guarded, but for what lies in these directories.
    pub(super) fn guarded(kind: &str, home: &Path, mode: Mode, allow: &[&str]) -> World {
        let mut world = World::baked(kind, home);
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let guard = Guard::start(world.order(mode, allow), move |told| {
            // Nobody listens once the test is over.
            let _ = tell.lock().unwrap().send(told);
        });
        world.guard = Some(guard.unwrap());
        match told.recv_timeout(SOON).unwrap() {
            Told::Guarding { limits } => assert_eq!(limits, [""; 0]),
            other => panic!("{other:?}"),
        }
        world.told = told;
        world
    }

    pub(super) fn order(&self, mode: Mode, allow: &[&str]) -> Order {
        Order {
            baseline: Arc::clone(&self.baseline),
            root: self.root.clone(),
            mode,
            allow: allow.iter().map(|path| self.root.join(path)).collect(),
            off_switch: self.off_switch.clone(),
            command_line: CommandLine::Redacted,
        }
    }

    pub(super) fn sh(&self, script: &str) {
        sh(&self.root, script);
    }

    pub(super) fn copy(&self, from: &str, to: &str) {
        fs::copy(from, self.root.join(to)).unwrap();
    }

    pub(super) fn run(&self, path: &str) -> Outcome {
        self.runner.borrow_mut().run(&self.root.join(path))
    }

    /// Who runs all that.
    pub(super) fn runner(&self) -> u32 {
        self.runner.borrow().0.id()
    }

    /// Runs a file by its descriptor alone.
    pub(super) fn run_open(&self, file: &fs::File) -> Outcome {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.runner.borrow_mut().run(Path::new(&path))
    }

    pub(super) fn count(&self, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        of(&self.guard.as_ref().unwrap().counts).load(Ordering::Relaxed)
    }

    /// Takes what is told until this program is among it.
    pub(super) fn told_of(&mut self, path: &str) -> Drift {
        let its = |world: &World| {
            let mut foreign = world.foreign.iter();
            foreign
                .find(|drift| drift.path.as_bytes() == path.as_bytes())
                .cloned()
        };
        self.until(path, |world| its(world).is_some());
        its(self).unwrap()
    }

    pub(super) fn until(&mut self, story: &str, is_so: impl Fn(&World) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(
                began.elapsed() < SOON,
                "{story}: {:#?} {:?}",
                self.foreign,
                self.limits
            );
            match self.told.recv_timeout(Duration::from_millis(20)) {
                Ok(Told::Foreign(drift)) => self.foreign.push(*drift),
                Ok(Told::Guarding { limits }) => self.limits = limits,
                Ok(Told::Ended(why)) => panic!("{why}"),
                Err(_) => {}
            }
        }
    }
}

impl Drop for World {
    /// What is mounted there would keep the directory from being removed.
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount
            .args(["--lazy", "--recursive"])
            .arg(&self.root)
            .status();
    }
}

/// A shell that was started before there was a gate: what a process that has one starts holds it too, until it runs.
struct Runner(Child);

impl Runner {
    fn start() -> Self {
        let script = "while read -r path; do $path 2>&1; echo =$?; done";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).stdin(Stdio::piped());
        Runner(shell.stdout(Stdio::piped()).spawn().unwrap())
    }

    fn run(&mut self, path: &Path) -> Outcome {
        let Runner(shell) = self;
        writeln!(shell.stdin.as_mut().unwrap(), "{}", path.display()).unwrap();
        let mut said = String::new();
        while !said.ends_with('\n') || !said.contains('=') {
            let mut byte = [0];
            shell
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut byte)
                .unwrap();
            said.push(byte[0].into());
        }
        match said.as_str() {
            "=0\n" => Outcome::Ran,
            // And not for want of a mode: that is `Permission denied`.
            refused if refused.contains("Operation not permitted") => Outcome::Refused,
            other => panic!("{other}"),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn sh(directory: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-euc", script]).current_dir(directory);
    assert!(shell.status().unwrap().success(), "{script}");
}

fn baked(home: &Path, root: &Path) -> Baseline {
    let rules = home.join("rules.toml");
    fs::write(&rules, RULES).unwrap();
    let output = home.join("out");
    let pair = keygen::keygen(&home.join("keys")).unwrap();
    let flags = Flags::parse_from([
        "bake".as_ref(),
        "--root".as_ref(),
        root.as_os_str(),
        "--output".as_ref(),
        output.as_os_str(),
        "--key".as_ref(),
        pair.private.as_os_str(),
        "--name=guarded".as_ref(),
        "--version=1".as_ref(),
        "--filesystem=none".as_ref(),
        "--rules".as_ref(),
        rules.as_os_str(),
    ]);
    bake::bake(&flags.bake, &AtomicBool::new(false), &|_| {}, &|_, _| {}).unwrap();
    let paths = BaselinePaths {
        manifest: output.join("image.manifest"),
        signature: output.join("image.manifest.sig"),
        trust: vec![pair.public],
    };
    Baseline::open(&paths).unwrap()
}
