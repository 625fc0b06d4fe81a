//! Grows a tree: every kind, names that hurt, attributes of all sizes, link groups, packages, rules.

use std::collections::BTreeMap;

use drift::entry::{AttributeSet, Device, Entry, FileFlags, Links, Measurement, Node, Xattrs};
use drift::glob::Pattern;
use drift::manifest::{BakedManifest, BuildError, Builder, Filesystem, Package};
use drift::observation::{Found, Group};
use drift::rules::{RuleType, Rules};
use drift::{Blake3, Sha256, TreePath};

use super::Choices;

/// An entry with what a bake knows beside it.
#[derive(Debug, Clone)]
pub struct Planted {
    pub entry: Entry,
    pub sha256: Option<Sha256>,
    pub package: Option<Package>,
    pub modified: (i64, u32),
    /// What the kernel would tell of its link group.
    pub group: Option<Group>,
}

/// A whole tree in path order, with its rules.
#[derive(Debug, Clone)]
pub struct Tree {
    pub planted: Vec<Planted>,
    pub rules: Rules,
    pub filesystems: Vec<Filesystem>,
    pub not_held: AttributeSet,
}

impl Tree {
    pub fn grow(choices: &mut Choices<'_>, most: usize) -> Self {
        let mut entries: BTreeMap<TreePath, Entry> = BTreeMap::new();
        let mut directories = vec![TreePath::root()];
        // Decided first, so that bytes that end early still say something about them.
        let [of_links, of_rules, of_rest] = [16, 24, 3].map(|length| choices.bytes(length));
        entries.insert(
            TreePath::root(),
            entry(choices, TreePath::root(), Node::Directory),
        );
        for _ in 0..choices.below(most) {
            let deepest = directories.len() - 1;
            let at = if choices.once_in(3) {
                deepest
            } else {
                choices.below(directories.len())
            };
            let Ok(path) = directories[at].join(&name(choices)) else {
                continue;
            };
            if entries.contains_key(&path) {
                continue;
            }
            let node = node(choices);
            if node == Node::Directory {
                directories.push(path.clone());
            }
            entries.insert(path.clone(), entry(choices, path, node));
        }
        let groups = link(&mut Choices::Bytes(&of_links), &mut entries);
        let planted = entries
            .into_values()
            .map(|entry| plant(choices, entry, &groups))
            .collect();
        let mut tree = Tree {
            planted,
            rules: Rules::none(),
            filesystems: Vec::new(),
            not_held: AttributeSet::EMPTY,
        };
        tree.rules = rules(&mut Choices::Bytes(&of_rules), &tree);
        let mut rest = Choices::Bytes(&of_rest);
        if rest.once_in(8) {
            tree.filesystems = vec![Filesystem {
                mount_point: TreePath::new(b"/var").unwrap(),
                kind: "xfs".to_owned(),
            }];
        }
        if rest.once_in(8) {
            tree.not_held = AttributeSet::from_bits(1 << rest.below(11)).unwrap();
        }
        tree
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.planted.iter().map(|planted| &planted.entry)
    }

    pub fn bake(&self) -> Result<BakedManifest, BuildError> {
        self.bake_in(0..self.planted.len())
    }

    /// Bakes, the entries coming in this order.
    pub fn bake_in(
        &self,
        order: impl IntoIterator<Item = usize>,
    ) -> Result<BakedManifest, BuildError> {
        let mut builder = Builder::default();
        for index in order {
            let Planted {
                entry,
                sha256,
                package,
                modified,
                ..
            } = self.planted[index].clone();
            builder.push(entry, sha256, package, modified);
        }
        builder.finish(self.rules.clone(), self.filesystems.clone(), self.not_held)
    }

    /// What a scan of the untouched tree finds.
    pub fn found(&self) -> Vec<Found> {
        self.planted.iter().map(found).collect()
    }
}

