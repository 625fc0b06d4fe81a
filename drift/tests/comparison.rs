//! The comparison's properties: exactly what differs is found, and what could not be read is a gap and never drift.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod trees;

use drift::compare::{CompareError, Expectation, Finding, compare, is_as_expected};
use drift::coverage::{Gap, GapReason};
use drift::entry::{Attribute, AttributeSet, Entry, FileFlags, Links, Measurement, Node, Xattrs};
use drift::manifest::UnverifiedManifest;
use drift::observation::{Found, Observation};
use drift::rules::Rules;
use drift::{Blake3, TreePath};
use proptest::prelude::*;
use trees::grow::Planted;
use trees::{Choices, Tree, model, mutate};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..1200)
}

/// A tree on which no rule says anything.
fn strict(bytes: &[u8]) -> Tree {
    Tree {
        rules: Rules::none(),
        not_held: AttributeSet::EMPTY,
        ..Tree::grow(&mut Choices::Bytes(bytes), 40)
    }
}

fn findings(tree: &Tree, observations: Vec<Observation>) -> Result<Vec<Finding>, CompareError> {
    let baked = tree.bake().unwrap();
    let manifest = UnverifiedManifest::open(baked.bytes).unwrap();
    let mut findings = Vec::new();
    compare(&manifest, observations, &mut |finding| {
        findings.push(finding);
    })
    .map(|()| findings)
}

fn gap(path: &TreePath) -> Observation {
    Observation::Gap(Gap {
        path: path.clone(),
        reason: GapReason::Unreadable,
        detail: String::new(),
    })
}

fn observed(found: Vec<Found>) -> Vec<Observation> {
    found.into_iter().map(Observation::Found).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_same_tree_is_no_finding(bytes in bytes()) {
        let tree = strict(&bytes);
        prop_assert_eq!(findings(&tree, observed(tree.found())).unwrap(), []);
    }

    #[test]
    fn one_flipped_bit_is_drift_of_exactly_that_attribute(bytes in bytes(), seed: u64) {
        let tree = strict(&bytes);
        let mut choices = Choices::Seed(seed);
        let mut found = tree.found();
        let at = choices.below(found.len());
        let attribute = *choices.pick(&Attribute::ALL);
        prop_assume!(attribute != Attribute::Kind && mutate::flip(&mut choices, &mut found[at], attribute));
        let path = found[at].entry.path.clone();
        let told = findings(&tree, observed(found)).unwrap();
        let [Finding::Drift(difference)] = &told[..] else { panic!("{told:?}") };
        prop_assert_eq!(&difference.drift.path, &path);
        prop_assert_eq!(difference.drift.changed, AttributeSet::of(&[attribute]));
    }

    #[test]
    fn the_merge_finds_what_a_naive_comparison_finds(bytes in bytes(), seed: u64) {
        let tree = Tree::grow(&mut Choices::Bytes(&bytes), 40);
        let observations = mutate::observe(&mut Choices::Seed(seed), &tree);
        prop_assert_eq!(model::found_by_compare(&tree, &observations), model::expected(&tree, &observations));
    }

    #[test]
    fn a_gap_anywhere_is_a_gap_and_no_drift(bytes in bytes(), at: prop::sample::Index) {
        let tree = strict(&bytes);
        let found = tree.found();
        let path = found[at.index(found.len())].entry.path.clone();
        let mut observations = observed(found);
        let first = observations.iter().position(|one| matches!(one, Observation::Found(found) if found.entry.path == path));
        observations.retain(|one| !matches!(one, Observation::Found(found) if found.entry.path.is_within(&path)));
        observations.insert(first.unwrap(), gap(&path));
        let told = findings(&tree, observations).unwrap();
        prop_assert!(matches!(&told[..], [Finding::Gap(gap)] if gap.path == path), "{:?}", told);
    }

    #[test]
    fn what_is_out_of_order_is_refused(bytes in bytes(), at: prop::sample::Index, back: prop::sample::Index) {
        let tree = strict(&bytes);
        let mut observations = observed(tree.found());
        let at = at.index(observations.len());
        let again = observations[back.index(at + 1)].clone();
        observations.insert(at + 1, again);
        let is_refused = matches!(findings(&tree, observations), Err(CompareError::OutOfOrder { .. }));
        prop_assert!(is_refused);
    }
}

