//! The manifest's properties: what is baked is what is read, in one spelling, and nothing else passes for it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod trees;

use drift::entry::{Entry, FileFlags, Measurement, Node, Xattrs};
use drift::manifest::{BLOCK_BYTES, BuildError, Builder, ManifestError, UnverifiedManifest};
use drift::rules::Rules;
use drift::{Blake3, Sha256, TreePath};
use proptest::prelude::*;
use trees::forge::{Parts, exercise};
use trees::{Choices, Tree};

/// Enough to fill a few blocks.
const MANY: usize = 3000;

fn small() -> impl Strategy<Value = Tree> {
    proptest::collection::vec(any::<u8>(), 0..1500)
        .prop_map(|bytes| Tree::grow(&mut Choices::Bytes(&bytes), 60))
}

fn large() -> impl Strategy<Value = Tree> {
    any::<u64>().prop_map(|seed| Tree::grow(&mut Choices::Seed(seed), MANY))
}

fn plain(path: &[u8], node: Node) -> Entry {
    Entry {
        path: TreePath::new(path).unwrap(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn bake(entries: impl IntoIterator<Item = Entry>) -> Result<Vec<u8>, BuildError> {
    let mut builder = Builder::default();
    for entry in entries {
        let sha256 = matches!(entry.node, Node::File { .. }).then(|| Sha256::of(b""));
        builder.push(entry, sha256, None, (0, 0));
    }
    Ok(builder
        .finish(Rules::none(), Vec::new(), Default::default())?
        .bytes)
}

fn comes_back(tree: &Tree) {
    let baked = tree.bake().unwrap();
    let manifest = UnverifiedManifest::open(&baked.bytes).unwrap();
    assert_eq!(manifest.identity(), baked.identity);
    manifest.verify_all().unwrap();
    let header = manifest.header();
    assert_eq!(
        (&header.rules, &header.filesystems, header.not_held),
        (&tree.rules, &tree.filesystems, tree.not_held)
    );
    let entries: Vec<Entry> = manifest.entries().collect::<Result<_, _>>().unwrap();
    assert!(entries.iter().eq(tree.entries()), "entries come back");
    for blocks_each in [1, 2, 100] {
        parts_are_the_whole(&manifest, blocks_each, &entries);
    }
    for planted in tree.planted.iter().step_by(1 + tree.planted.len() / 25) {
        let path = &planted.entry.path;
        assert_eq!(
            manifest.lookup(path).unwrap().as_ref(),
            Some(&planted.entry)
        );
        let origin = manifest.origin(path).unwrap().unwrap();
        assert_eq!(
            (origin.sha256, &origin.package),
            (planted.sha256, &planted.package)
        );
        let absent = path.join(b"absent\x01").unwrap();
        assert_eq!(manifest.lookup(&absent).unwrap(), None);
        assert_eq!(manifest.origin(&absent).unwrap(), None);
    }
    in_any_order(&manifest, &entries);
}

/// What is found of one path does not depend on those that were asked for before.
fn in_any_order(manifest: &UnverifiedManifest<&Vec<u8>>, entries: &[Entry]) {
    let some = entries.iter().step_by(1 + entries.len() / 50);
    let asked: Vec<(TreePath, Option<&Entry>)> = some
        .flat_map(|entry| {
            let absent = entry.path.join(b"absent\x01").unwrap();
            let there = (entry.path.clone(), Some(entry));
            [there.clone(), there, (absent, None)]
        })
        .collect();
    let mut lookups = manifest.lookups();
    let (forwards, backwards) = (asked.iter(), asked.iter().rev());
    let leaping = asked.iter().step_by(5).chain(asked.iter().step_by(3));
    for (path, entry) in forwards.chain(backwards).chain(leaping) {
        assert_eq!(lookups.entry(path).unwrap().as_ref(), *entry, "{path}");
        let from = entries.partition_point(|entry| entry.path < *path);
        let next = manifest.entries_from(path).next().transpose().unwrap();
        assert_eq!(next.as_ref(), entries.get(from), "{path}");
    }
}

/// Every entry is in one part, where its ordinal and its path say.
fn parts_are_the_whole(
    manifest: &UnverifiedManifest<&Vec<u8>>,
    blocks_each: u64,
    entries: &[Entry],
) {
    let parts = manifest.parts(blocks_each);
    assert_eq!(parts.first().unwrap().start, None);
    assert_eq!(parts.last().unwrap().end, None);
    let mut seen = 0;
    for (part, next) in parts
        .iter()
        .zip(parts.iter().skip(1).map(Some).chain([None]))
    {
        assert_eq!(part.ordinals.start, seen);
        assert_eq!(part.end, next.and_then(|next| next.start.clone()));
        for entry in manifest.entries_of(part) {
            let entry = entry.unwrap();
            assert_eq!(entry, entries[seen as usize]);
            assert!(part.start.as_ref().is_none_or(|start| *start <= entry.path));
            assert!(part.end.as_ref().is_none_or(|end| entry.path < *end));
            seen += 1;
        }
        assert_eq!(part.ordinals.end, seen);
    }
    assert_eq!(seen, entries.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_baked_is_what_is_read(tree in small()) {
        comes_back(&tree);
    }

    #[test]
    fn the_same_tree_in_any_order_gives_the_same_bytes(tree in small(), seed: u64) {
        let mut order: Vec<usize> = (0..tree.planted.len()).collect();
        let mut choices = Choices::Seed(seed);
        for last in (1..order.len()).rev() {
            order.swap(last, choices.below(last + 1));
        }
        prop_assert_eq!(tree.bake().unwrap(), tree.bake_in(order).unwrap());
    }

    #[test]
    fn a_hostile_signer_cannot_upset_the_reader(
        tree in small(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        in_header: bool,
    ) {
        let mut parts = Parts::of(&tree.bake().unwrap().bytes).unwrap();
        let bytes = if in_header { &mut parts.header } else { &mut parts.body };
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        exercise(&parts.seal());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
        let side = b"drftside\0\0\0\0\0\0\0\0".to_vec();
        let half = bytes.len() / 2;
        let parts = Parts { header: bytes[..half].into(), body: bytes[half..].into(), table: Vec::new(), side };
        exercise(&parts.seal());
    }

    #[test]
    fn a_manifest_that_is_cut_short_or_goes_on_is_refused(tree in small(), cut: prop::sample::Index) {
        let mut bytes = tree.bake().unwrap().bytes;
        bytes.push(0);
        prop_assert!(UnverifiedManifest::open(&bytes).is_err());
        bytes.truncate(cut.index(bytes.len() - 1));
        prop_assert!(UnverifiedManifest::open(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn many_blocks_come_back(tree in large()) {
        comes_back(&tree);
    }

    #[test]
    fn a_flipped_bit_changes_the_identity_or_is_found_where_it_is(tree in large(), flips in proptest::collection::vec(any::<prop::sample::Index>(), 60)) {
        let bytes = tree.bake().unwrap().bytes;
        for flip in flips {
            flipped(&bytes, flip.index(bytes.len() * 8));
        }
    }
}

/// Flips one bit of a manifest and looks what comes of it.
fn flipped(bytes: &[u8], bit: usize) {
    let parts = Parts::of(bytes).unwrap();
    let whole = UnverifiedManifest::open(bytes).unwrap();
    let mut altered = bytes.to_vec();
    altered[bit / 8] ^= 1 << (bit % 8);
    let body_start = 40 + parts.header.len();
    let table_start = body_start + parts.body.len();
    let side_start = table_start + parts.table.len();
    let opened = UnverifiedManifest::open(&altered);
    match bit / 8 {
        at if at >= side_start => {
            let Ok(opened) = opened else { return };
            assert_eq!(opened.identity(), whole.identity());
            assert!(
                opened
                    .entries()
                    .map(Result::unwrap)
                    .eq(whole.entries().map(Result::unwrap))
            );
        }
        at if (body_start..table_start).contains(&at) => {
            let opened = opened.unwrap();
            assert_eq!(opened.identity(), whole.identity());
            let block = ((at - body_start) / BLOCK_BYTES) as u64;
            match opened.verify_all() {
                Err(ManifestError::BlockAltered(found)) => assert_eq!(found, block),
                other => panic!("{other:?}"),
            }
        }
        _ => {
            let Ok(opened) = opened else { return };
            assert_ne!(opened.identity().sha256, whole.identity().sha256);
            assert_ne!(opened.identity().blake3, whole.identity().blake3);
        }
    }
}

#[test]
fn every_single_bit_of_a_small_manifest_counts() {
    let bytes = include_bytes!("golden/manifest-v2.manifest");
    (0..bytes.len() * 8).for_each(|bit| flipped(bytes, bit));
}

#[test]
fn an_empty_tree_is_a_manifest() {
    let bytes = bake([]).unwrap();
    let manifest = UnverifiedManifest::open(&bytes).unwrap();
    manifest.verify_all().unwrap();
    assert_eq!(manifest.entries().count(), 0);
    assert_eq!(manifest.lookup(&TreePath::root()).unwrap(), None);
}

/// Lengths of a target that bring `/p`, and `/p` and `/q`, to the end of the first block and past it.
const FILLING: std::ops::RangeInclusive<usize> = 3850..=4050;

/// A link whose target is as long as is said, and like no other's.
fn link(name: u8, length: usize) -> Entry {
    plain(
        &[name],
        Node::Symlink {
            target: vec![name; length].into(),
        },
    )
}

/// A block filled to its last byte is where an off-by-one would live.
#[test]
fn a_block_may_be_filled_to_its_last_byte() {
    let mut exact = 0;
    for length in FILLING {
        let mut entries = vec![plain(b"", Node::Directory)];
        entries.extend((b'a'..=b'o').map(|name| link(name, 4096)));
        entries.extend([link(b'p', length), link(b'q', 2)]);
        let bytes = bake(entries.clone()).unwrap();
        let manifest = UnverifiedManifest::open(&bytes).unwrap();
        let read: Vec<Entry> = manifest.entries().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, entries);
        manifest.verify_all().unwrap();
        let body = Parts::of(&bytes).unwrap().body;
        // A record of a symlink ends in its target: a full block ends in one.
        exact += usize::from(matches!(body.get(BLOCK_BYTES - 1), Some(b'p' | b'q')));
    }
    assert_eq!(
        exact, 2,
        "once with `p` at the end of the block, once with `q`"
    );
}

#[test]
fn what_no_kernel_could_hold_is_not_baked() {
    let root = || plain(b"", Node::Directory);
    let file = |path: &[u8]| plain(path, Node::file(0, Blake3::of(b"")));
    let long = Xattrs::held((0..17).map(|n| (vec![b'n', n], vec![0; Xattrs::MAX_VALUE_BYTES])));
    let unfit = [
        plain(
            b"a",
            Node::Symlink {
                target: vec![b't'; 4097].into(),
            },
        ),
        Entry {
            mode: 0o10000,
            ..file(b"a")
        },
        Entry {
            xattrs: Xattrs::held([(Vec::new(), Vec::new())]),
            ..file(b"a")
        },
        Entry {
            xattrs: Xattrs::held([(vec![b'n'; 256], Vec::new())]),
            ..file(b"a")
        },
        Entry {
            xattrs: Xattrs::held([(b"n".to_vec(), vec![0; Xattrs::MAX_VALUE_BYTES + 1])]),
            ..file(b"a")
        },
        Entry {
            xattrs: long,
            ..file(b"a")
        },
        Entry {
            links: Some(drift::entry::Links {
                least: TreePath::new(b"b").unwrap(),
                outside: 0,
            }),
            ..file(b"a")
        },
        Entry {
            links: Some(drift::entry::Links {
                least: TreePath::root(),
                outside: 0,
            }),
            ..file(b"a")
        },
    ];
    let measured = measured(
        Measurement::Sha256([7; 32]),
        FileFlags::from_raw(0x0008_0010),
    );
    for entry in unfit.into_iter().chain([measured]) {
        assert!(
            matches!(bake([root(), entry.clone()]), Err(BuildError::Unfit { .. })),
            "{entry:?}"
        );
    }
    assert!(matches!(
        bake([root(), file(b"a/b")]),
        Err(BuildError::Orphan(_))
    ));
    assert!(matches!(
        bake([root(), file(b"a"), file(b"a/b")]),
        Err(BuildError::Orphan(_))
    ));
    assert!(matches!(
        bake([root(), file(b"a"), file(b"a")]),
        Err(BuildError::Duplicate(_))
    ));
    let two_large = (b'a'..b'c').map(|name| plain(&[name], Node::file(u64::MAX, Blake3::of(b""))));
    assert!(
        bake(std::iter::once(root()).chain(two_large)).is_ok(),
        "sizes add up to no more than there are numbers"
    );
}

const VERITY: u32 = 0x0010_0000;

fn measured(measurement: Measurement, flags: FileFlags) -> Entry {
    let node = Node::File {
        size: 5,
        content: Blake3::of(b"hello"),
        verity: Some(Box::new(measurement)),
    };
    Entry {
        flags,
        ..plain(b"a", node)
    }
}

#[test]
fn a_measurement_comes_back_and_is_refused_where_the_kernel_would_give_none() {
    for measurement in [
        Measurement::Sha256([0xab; 32]),
        Measurement::Sha512([0xcd; 64]),
    ] {
        let entry = measured(measurement, FileFlags::from_raw(VERITY));
        let bytes = bake([plain(b"", Node::Directory), entry.clone()]).unwrap();
        let manifest = UnverifiedManifest::open(&bytes).unwrap();
        manifest.verify_all().unwrap();
        assert_eq!(manifest.lookup(&entry.path).unwrap(), Some(entry));

        let mut parts = Parts::of(&bytes).unwrap();
        let flags = [0x80, 0x80, 0x40];
        let at = parts
            .body
            .windows(flags.len())
            .position(|bytes| bytes == flags)
            .unwrap();
        parts.body[at + 2] = 0x04;
        let bytes = parts.seal();
        let manifest = UnverifiedManifest::open(&bytes).unwrap();
        assert!(matches!(
            manifest.entries().find_map(Result::err),
            Some(ManifestError::Malformed("a record"))
        ));
    }
}

/// Entries of two blocks, the second of which begins with `/q` and can be tampered with by itself.
fn two_blocks() -> Parts {
    let links = (b'a'..b'u').map(|name| link(name, 4000));
    Parts::of(&bake(std::iter::once(plain(b"", Node::Directory)).chain(links)).unwrap()).unwrap()
}

/// What goes wrong when all entries are gone through.
fn refused(parts: &Parts) -> &'static str {
    let bytes = parts.seal();
    let manifest = match UnverifiedManifest::open(&bytes) {
        Ok(manifest) => manifest,
        Err(ManifestError::Malformed(what)) => return what,
        Err(other) => panic!("{other}"),
    };
    for path in [&b"a"[..], b"q", b"t"] {
        let _ = manifest.origin(&TreePath::new(path).unwrap());
    }
    assert!(manifest.verify_all().is_err());
    match manifest.entries().find_map(Result::err) {
        Some(ManifestError::Malformed(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Where in the header the index tells of the second block: path, entries, contents.
fn second_in_index(parts: &Parts) -> usize {
    let told = [1, b'q', 4, 0];
    let mut windows = parts.header.windows(told.len());
    windows.position(|window| window == told).unwrap()
}

/// The name of the first record of the second block: after number, tag and mode of a likeness, shared bytes, length.
const NAME_OF_SECOND: usize = BLOCK_BYTES + 6;

#[test]
fn a_block_that_is_not_what_the_index_says_is_refused() {
    let whole = two_blocks();
    let at = second_in_index(&whole);
    assert_eq!(whole.body[NAME_OF_SECOND], b'q');
    for (place, byte, error) in [
        (1, b'p', "a block is not what the index says"),
        (1, b'r', "a block is not what the index says"),
        (1, b'/', "index"),
        (2, 0, "index"),
        (2, 3, "padding"),
        (2, 5, "a record"),
        (3, 1, "counts"),
        (3, 5, "index"),
    ] {
        let mut parts = whole.clone();
        parts.header[at + place] = byte;
        assert_eq!(refused(&parts), error, "{place} {byte}");
    }
}

#[test]
fn order_holds_across_blocks() {
    let mut parts = two_blocks();
    let at = second_in_index(&parts);
    parts.header[at + 1] = b'a';
    parts.body[NAME_OF_SECOND] = b'a';
    assert_eq!(refused(&parts), "a block is not what the index says");
}

#[test]
fn a_block_without_entries_is_refused() {
    let mut parts = two_blocks();
    parts.body[BLOCK_BYTES..].fill(0);
    assert_eq!(refused(&parts), "a record");
}
