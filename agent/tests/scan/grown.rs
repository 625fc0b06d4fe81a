//! A seed in, a tree out: directories in directories, files of all lengths, links of both kinds, and changes to them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Enough for several blocks of a manifest.
const PATHS: usize = 4000;
const CHANGES: usize = 60;
/// Long enough that all threads hash it together.
const LONG_BYTES: usize = 9 * 1024 * 1024 + 17;

/// Numbers that are the same for the same seed.
pub(crate) struct Random(Rng);

impl Random {
    pub(crate) fn of(seed: u64) -> Self {
        Random(Rng::with_seed(seed))
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }

    /// Names that sort close to each other and around `/`.
    fn name(&mut self) -> String {
        const LETTERS: &[u8] = b"ab-.+0~z";
        let length = 1 + self.below(6);
        let letters = (0..length).map(|_| char::from(LETTERS[self.below(LETTERS.len())]));
        format!("{}{}", letters.collect::<String>(), self.below(100))
    }

    fn one_of<'a>(&mut self, paths: &'a [PathBuf]) -> &'a Path {
        &paths[self.below(paths.len())]
    }
}

pub(crate) fn grow(root: &Path, random: &mut Random) {
    fs::create_dir(root).unwrap();
    let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
    fs::write(root.join("long"), vec![7; LONG_BYTES]).unwrap();
    fs::write(root.join("long that changes"), vec![8; LONG_BYTES]).unwrap();
    while directories.len() + files.len() < PATHS {
        let path = random.one_of(&directories).join(random.name());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(20) {
            0..3 => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
                continue;
            }
            3 => symlink(random.name(), &path).unwrap(),
            4 if !files.is_empty() => fs::hard_link(random.one_of(&files), &path).unwrap(),
            _ => {
                let length = 1 << random.below(12);
                fs::write(&path, vec![random.below(256) as u8; length]).unwrap();
            }
        }
        files.push(path);
    }
}

/// Changes the tree at random, and two things for certain: a long file, and a directory that is gone.
pub(crate) fn change(root: &Path, random: &mut Random) {
    let mut long = fs::read(root.join("long that changes")).unwrap();
    long[LONG_BYTES / 2] ^= 1;
    fs::write(root.join("long that changes"), long).unwrap();
    let mut paths = Vec::new();
    list(root, &mut paths);
    let directory = paths.iter().find(|path| path.is_dir()).unwrap();
    fs::remove_dir_all(directory).unwrap();
    for _ in 0..CHANGES {
        change_one_of(&paths, root, random);
    }
}

/// Changes one path, or moves one directory.
pub(crate) fn change_one(root: &Path, random: &mut Random) {
    let mut paths = Vec::new();
    list(root, &mut paths);
    if random.below(4) == 0 {
        paths.retain(|path| path.is_dir() && !path.is_symlink());
        let (from, into) = (random.one_of(&paths), random.one_of(&paths));
        if !into.starts_with(from) {
            fs::rename(from, into.join(random.name() + "m")).unwrap();
        }
    } else {
        change_one_of(&paths, root, random);
    }
}

fn change_one_of(paths: &[PathBuf], root: &Path, random: &mut Random) {
    let path = random.one_of(paths);
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    match random.below(6) {
        0 if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        0 => fs::remove_file(path).unwrap(),
        1 if metadata.is_file() => fs::write(path, b"other content").unwrap(),
        2 if metadata.is_file() => fs::hard_link(path, root.join(random.name() + "l")).unwrap(),
        3 if !metadata.is_symlink() => {
            let mode = metadata.permissions().mode() ^ 0o4000;
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        4 if metadata.is_file() => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
            fs::write(path.join("in it"), b"new").unwrap();
        }
        _ if metadata.is_dir() => fs::write(path.join(random.name() + "n"), b"new").unwrap(),
        _ => {}
    }
}

fn list(directory: &Path, paths: &mut Vec<PathBuf>) {
    for listed in fs::read_dir(directory).unwrap() {
        let path = listed.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            list(&path, paths);
        }
        paths.push(path);
    }
    paths.sort();
}