#[test]
fn what_fs_verity_measured_of_an_entry_makes_no_difference_to_what_was_read() {
    let baked = strict(&[]).bake().unwrap();
    let manifest = UnverifiedManifest::open(baked.bytes).unwrap();
    let expectation = Expectation::new(manifest.header());
    let file = |content: &[u8], verity: Option<Measurement>, links| Entry {
        path: TreePath::new(b"file").unwrap(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        node: Node::File {
            size: content.len() as u64,
            content: Blake3::of(content),
            verity: verity.map(Box::new),
        },
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links,
    };
    let links = Links {
        least: TreePath::new(b"a name").unwrap(),
        outside: 0,
    };
    let measured = Measurement::new(1, &[7; 32]);
    let expected = file(b"content", measured, Some(links));
    let read = Found::plain(file(b"content", None, None));
    assert!(is_as_expected(&expectation, &expected, &read));
    let other = Found::plain(file(b"another", None, None));
    assert!(!is_as_expected(&expectation, &expected, &other));
}

/// A property over trees is worth what the trees have in them.
#[test]
fn the_trees_and_the_mischief_are_nasty_enough() {
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..400 {
        let tree = Tree::grow(&mut Choices::Seed(seed), 40);
        let observations = mutate::observe(&mut Choices::Seed(!seed), &tree);
        for (_, words) in model::expected(&tree, &observations) {
            *counts
                .entry(words.split(' ').next().unwrap().to_owned())
                .or_default() += 1;
        }
        let mut note = |what: &str, is_so: bool| {
            *counts.entry(what.to_owned()).or_default() += u32::from(is_so);
        };
        let mut entries = tree.entries();
        note("rules", !tree.rules.is_empty());
        note(
            "names in a link group",
            entries.any(|entry| entry.links.as_ref().is_some_and(|l| l.least != entry.path)),
        );
        note(
            "names that are not UTF-8",
            entries.any(|entry| !entry.path.is_utf8()),
        );
        note("not held", !tree.not_held.is_empty());
        let is_measured = |entry: &Entry| {
            matches!(
                entry.node,
                Node::File {
                    verity: Some(_),
                    ..
                }
            )
        };
        note("measured", tree.entries().any(is_measured));
    }
    for what in [
        "added",
        "removed",
        "changed",
        "gap",
        "held",
        "rules",
        "names in a link group",
        "names that are not UTF-8",
        "not held",
        "measured",
    ] {
        assert!(
            counts.get(what).is_some_and(|&count| count >= 20),
            "{what}: {counts:?}"
        );
    }
}

fn tree_of(paths: &[&str]) -> Tree {
    use drift::entry::{FileFlags, Xattrs};
    let planted = paths.iter().map(|path| {
        let content = Blake3::of(path.as_bytes());
        let node = if path.ends_with("file") {
            Node::file(1, content)
        } else {
            Node::Directory
        };
        Planted {
            sha256: Some(drift::Sha256::of(b"")),
            package: None,
            modified: (0, 0),
            group: None,
            entry: Entry {
                path: TreePath::new(path.as_bytes()).unwrap(),
                mode: 0o755,
                uid: 0,
                gid: 0,
                node,
                xattrs: Xattrs::NONE,
                flags: FileFlags::NONE,
                links: None,
            },
        }
    });
    Tree {
        planted: planted.collect(),
        rules: Rules::none(),
        filesystems: Vec::new(),
        not_held: AttributeSet::EMPTY,
    }
}

#[test]
fn nothing_is_met_beneath_a_gap_or_before_it() {
    let tree = tree_of(&["/", "/a", "/a/file", "/b", "/b/file"]);
    let at = |index: usize| Observation::Found(tree.found()[index].clone());
    let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
    let refused = [
        vec![at(0), gap(&path("/a")), at(2)],
        vec![at(0), gap(&path("/b")), at(1)],
        vec![at(0), at(3), gap(&path("/a"))],
        vec![at(0), gap(&path("/a")), gap(&path("/a/file"))],
    ];
    for observations in refused {
        assert!(matches!(
            findings(&tree, observations),
            Err(CompareError::OutOfOrder { .. })
        ));
    }
    // A directory that was met, and could not be listed to its end.
    let told = findings(&tree, vec![at(0), at(1), gap(&path("/a")), at(3), at(4)]).unwrap();
    assert!(matches!(&told[..], [Finding::Gap(_)]));
    let told = findings(
        &tree,
        vec![at(0), at(1), at(2), gap(&path("/a")), at(3), at(4)],
    )
    .unwrap();
    assert!(matches!(&told[..], [Finding::Gap(_)]));
}

/// A failing disk must not kill a machine: the names that can still be read are not drift.
#[test]
fn a_link_group_with_a_name_beneath_a_gap_is_no_drift() {
    use drift::entry::Links;
    use drift::observation::Group;
    let mut tree = tree_of(&["/", "/a", "/a/file", "/b", "/b/file"]);
    let links = Links {
        least: TreePath::new(b"a/file").unwrap(),
        outside: 1,
    };
    let node = tree.planted[2].entry.node.clone();
    for index in [2, 4] {
        tree.planted[index].entry.links = Some(links.clone());
        tree.planted[index].entry.node = node.clone();
        tree.planted[index].group = Some(Group {
            device: (8, 1),
            inode: 7,
            names: 3,
        });
    }
    let at = |index: usize| Observation::Found(tree.found()[index].clone());
    let beneath = |text: &str| gap(&TreePath::new(text.as_bytes()).unwrap());
    for observations in [
        vec![at(0), beneath("/a"), at(3), at(4)],
        vec![at(0), at(1), at(2), beneath("/b")],
    ] {
        let told = findings(&tree, observations).unwrap();
        assert!(matches!(&told[..], [Finding::Gap(_)]), "{told:?}");
    }
}
