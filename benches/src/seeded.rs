//! A seed and a number in; a tree of so many entries out, the same on every machine.
//!
//! As a distribution's: a twelfth directories, each with eight below it and eleven other things in it, of these most
//! regular files, some symbolic links, a few second names; most files of some kilobytes, one in a thousand of a hundred
//! times that; some with an extended attribute. The mean does not depend on the number, so that time for each entry and
//! each byte can be held against each other.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use rustix::fs::XattrFlags;

const SEED: u64 = 0x6472_6966_746d_6172;
/// Things in each directory, besides directories.
const EACH: u64 = 11;
/// Directories below each.
const BELOW: u64 = 8;
/// Content is cut from this much noise, at any place.
const NOISE_BYTES: u64 = 4 * 1024 * 1024;
/// Out of a thousand.
const PERMILLE: u64 = 1000;
/// Lengths of files: of a thousand, so many up to so many bytes.
const LENGTHS: [(u64, u64); 6] = [
    (50, 0),
    (500, 2 * 1024),
    (330, 8 * 1024),
    (100, 24 * 1024),
    (19, 128 * 1024),
    (1, 2 * 1024 * 1024),
];
const SYMLINKS: u64 = 80;
const SECOND_NAMES: u64 = 10;
const LABELLED: u64 = 20;

/// Plants a tree of about so many entries at `root`, which must not be there yet.
///
/// # Errors
/// Something cannot be made.
pub fn plant(root: &Path, entries: u64, threads: u64) -> Result<()> {
    let directories = entries / (EACH + 1);
    let paths: Vec<PathBuf> = paths(root, directories);
    for path in &paths {
        fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
    }
    let noise = noise();
    std::thread::scope(|scope| {
        let planters: Vec<_> = (0..threads.max(1))
            .map(|lane| {
                let (paths, noise) = (&paths, &noise);
                scope.spawn(move || {
                    let mine = (0..directories).skip(lane as usize);
                    for number in mine.step_by(threads.max(1) as usize) {
                        fill(&paths[number as usize], number, noise)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let planters = planters.into_iter();
        let planted = planters.map(|planter| planter.join().expect("a planter does not panic"));
        planted.collect::<Result<()>>()
    })
}

/// Every directory after the one that it is in.
fn paths(root: &Path, directories: u64) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = vec![root.to_owned()];
    for number in 1..directories.max(1) {
        let above = (number - 1) / BELOW;
        let name = format!("{}{number}", Seed::of(number).word());
        paths.push(paths[above as usize].join(name));
    }
    paths
}

fn fill(directory: &Path, number: u64, noise: &[u8]) -> Result<()> {
    let mut seed = Seed::of(!number);
    let mut first: Option<PathBuf> = None;
    for nth in 0..EACH {
        let path = directory.join(format!("{}-{}.{nth}", seed.word(), seed.word()));
        let kind = seed.below(PERMILLE);
        let made = || format!("make {}", path.display());
        match &first {
            Some(first) if kind < SECOND_NAMES => fs::hard_link(first, &path).with_context(made)?,
            Some(first) if kind < SECOND_NAMES + SYMLINKS => {
                symlink(first.file_name().context("a name")?, &path).with_context(made)?;
            }
            _ => {
                write(&path, &mut seed, noise).with_context(made)?;
                first.get_or_insert(path);
            }
        }
    }
    Ok(())
}

fn write(path: &Path, seed: &mut Seed, noise: &[u8]) -> Result<()> {
    let length = seed.length();
    let start = seed.below(NOISE_BYTES - length) as usize;
    let mut file = File::create_new(path)?;
    file.write_all(&noise[start..start + length as usize])?;
    if seed.below(PERMILLE) < LABELLED {
        rustix::fs::fsetxattr(&file, "user.origin", b"seeded", XattrFlags::empty())?;
    }
    Ok(())
}

fn noise() -> Vec<u8> {
    let mut seed = Seed::of(u64::MAX);
    std::iter::repeat_with(|| seed.0.u8(..))
        .take(NOISE_BYTES as usize)
        .collect()
}

/// The same numbers everywhere.
struct Seed(Rng);

impl Seed {
    fn of(number: u64) -> Self {
        Seed(Rng::with_seed(SEED ^ number))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(..limit)
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 16] = [
            "lib",
            "python",
            "share",
            "module",
            "locale",
            "config",
            "kernel",
            "driver",
            "x86",
            "common-data",
            "init",
            "messages",
            "tests",
            "include",
            "gconv",
            "translations",
        ];
        WORDS[self.below(WORDS.len() as u64) as usize]
    }

    fn length(&mut self) -> u64 {
        let mut drawn = self.below(PERMILLE);
        let mut least = 0;
        for (count, most) in LENGTHS {
            if drawn < count {
                return least + self.below(most - least + 1);
            }
            drawn -= count;
            least = most;
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::List;

    #[test]
    fn a_tree_is_the_same_however_many_threads_plant_it() {
        let place = tempfile::tempdir().expect("a directory");
        let [one, two] = [1, 2].map(|threads| {
            let root = place.path().join(threads.to_string());
            plant(&root, 2400, threads).expect("plant");
            let list = List::of(&root).expect("list");
            let file = |file| {
                let path = list.path(file);
                let content = fs::read(&path).expect("read");
                let below = path.strip_prefix(&root).expect("below the root").to_owned();
                (below, blake3::hash(&content).to_hex().to_string())
            };
            let mut files: Vec<(PathBuf, String)> = list.files.iter().map(file).collect();
            files.sort();
            files
        });
        assert!((1900..2200).contains(&one.len()), "{} files", one.len());
        assert_eq!(one, two);
    }
}
