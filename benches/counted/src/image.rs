//! The seeded image: the same entries, rules and drifts on every machine.

use drift::entry::{Entry, FileFlags, Links, Node, Xattrs};
use drift::manifest::{Builder, Package, UnverifiedManifest};
use drift::observation::{Found, Group, Observation};
use drift::rules::{RuleFile, Rules};
use drift::{Blake3, Sha256, TreePath};

/// Four directories deep, as most of `/usr` is.
const DIRECTORIES: u64 = 200;
/// In each: with 3,000 entries, sections and all, the manifest is three blocks, and six are cached.
const FILES_EACH: u64 = 14;
/// Every so many files have the name of another, an extended attribute, a changed mode.
const LINKED_EVERY: u64 = 97;
const LABELLED_EVERY: u64 = 41;
const DRIFTED_EVERY: u64 = 211;

/// Rules as distributions have them: literals, wildcards in one name, wildcards over many.
const RULES: &str = r#"
rule = [
  { type = "volatile", paths = ["/tmp", "/run", "/var/cache/apt", "/usr/share/lib3/cache"] },
  { type = "first-boot", paths = ["/etc/hostname", "/etc/ssh/ssh_host_*_key", "/usr/lib/module1/first-*"] },
  { type = "append-only", paths = ["/var/log/*.log", "/var/log/journal/**"] },
  { type = "content", paths = ["/etc/**/*.conf", "/usr/lib/**/file-1?7.so", "/usr/share/doc/*/changelog*"] },
  { type = "absent", paths = ["/etc/nologin", "/usr/share/lib?/file-0.so"] },
]
"#;

/// An image with its manifest, and what was found on an instance of it.
pub(crate) struct Image {
    pub(crate) manifest: UnverifiedManifest<Vec<u8>>,
    /// In path order.
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    pub(crate) fn seeded() -> Self {
        let entries = entries();
        let mut builder = Builder::default();
        for (nth, entry) in entries.iter().enumerate() {
            let sha256 =
                matches!(entry.node, Node::File { .. }).then(|| Sha256::of(entry.path.as_bytes()));
            let package = (nth % 3 > 0).then(|| Package {
                name: format!("package-{}", nth / 40),
                version: "1.2-3".to_owned(),
            });
            builder.push(entry.clone(), sha256, package, (1_700_000_000, nth as u32));
        }
        let file = RuleFile::parse("seeded", RULES).expect("good rules");
        let rules = Rules::build(vec![file], Vec::new())
            .expect("good rules")
            .rules;
        let baked = builder
            .finish(rules, Vec::new(), drift::entry::AttributeSet::EMPTY)
            .expect("a tree");
        let manifest = UnverifiedManifest::open(baked.bytes).expect("what was just written");
        Self { manifest, entries }
    }

    /// Every entry as it is, but for a few whose mode is another.
    pub(crate) fn observations(&self) -> Vec<Observation> {
        let observed = self.entries.iter().zip(0..).map(|(entry, nth)| {
            let mut found = Found::plain(entry.clone());
            found.group = entry.links.as_ref().map(|links| Group {
                device: (8, 1),
                inode: Seed::of(links.least.as_bytes()).next(),
                names: 2,
            });
            found.entry.links = None;
            if nth % DRIFTED_EVERY == DRIFTED_EVERY - 1 {
                found.entry.mode ^= 0o020;
            }
            Observation::Found(found)
        });
        observed.collect()
    }
}

fn entries() -> Vec<Entry> {
    let mut seed = Seed(4);
    let label = Xattrs::held([(
        b"security.selinux".to_vec(),
        b"system_u:object_r:lib_t:s0\0".to_vec(),
    )]);
    let directory = |path: TreePath| entry(path, 0o755, Node::Directory);
    let mut entries = vec![directory(TreePath::root())];
    for above in ["usr", "usr/lib", "usr/share"] {
        entries.push(directory(path(above)));
    }
    let mut nth = 0;
    for number in 0..DIRECTORIES {
        let (above, name) = if number % 2 == 0 {
            ("lib", "module")
        } else {
            ("share", "lib")
        };
        let below = format!("usr/{above}/{name}{number}");
        entries.push(directory(path(&below)));
        for file in 0..FILES_EACH {
            nth += 1;
            let name = format!("{below}/file-{}.so", file * 13);
            let node = match seed.next() % 10 {
                0 => Node::Symlink {
                    target: format!("../{name}").into_bytes().into(),
                },
                _ => Node::file(seed.next() % 50_000, digest(&mut seed)),
            };
            let mut entry = entry(path(&name), 0o644, node);
            if nth % LABELLED_EVERY == 0 {
                entry.xattrs = label.clone();
            }
            entries.push(entry);
            if nth % LINKED_EVERY == 0 {
                link(&mut entries, &format!("{name}.1"));
            }
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Gives the last entry another name.
fn link(entries: &mut Vec<Entry>, name: &str) {
    let last = entries.last_mut().expect("there is one");
    last.links = Some(Links {
        least: last.path.clone(),
        outside: 0,
    });
    let other = Entry {
        path: path(name),
        ..last.clone()
    };
    entries.push(other);
}

fn entry(path: TreePath, mode: u16, node: Node) -> Entry {
    Entry {
        path,
        mode,
        uid: 0,
        gid: 0,
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a path")
}

fn digest(seed: &mut Seed) -> Blake3 {
    Blake3::of(&seed.next().to_le_bytes())
}

/// SplitMix64, and of no library: what is committed is counted over these very numbers.
struct Seed(u64);

impl Seed {
    fn of(bytes: &[u8]) -> Self {
        Self(
            bytes
                .iter()
                .fold(0, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
