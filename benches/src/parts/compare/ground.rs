//! A disk of its own with a tree on it; scripts that change it, and all that they leave running or mounted gone in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::watched::Home;
use crate::writer;

pub(super) struct Ground {
    home: Home,
    ways: PathBuf,
}

const MIB: u64 = 1 << 20;

impl Ground {
    pub(super) fn new() -> Result<Self> {
        let home = Home::new()?;
        let ways = home.beside("ways");
        writer::compile(Path::new("../agent/tests/watch/ways.c"), &ways)?;
        let ground = Ground { home, ways };
        let disk = fs::File::create(ground.disk()).context("make a disk")?;
        disk.set_len(256 * MIB).context("make a disk")?;
        fs::create_dir(ground.top()).context("make a directory")?;
        ground.sh(
            "mkfs.ext4 -q -F $DISK && mount -o loop $DISK $TOP && mkdir -p $TOP/root/plain $TOP/outside",
        )?;
        Ok(ground)
    }

    /// The tree.
    pub(super) fn root(&self) -> PathBuf {
        self.top().join("root")
    }

    /// The directory of one change in it.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.home.beside(name)
    }

    /// Puts there what is changed later.
    pub(super) fn prepare(&self, name: &str) -> Result<()> {
        fs::create_dir(self.at(name)).context("make a directory")?;
        self.run(
            name,
            "mkdir dir $OUT/$NAME $OUT/$NAME/tree; seq 2000 > file; echo other > other; echo inner > dir/inner; \
             cp /bin/true program; echo in > $OUT/$NAME/tree/file; ln other $OUT/$NAME/link",
        )
    }

    /// Runs a script in the directory of a change.
    pub(super) fn run(&self, name: &str, script: &str) -> Result<()> {
        let at = self.at(name);
        self.sh(&format!("cd {}; NAME={name}; {script}", at.display()))
    }

    fn sh(&self, script: &str) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]);
        shell.env("TOP", self.top()).env("DISK", self.disk());
        shell.env("OUT", self.top().join("outside"));
        shell.env("WAYS", &self.ways).env("PIDS", self.pids());
        shell.stdin(Stdio::null()).stdout(Stdio::null());
        let status = shell.status().context("start a shell")?;
        ensure!(status.success(), "{script}: {status}");
        Ok(())
    }

    fn top(&self) -> PathBuf {
        self.beside("top")
    }

    fn disk(&self) -> PathBuf {
        self.beside("disk")
    }

    /// Of processes that go on.
    fn pids(&self) -> PathBuf {
        self.beside("pids")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What is left then goes with the machine.
        let _ =
            self.sh("[ ! -e $PIDS ] || kill $(cat $PIDS) || :; umount -R $TOP || umount -Rl $TOP");
    }
}
