//! Paths and packages that claim them in; the owner of each out.
//!
//! A root file system has as many paths as its manifest has entries, so of each no more is kept than 20 bytes: the first
//! half of its BLAKE3, of which no two paths have the same, and the number of its package.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use drift::manifest::Package;
use drift::{Blake3, TreePath};

/// Which package owns each path.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    of: HashMap<[u8; KEY_BYTES], u32>,
    packages: Vec<Package>,
    numbers: HashMap<Package, u32>,
}

const KEY_BYTES: usize = 16;

impl Owners {
    /// A package says that a path is its own. A directory belongs to many packages, so the first in order has it: the same
    /// whoever asks, and in whatever order they were installed.
    pub(super) fn claim(&mut self, path: &TreePath, package: &Package) {
        let number = self.number(package);
        match self.of.entry(key(path)) {
            Entry::Vacant(free) => {
                free.insert(number);
            }
            Entry::Occupied(mut owned) => {
                if *package < self.packages[*owned.get() as usize] {
                    owned.insert(number);
                }
            }
        }
    }

    /// The owner of a path.
    pub(crate) fn get(&self, path: &TreePath) -> Option<&Package> {
        let number = self.of.get(&key(path))?;
        self.packages.get(*number as usize)
    }

    /// How many paths have one.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }

    fn number(&mut self, package: &Package) -> u32 {
        if let Some(number) = self.numbers.get(package) {
            return *number;
        }
        let number = self.packages.len() as u32;
        self.packages.push(package.clone());
        self.numbers.insert(package.clone(), number);
        number
    }
}

fn key(path: &TreePath) -> [u8; KEY_BYTES] {
    let digest = Blake3::of(path.as_bytes());
    let (key, _) = digest.as_bytes().split_first_chunk().expect("32 bytes");
    *key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_package_in_order_owns_what_several_claim() {
        let package = |name: &str| Package {
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
        for claimants in [["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]] {
            let mut owners = Owners::default();
            for name in claimants {
                owners.claim(&path("/usr"), &package(name));
                owners.claim(&path(name), &package(name));
            }
            assert_eq!(owners.get(&path("/usr")), Some(&package("a")));
            for name in claimants {
                assert_eq!(owners.get(&path(name)), Some(&package(name)));
            }
            assert_eq!(owners.get(&path("/usr/bin")), None);
            assert_eq!(owners.len(), 4);
        }
    }
}
