//! What others keep in the page cache is there after a check as it was before, and what only the check read is not.

use std::fs::{self, File};
use std::io::BufRead as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use driftmark_kernel::page_cache::cached_pages;
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::{possible, skip};

use crate::ground::{Ground, Pass};

/// One file that others use, of a gibibyte, and a tree that nobody has read: many files, and one so long that all
/// threads hash it together. All but the first 64 MiB of what is used is a hole, which is cached as anything else is.
const TREE: &str = r#"mkdir tree tree/cold; cd tree
    head -c 67108864 /dev/urandom > used; truncate -s 1G used
    head -c 33554432 /dev/urandom > cold/long
    for nth in $(seq 200); do head -c 163840 /dev/urandom > cold/$nth; done; sync"#;
const USED_PAGES: u64 = 1 << 18;
/// What a check may leave behind of all that it read, in pages of 4 KiB: 16 MiB.
const GROWN_PAGES: u64 = 4096;
/// The file that is used, and as much again for everybody else.
const MEMORY_KIB: u64 = 2 << 20;

#[test]
fn after_a_check_the_page_cache_is_what_it_was() -> Result<()> {
    if !possible("the page cache after a check") || !has_memory()? {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 256)?;
    ground.shell("", TREE)?;
    ground.bake_well("tree", "baked", None)?;
    // Of the baking nothing is to be left that a check could find.
    ground.fs().remount()?;
    let used = ground.root().join("tree/used");
    if let Err(error) = File::open(&used).and_then(|file| cached_pages(&file)) {
        skip(
            "the page cache after a check",
            &format!("needs `cachestat`: {error}"),
        );
        return Ok(());
    }
    let _user = User::of(&ground)?;
    for pass in [Pass::Full, Pass::Disk] {
        let before = Cached::of(&ground)?;
        ensure!(
            before.used == USED_PAGES && before.cold == 0,
            "{pass:?}: {before:?}"
        );
        let checked = ground.check("tree", "baked", pass)?;
        checked.is(&[], &[])?;
        let read = checked.summary["bytes"].as_u64();
        ensure!(read > Some(1 << 30), "{}", checked.summary);
        let after = Cached::of(&ground)?;
        println!("{pass:?}: {before:?} before, {after:?} after");
        ensure!(after.used * 1000 >= USED_PAGES * 999, "{pass:?}: {after:?}");
        let grown = after.cold + after.disk.saturating_sub(before.disk);
        ensure!(grown <= GROWN_PAGES, "{pass:?}: {before:?}, {after:?}");
        ensure!(after.cold == 0, "{pass:?}: {after:?}");
    }
    // It could have been otherwise: whoever reads leaves it there, and it can be dropped.
    ground.shell("tree", "cat cold/* > $WORK/read")?;
    let of_cold = Cached::of(&ground)?.cold;
    ensure!(of_cold > 10_000, "{of_cold}");
    ground.fs().drop_caches("tree/used")?;
    let left = Cached::of(&ground)?.used;
    ensure!(left == 0, "{left}");
    Ok(())
}

/// A process that has read the file whole, twice, and keeps it open. It reads no more: what is dropped, it does not
/// bring back.
struct User(std::process::Child);

impl User {
    fn of(ground: &Ground) -> Result<Self> {
        let mut command = ground.fs().sandbox().command("sh");
        command.current_dir("/").args([
            "-euc",
            "exec 3<\"$0\"; cat \"$0\" \"$0\" >/dev/null; echo read; exec cat",
            &format!("{}/used", ground.tree("tree")),
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut user = User(command.spawn().context("start a process")?);
        let mut line = String::new();
        let out = user.0.stdout.as_mut().context("its output")?;
        std::io::BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "read\n", "{line:?}");
        Ok(user)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Pages in the cache.
#[derive(Debug)]
struct Cached {
    used: u64,
    /// Of all that nobody uses.
    cold: u64,
    /// Of the file system's own tables, which are cached as the disk's.
    disk: u64,
}

impl Cached {
    fn of(ground: &Ground) -> Result<Self> {
        let pages = |path: &Path| {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            cached_pages(&file).with_context(|| format!("count the pages of {}", path.display()))
        };
        let tree = ground.root().join("tree");
        let mut cold = 0;
        for entry in fs::read_dir(tree.join("cold")).context("list the tree")? {
            cold += pages(&entry?.path())?;
        }
        let device = ground.fs().sandbox().shell(&format!(
            "findmnt --noheadings --output SOURCE --mountpoint {}",
            ground.fs().inside().display()
        ))?;
        Ok(Cached {
            used: pages(&tree.join("used"))?,
            cold,
            disk: pages(Path::new(device.trim()))?,
        })
    }
}

fn has_memory() -> Result<bool> {
    let table = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let available = table.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .split_whitespace()
            .next()
    });
    let available: u64 = available.context("find MemAvailable")?.parse()?;
    Ok(available >= MEMORY_KIB
        || skip("the page cache after a check", "needs 2 GiB of free memory"))
}