/// What a scan finds of an entry that nobody touched.
fn found(planted: &Planted) -> Found {
    let mut entry = Entry {
        links: None,
        ..planted.entry.clone()
    };
    let prefix = match &mut entry.node {
        Node::File {
            content, verity, ..
        } => {
            *verity = None;
            Some(*content)
        }
        _ => None,
    };
    Found {
        group: planted.group,
        prefix,
        shape: Some(Ok(())),
        ..Found::plain(entry)
    }
}

pub fn name(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.below(16) {
        0..8 => vec![b'a' + choices.below(6) as u8],
        8 => b"a-b".to_vec(),
        9 => b"a.b".to_vec(),
        10 => b"line\nend \x1b[31m\t".to_vec(),
        11 => vec![0xff, 0xfe, 0x80 | choices.byte()],
        12 => vec![b'n'; 255],
        13 => "übergröße\u{202e}".as_bytes().to_vec(),
        14 => vec![1],
        _ => {
            let length = 1 + choices.below(255);
            choices
                .bytes(length)
                .into_iter()
                .map(|byte| if matches!(byte, 0 | b'/') { b'?' } else { byte })
                .collect()
        }
    }
}

pub fn node(choices: &mut Choices<'_>) -> Node {
    match choices.below(16) {
        0..6 => file(choices),
        6..11 => Node::Directory,
        11 => Node::Symlink {
            target: target(choices),
        },
        12 => Node::CharDevice(device(choices)),
        13 => Node::BlockDevice(device(choices)),
        14 => {
            if choices.once_in(2) {
                Node::Fifo
            } else {
                Node::Socket
            }
        }
        _ => Node::SelfFile,
    }
}

pub fn file(choices: &mut Choices<'_>) -> Node {
    let size = match choices.below(8) {
        7 => u64::MAX,
        6 => u64::from(choices.u32()) << 20,
        small => small as u64,
    };
    Node::file(size, digest(choices))
}

pub fn digest(choices: &mut Choices<'_>) -> Blake3 {
    let mut bytes = [choices.byte(); 32];
    bytes[31] = choices.byte();
    Blake3::from_bytes(bytes)
}

fn target(choices: &mut Choices<'_>) -> Box<[u8]> {
    match choices.below(4) {
        0 => b"../x".as_slice().into(),
        1 => vec![b't'; 4096].into(),
        2 => b"".as_slice().into(),
        _ => choices.bytes(7).into(),
    }
}

fn device(choices: &mut Choices<'_>) -> Device {
    let minor = if choices.once_in(4) {
        u32::MAX
    } else {
        u32::from(choices.byte())
    };
    Device {
        major: u32::from(choices.byte()),
        minor,
    }
}

pub fn owner(choices: &mut Choices<'_>) -> u32 {
    *choices.pick(&[0, 0, 0, 1, 1000, u32::MAX])
}

pub fn entry(choices: &mut Choices<'_>, path: TreePath, node: Node) -> Entry {
    let mode = if choices.once_in(4) {
        choices.u32() as u16 & 0o7777
    } else {
        0o755
    };
    let raw_flags = if choices.once_in(6) { choices.u32() } else { 0 };
    let mut entry = Entry {
        path,
        mode,
        uid: owner(choices),
        gid: owner(choices),
        node,
        xattrs: xattrs(choices),
        flags: FileFlags::from_raw(raw_flags),
        links: None,
    };
    if let Node::File { verity, .. } = &mut entry.node
        && entry.flags.has_verity()
    {
        *verity = measurement(choices).map(Box::new);
    }
    entry
}

fn measurement(choices: &mut Choices<'_>) -> Option<Measurement> {
    match choices.below(3) {
        0 => None,
        1 => Some(Measurement::Sha256([choices.byte(); 32])),
        _ => Some(Measurement::Sha512([choices.byte(); 64])),
    }
}

