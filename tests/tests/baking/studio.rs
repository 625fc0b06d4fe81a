//! Receives nothing; hands on a small image with one of everything, in a sandbox, and the agent to bake it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drift::Sha256;
use driftmark_tests::patience::until;
use driftmark_tests::process::{finish, run};
use driftmark_tests::{Program, Sandbox};

/// What the lines of shell of a story can say.
///
/// `furnish ROOT` makes an image with one of everything, `part FILE KIND MEBIBYTES UUID ROOT` a file system with what is
/// in `ROOT`, and `put DISK SECTOR FILE` puts it where a partition begins.
const PRELUDE: &str = r#"
export LC_ALL=C
umask 022
furnish() {
    mkdir -p "$1"/{usr/{bin,lib,lib64,sbin,lib/driftmark},etc,boot,proc,dev,tmp,run,var/lib/{dpkg/info,driftmark},home,root}
    ln -s usr/bin "$1/bin"; ln -s usr/lib "$1/lib"; ln -s usr/lib64 "$1/lib64"; ln -s usr/sbin "$1/sbin"
    printf 'ID=debian\nVERSION_ID="12"\n' > "$1/usr/lib/os-release"; ln -s ../usr/lib/os-release "$1/etc/os-release"
    printf 'UUID=%s / ext4 defaults 0 1\nUUID=%s /boot ext4 defaults 0 2\n' "$ROOT_UUID" "$BOOT_UUID" > "$1/etc/fstab"
    printf 'Package: tool\nStatus: install ok installed\nVersion: 1.2\n\n' > "$1/var/lib/dpkg/status"
    printf '/.\n/bin\n/bin/tool\n' > "$1/var/lib/dpkg/info/tool.list"
    echo '#!/bin/sh' > "$1/usr/bin/tool"; chmod 4755 "$1/usr/bin/tool"; ln "$1/usr/bin/tool" "$1/usr/bin/again"
    echo capable > "$1/usr/bin/capable"; chmod 755 "$1/usr/bin/capable"; setcap cap_net_raw+ep "$1/usr/bin/capable"
    echo a > "$1/etc/annotated"; setfattr -n user.note -v x "$1/etc/annotated"; setfattr -n trusted.note -v '' "$1/etc/annotated"
    echo b > "$1/etc/owned"; chown 1234:70000 "$1/etc/owned"; chmod 600 "$1/etc/owned"
    mkfifo -m 640 "$1/run/fifo"; mknod -m 660 "$1/dev/disk" b 259 1000; mknod -m 622 "$1/dev/console" c 5 1
    ln -s "$(printf 'x/%.0s' $(seq 100))" "$1/etc/long-link"
    truncate -s 5M "$1/var/sparse"; printf end >> "$1/var/sparse"; printf middle | dd of="$1/var/sparse" bs=1 seek=2000000 conv=notrunc status=none
    deep="$1/usr/share/$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))"; mkdir -p "$deep"; echo deep > "$deep/file"
    printf odd > "$1/etc/$(printf 'new\nline \377')"; : > "$1/etc/machine-id"
    touch -d @1700000000.123456789 "$1/etc/owned"
}
part() {
    truncate -s "$3M" "$1"
    case $2 in xfs) mkfs.xfs -q -f -m uuid="$4" "$1" ;; *) mkfs."$2" -q -F -U "$4" "$1" ;; esac
    mkdir -p "$WORK/at"; mount -t "$2" -o loop "$1" "$WORK/at"; cp -a "$5/." "$WORK/at/"; umount "$WORK/at"
}
# No two XFS of one UUID are mounted at a time, so stories that run side by side have each its own.
uuid() { cat /proc/sys/kernel/random/uuid; }
put() { dd if="$3" of="$1" bs=512 seek="$2" conv=notrunc,sparse status=none; }
"#;

pub(crate) const ROOT_UUID: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
pub(crate) const BOOT_UUID: &str = "933ac7e1-2eb4-4f13-b844-0e14e2aef915";
/// A bake of a small image takes a second; after this long it hangs.
const HANGS_AFTER_SECONDS: &str = "60";

/// A sandbox with room to make images in.
pub(crate) struct Studio {
    sandbox: Sandbox,
    agent: PathBuf,
}

/// A run of the agent that ended by itself and did not panic.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Studio {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            sandbox: Sandbox::new()?,
            agent: Program::Agent.path()?,
        })
    }

    /// A path in the studio, the same for this process and the agent.
    pub(crate) fn path(&self, name: &str) -> String {
        self.sandbox.directory().join(name).display().to_string()
    }

    /// Runs lines of shell in the studio; they stop at the first thing that goes wrong.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        let variables = format!(
            "WORK='{}'\nAGENT='{}'\nROOT_UUID={ROOT_UUID}\nBOOT_UUID={BOOT_UUID}\n",
            self.sandbox.directory().display(),
            self.agent.display(),
        );
        let script = format!("{variables}{PRELUDE}\ncd \"$WORK\"\n{script}");
        run(self.sandbox.command("bash").args(["-euc", &script]))
    }

    /// Bakes into `OUTPUT`, from where these arguments say.
    pub(crate) fn bake(&self, output: &str, source: &[&str]) -> Result<Run> {
        let mut command = self.sandbox.command("timeout");
        command
            .args(["--signal=KILL", HANGS_AFTER_SECONDS])
            .arg(&self.agent)
            .args(["bake", "--name", "web", "--version", "1", "--json"])
            .args(["--output", &self.path(output)])
            .args(source);
        let ended = finish(&mut command)?;
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        let code = ended
            .status
            .code()
            .with_context(|| format!("{source:?} was killed:\n{err}"))?;
        ensure!(
            code != 137 && code != 101 && !err.contains("panicked"),
            "{source:?} ended with {code}:\n{err}"
        );
        let out = String::from_utf8_lossy(&ended.stdout).into_owned();
        Ok(Run { code, out, err })
    }

    /// Bakes without rules, which is to succeed, and gives the manifest.
    pub(crate) fn manifest(&self, output: &str, source: &[&str]) -> Result<Vec<u8>> {
        let run = self.bake(output, &[source, &["--rules", "none"]].concat())?;
        ensure!(run.code == 0, "{source:?}: {run:?}");
        fs::read(self.path(&format!("{output}/image.manifest"))).context("read the manifest")
    }

    /// Runs `story` with a file that it must leave exactly as it is, with no loop device over it.
    pub(crate) fn untouched<T>(&self, file: &str, story: impl FnOnce() -> Result<T>) -> Result<T> {
        let digest = || -> Result<Sha256> { Ok(Sha256::of(&fs::read(self.path(file))?)) };
        let before = digest()?;
        let told = story()?;
        ensure!(digest()? == before, "{file} was written");
        self.has_no_loop_device(file)?;
        Ok(told)
    }

    /// The kernel takes a loop device back a moment after its last user ended.
    pub(crate) fn has_no_loop_device(&self, file: &str) -> Result<()> {
        let path = self.path(file);
        until("no loop device to be left", Duration::from_secs(10), || {
            let devices = self.shell(&format!("losetup --noheadings --output NAME -j '{path}'"))?;
            Ok(devices.trim().is_empty().then_some(()))
        })
    }
}
