//! Receives the name of a file system; hands on a real one, on an image file of its own, mounted where only the
//! sandbox and this process see it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise};

use crate::process::run;
use crate::sandbox::Sandbox;

/// The unit in which `filefrag` is asked to count: no file system has smaller blocks, so nothing is rounded.
const BLOCK: u64 = 512;

/// What a [`LoopFs`] is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, with as many inodes as a root file system has.
    Ext4,
    /// xfs.
    Xfs,
}

/// A file system on a loop device; gone when it is dropped.
#[derive(Debug)]
pub struct LoopFs {
    sandbox: Sandbox,
    image: PathBuf,
    mount_point: PathBuf,
}

/// Whether this kernel can mount this type; a module that could be loaded is loaded.
pub fn kernel_has(file_system: &str) -> bool {
    let is_listed = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines()
            .any(|line| line.split_whitespace().last() == Some(file_system))
    };
    is_listed()
        || (Command::new("modprobe")
            .args(["--quiet", file_system])
            .status()
            .is_ok()
            && is_listed())
}

impl LoopFs {
    /// Makes one of this size, and mounts it.
    ///
    /// # Errors
    /// The tool or the kernel does not have this file system.
    pub fn new(file_system: FileSystem, mebibytes: u64) -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let image = sandbox.directory().join("disk");
        let mount_point = sandbox.directory().join("mounted");
        fs::create_dir(&mount_point).context("make a mount point")?;
        File::create(&image)
            .and_then(|file| file.set_len(mebibytes << 20))
            .context("make a disk")?;
        match file_system {
            FileSystem::Ext4 => run(Command::new("mkfs.ext4")
                .args(["-q", "-F", "-b", "4096", "-O", "verity", "-i", "8192"])
                .arg(&image))?,
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&image))?,
        };
        let made = Self {
            sandbox,
            image,
            mount_point,
        };
        made.mount()?;
        Ok(made)
    }

    /// Its root as this process reaches it.
    pub fn root(&self) -> PathBuf {
        self.sandbox.path(&self.mount_point)
    }

    /// Its root as commands of the sandbox see it.
    pub fn inside(&self) -> &Path {
        &self.mount_point
    }

    /// The sandbox that it is mounted in; programs that look at it run there.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Unmounts and mounts it again: afterwards nothing of it is in any cache.
    ///
    /// # Errors
    /// Something in it is still open.
    pub fn remount(&self) -> Result<()> {
        run(self.sandbox.command("umount").arg(&self.mount_point))?;
        self.mount()
    }

    /// Writes a file's data out and drops it from the cache, so that the next read is the disk's.
    ///
    /// # Errors
    /// The file cannot be opened or synced.
    pub fn drop_caches(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = self.root().join(path);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        file.sync_all()
            .with_context(|| format!("sync {}", path.display()))?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .with_context(|| format!("drop {} from the cache", path.display()))
    }

    /// Writes into a file's blocks on the disk, behind the file system's back: no time changes, no event is made, and
    /// cached reads go on giving the old bytes until [`LoopFs::drop_caches`].
    ///
    /// # Errors
    /// The bytes do not lie in one extent of the file.
    pub fn raw_write(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.root().join(path);
        File::open(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("sync {}", path.display()))?;
        let listing = run(Command::new("filefrag")
            .args(["-v", &format!("-b{BLOCK}")])
            .arg(&path))?;
        let length = u64::try_from(bytes.len()).context("a length")?;
        let on_disk = listing
            .lines()
            .filter_map(extent)
            .find_map(|(logical, physical, blocks)| {
                let (start, end) = (logical * BLOCK, (logical + blocks) * BLOCK);
                (offset >= start && offset + length <= end)
                    .then(|| physical * BLOCK + (offset - start))
            });
        let Some(position) = on_disk else {
            bail!(
                "no extent of {} holds byte {offset}:\n{listing}",
                path.display()
            )
        };
        // The loop device reads the image file through the page cache that this write goes to.
        let disk = File::options()
            .write(true)
            .open(&self.image)
            .context("open the disk")?;
        disk.write_all_at(bytes, position)
            .and_then(|()| disk.sync_all())
            .context("write to the disk")
    }

    fn mount(&self) -> Result<()> {
        ensure!(self.image.exists(), "the disk is gone");
        run(self
            .sandbox
            .command("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount_point))
        .map(drop)
    }
}

/// One line of `filefrag -v`: `0: 0.. 3: 34304.. 34307: 4: last,eof` as first block, first on disk, and count.
fn extent(line: &str) -> Option<(u64, u64, u64)> {
    let mut fields = line.split(':').map(str::trim);
    let _number: u64 = fields.next()?.parse().ok()?;
    let first = |range: &str| {
        range
            .split("..")
            .next()
            .and_then(|first| first.trim().parse::<u64>().ok())
    };
    let (logical, physical) = (first(fields.next()?)?, first(fields.next()?)?);
    Some((logical, physical, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_read_from_its_line() {
        let line = "   1:      256..     511:      34304..     34559:    256:      2048: last,eof";
        assert_eq!(extent(line), Some((256, 34304, 256)));
        assert_eq!(
            extent(" ext:     logical_offset:        physical_offset: length:   expected: flags:"),
            None
        );
    }
}