pub fn xattrs(choices: &mut Choices<'_>) -> Xattrs {
    let label = |text: &[u8]| (b"security.selinux".to_vec(), text.to_vec());
    match choices.below(16) {
        0..11 => Xattrs::NONE,
        11 => Xattrs::held([(b"security.capability".to_vec(), choices.bytes(20))]),
        12 => Xattrs::held([
            label(b"system_u:object_r:bin_t:s0"),
            (b"user.empty".to_vec(), Vec::new()),
        ]),
        13 => Xattrs::held([(
            b"user.large".to_vec(),
            vec![choices.byte(); Xattrs::MAX_VALUE_BYTES],
        )]),
        14 => Xattrs::held((0..40).map(|n| (format!("user.{n}").into_bytes(), vec![n]))),
        _ => Xattrs::held([
            (vec![b'n'; 255], choices.bytes(3)),
            (vec![0xff, 1], vec![0]),
        ]),
    }
}

/// Makes link groups: names with the same inode, some of it outside the tree.
fn link(
    choices: &mut Choices<'_>,
    entries: &mut BTreeMap<TreePath, Entry>,
) -> BTreeMap<TreePath, Group> {
    let mut groups = BTreeMap::new();
    let mut single: Vec<TreePath> = entries
        .values()
        .filter(|entry| entry.node != Node::Directory)
        .map(|entry| entry.path.clone())
        .collect();
    for inode in 0..choices.below(4) as u64 {
        let wanted = 1 + choices.below(3);
        let wanted = wanted.min(single.len());
        let members: Vec<TreePath> = (0..wanted)
            .map(|_| single.swap_remove(choices.below(single.len())))
            .collect();
        let Some(least) = members.iter().min().cloned() else {
            break;
        };
        let outside = choices.below(3) as u32 + u32::from(members.len() == 1);
        let group = Group {
            device: (8, 1),
            inode,
            names: members.len() as u32 + outside,
        };
        let file = entries[&least].clone();
        for path in members {
            let links = Some(Links {
                least: least.clone(),
                outside,
            });
            entries.insert(
                path.clone(),
                Entry {
                    path: path.clone(),
                    links,
                    ..file.clone()
                },
            );
            groups.insert(path, group);
        }
    }
    groups
}

fn plant(choices: &mut Choices<'_>, entry: Entry, groups: &BTreeMap<TreePath, Group>) -> Planted {
    let is_file = matches!(entry.node, Node::File { .. });
    let package = choices.once_in(3).then(|| Package {
        name: format!("libc{}", choices.below(4)),
        version: format!("2:{}", choices.below(2)),
    });
    let sha256 = is_file.then(|| Sha256::from_bytes([choices.byte(); 32]));
    let group = groups.get(&entry.path).copied();
    Planted {
        sha256,
        package,
        modified: (i64::from(choices.u32()), 7),
        group,
        entry,
    }
}

fn rules(choices: &mut Choices<'_>, tree: &Tree) -> Rules {
    let wild = [
        &b"/a"[..],
        b"/*/b",
        b"/**/c",
        b"/a*",
        b"/**.b",
        b"/b/**",
        b"/?",
        b"/d/e",
    ];
    let mut encoded = Vec::new();
    let count = choices.below(5);
    encoded.push(count as u8);
    for _ in 0..count {
        encoded.push(choices.below(RuleType::ALL.len()) as u8);
        let literal = choices
            .once_in(2)
            .then(|| literal(&choices.pick(&tree.planted).entry.path));
        let pattern = literal
            .flatten()
            .unwrap_or_else(|| Pattern::new(wild[choices.below(wild.len())]).unwrap());
        put_length(&mut encoded, pattern.as_bytes().len());
        encoded.extend_from_slice(pattern.as_bytes());
    }
    // `volatile /` allows everything, and is refused.
    Rules::decode(&encoded).unwrap_or_default()
}

/// The pattern that matches this path alone.
fn literal(path: &TreePath) -> Option<Pattern> {
    let escaped = path.to_absolute().into_iter().flat_map(|byte| match byte {
        b'*' | b'?' | b'\\' => vec![b'\\', byte],
        _ => vec![byte],
    });
    Pattern::new(&escaped.collect::<Vec<u8>>()).ok()
}

/// LEB128, as everywhere in a manifest.
pub fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}
