//! Manifests of this version.

use drift::Sha256;
use drift::entry::{Attribute, AttributeSet, Entry, Node};
use drift::manifest::{BakedManifest, Builder, Filesystem, UnverifiedManifest};
use drift::rules::Rules;

use super::tree::{measured, rules, tree};
use super::{golden, path};

/// Identity of the golden manifest: the digests that its signature is about.
const SHA256: &str = "d9287aeba6aa5abf794522ca006fc587263161208d68c2011a2939eee6db32c5";
const BLAKE3: &str = "eaed6177c0a71f04bfd0d26c3ef8abcdc0c3f3845af17c6c68a401ac21baab27";

/// Of one content one SHA-256.
fn sha256_of(entry: &Entry) -> Option<Sha256> {
    match &entry.node {
        Node::File { content, .. } => Some(Sha256::of(content.as_bytes())),
        _ => None,
    }
}

pub(crate) fn manifest() -> BakedManifest {
    let mut builder = Builder::default();
    for (entry, package) in tree() {
        let sha256 = sha256_of(&entry);
        builder.push(entry, sha256, package, (1_700_000_000, 123_456_789));
    }
    let filesystems = vec![Filesystem {
        mount_point: path(b"var"),
        kind: "ext4".to_owned(),
    }];
    builder
        .finish(rules(), filesystems, AttributeSet::of(&[Attribute::Flags]))
        .unwrap()
}

#[test]
fn the_manifest_is_what_it_was() {
    let baked = manifest();
    golden("manifest-v2.manifest", &baked.bytes);
    assert_eq!(
        (
            baked.identity.sha256.to_string(),
            baked.identity.blake3.to_string()
        ),
        (SHA256.into(), BLAKE3.into())
    );
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    read.verify_all().unwrap();
    let mut expected: Vec<Entry> = tree().into_iter().map(|(entry, _)| entry).collect();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(
        read.entries().collect::<Result<Vec<_>, _>>().unwrap(),
        expected
    );
}

#[test]
fn the_manifest_with_measurements_is_what_it_was() {
    let mut builder = Builder::default();
    for entry in measured() {
        let sha256 = sha256_of(&entry);
        builder.push(entry, sha256, None, (0, 0));
    }
    let baked = builder
        .finish(Rules::none(), Vec::new(), AttributeSet::EMPTY)
        .unwrap();
    golden("measured-v2.manifest", &baked.bytes);
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    read.verify_all().unwrap();
    assert_eq!(
        read.entries().collect::<Result<Vec<_>, _>>().unwrap(),
        measured()
    );
}
