//! What may happen to a tree before it is looked at again.

use drift::coverage::{Gap, GapReason};
use drift::entry::{Attribute, Entry, FileFlags, Node};
use drift::observation::{Found, Observation};
use drift::{Blake3, TreePath};

use super::Choices;
use super::grow::{self, Tree};

/// What a scan finds after some random mischief, in path order.
pub fn observe(choices: &mut Choices<'_>, tree: &Tree) -> Vec<Observation> {
    let mut found = tree.found();
    let mut gaps: Vec<TreePath> = Vec::new();
    for _ in 0..choices.below(6) {
        if found.is_empty() {
            break;
        }
        let at = choices.below(found.len());
        match choices.below(5) {
            0 => remove(&mut found, at),
            1 => alter(choices, &mut found[at]),
            2 => add(choices, &mut found, at),
            3 => unsettle(choices, &mut found[at]),
            _ => cover(choices, &mut found, &mut gaps, at),
        }
    }
    gaps.retain({
        let all = gaps.clone();
        move |gap| !all.iter().any(|other| other != gap && gap.is_within(other))
    });
    gaps.sort();
    gaps.dedup();
    found.retain(|found| {
        let is_listed =
            |gap: &TreePath| found.entry.path == *gap && found.entry.node == Node::Directory;
        !gaps
            .iter()
            .any(|gap| found.entry.path.is_within(gap) && !is_listed(gap))
    });
    let mut observations: Vec<(TreePath, u8, Observation)> = Vec::new();
    for found in found {
        observations.push((found.entry.path.clone(), 0, Observation::Found(found)));
    }
    for path in gaps {
        let gap = Gap {
            path: path.clone(),
            reason: GapReason::Unreadable,
            detail: String::new(),
        };
        observations.push((path, 1, Observation::Gap(gap)));
    }
    observations.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    observations
        .into_iter()
        .map(|(_, _, observation)| observation)
        .collect()
}

fn remove(found: &mut Vec<Found>, at: usize) {
    let path = found[at].entry.path.clone();
    found.retain(|found| !found.entry.path.is_within(&path));
}

fn add(choices: &mut Choices<'_>, found: &mut Vec<Found>, at: usize) {
    let Ok(path) = found[at].entry.path.join(&grow::name(choices)) else {
        return;
    };
    if found[at].entry.node != Node::Directory || found.iter().any(|found| found.entry.path == path)
    {
        return;
    }
    let node = grow::node(choices);
    let mut added = Found::plain(grow::entry(choices, path, node));
    unsettle(choices, &mut added);
    found.push(added);
    found.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
}

/// What a rule asks for is so, is not so, or could not be told.
fn unsettle(choices: &mut Choices<'_>, found: &mut Found) {
    found.shape = match choices.below(3) {
        0 => None,
        1 => Some(Ok(())),
        _ => Some(Err("it is not".to_owned())),
    };
    if choices.once_in(2) {
        found.prefix = None;
    }
}

/// A gap at a path: nothing below it was seen, and the path itself only if it is a directory that could not be listed.
fn cover(choices: &mut Choices<'_>, found: &mut Vec<Found>, gaps: &mut Vec<TreePath>, at: usize) {
    let path = found[at].entry.path.clone();
    let listed = found[at].entry.node == Node::Directory && choices.once_in(2);
    found
        .retain(|found| !found.entry.path.is_within(&path) || (listed && found.entry.path == path));
    gaps.push(path);
}

/// Changes exactly one thing, if the entry has it; says which attribute that is.
pub fn alter(choices: &mut Choices<'_>, found: &mut Found) {
    let attribute = *choices.pick(&Attribute::ALL);
    let _ = flip(choices, found, attribute);
}

/// Flips one bit of this attribute; false if the entry does not have it.
pub fn flip(choices: &mut Choices<'_>, found: &mut Found, attribute: Attribute) -> bool {
    let bit = choices.below(256);
    let Entry {
        mode,
        uid,
        gid,
        node,
        xattrs,
        flags,
        ..
    } = &mut found.entry;
    match (attribute, node) {
        (Attribute::Mode, _) => *mode ^= 1 << (bit % 12),
        (Attribute::Uid, _) => *uid ^= 1 << (bit % 32),
        (Attribute::Gid, _) => *gid ^= 1 << (bit % 32),
        (Attribute::Size, Node::File { size, .. }) => *size ^= 1 << (bit % 64),
        (Attribute::Content, Node::File { content, .. }) => {
            let mut bytes = *content.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            *content = Blake3::from_bytes(bytes);
        }
        (Attribute::Target, Node::Symlink { target }) if !target.is_empty() => {
            let at = choices.below(target.len());
            target[at] ^= 1 << (bit % 8);
        }
        (Attribute::Device, Node::CharDevice(device) | Node::BlockDevice(device)) => {
            if bit < 128 {
                device.major ^= 1 << (bit % 32);
            } else {
                device.minor ^= 1 << (bit % 32);
            }
        }
        (Attribute::Flags, _) => {
            let held = FileFlags::from_raw(u32::MAX).bits();
            let flag = (0..32)
                .cycle()
                .skip(bit % 32)
                .map(|n| 1 << n)
                .find(|flag| held & flag != 0)
                .unwrap();
            *flags = FileFlags::from_held(flags.bits() ^ flag).unwrap();
        }
        (Attribute::Xattr, _) => {
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = xattrs
                .as_slice()
                .iter()
                .map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec()))
                .collect();
            let Some((name, value)) = list.iter_mut().find(|(_, value)| !value.is_empty()) else {
                return false;
            };
            let at = choices.below(value.len());
            value[at] ^= 1 << (bit % 8);
            // A NUL at the end of a label does not count.
            if name == b"security.selinux" && value.last() == Some(&0) {
                return false;
            }
            *xattrs = drift::entry::Xattrs::held(list);
        }
        (Attribute::Links, _) => match &mut found.group {
            Some(group) => group.names += 1,
            None => return false,
        },
        (Attribute::Kind, node) if *node != Node::Fifo && *node != Node::Directory => {
            *node = Node::Fifo;
        }
        _ => return false,
    }
    true
}
