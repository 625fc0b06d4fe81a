//! Any first boots in; what is proposed leaves exactly what was refused.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Change {
    Write(usize, u8),
    Add(usize, u8, u16),
    Remove(usize),
    Mode(usize, u16),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0usize..16, any::<u8>()).prop_map(|(at, byte)| Change::Write(at, byte)),
        (
            0usize..8,
            any::<u8>(),
            prop::sample::select(vec![0o644u16, 0o600, 0o755, 0o4755])
        )
            .prop_map(|(at, name, mode)| Change::Add(at, name, mode)),
        (8usize..16).prop_map(Change::Remove),
        (
            8usize..16,
            prop::sample::select(vec![0o600u16, 0o666, 0o4755])
        )
            .prop_map(|(at, mode)| Change::Mode(at, mode)),
    ]
}

fn changed(changes: &[Change]) -> Vec<Entry> {
    const DIRECTORIES: [&str; 8] = [
        "/etc",
        "/etc/ssh",
        "/usr/bin",
        "/var/lib",
        "/var/log",
        "/etc/cron.d",
        "/var/lib/a?b",
        "/var/lib/dpkg",
    ];
    let mut tree = with(&[
        directory("/etc/cron.d"),
        directory("/var/lib/a?b"),
        directory("/var/lib/dpkg"),
    ]);
    let files: Vec<usize> = (0..tree.len())
        .filter(|&nth| matches!(tree[nth].node, Node::File { .. }))
        .collect();
    let mut gone = BTreeSet::new();
    for change in changes {
        match change {
            Change::Write(at, byte) => {
                let nth = files[at % files.len()];
                let text = "x".repeat(usize::from(*byte));
                tree[nth].node = file("/x", &text).node;
            }
            Change::Add(at, name, mode) => {
                let at = format!("{}/f{:02x}-new", DIRECTORIES[*at], name);
                if tree.iter().all(|entry| entry.path != path(&at)) {
                    tree.push(node(&at, *mode, file("/x", "new").node));
                }
            }
            Change::Remove(at) => {
                gone.insert(tree[files[at % files.len()]].path.clone());
            }
            Change::Mode(at, mode) => tree[files[at % files.len()]].mode = *mode,
        }
    }
    tree.retain(|entry| !gone.contains(&entry.path));
    tree
}

proptest! {
    /// Baked with what is proposed, what was observed drifts exactly where it was refused, and a neighbour still does.
    #[test]
    fn a_proposal_leaves_exactly_what_it_refused(
        boots in prop::collection::vec(prop::collection::vec(prop::collection::vec(any_change(), 0..12), 1..3), 1..4),
    ) {
        let trees: Vec<Vec<Vec<Entry>>> = boots
            .iter()
            .map(|looks| looks.iter().map(|changes| changed(changes)).collect())
            .collect();
        let observations = observed(&trees);
        let proposal = propose(&observations).unwrap();
        let rules = rules_of(&observations, &proposal);
        let refused: BTreeSet<&TreePath> = proposal.refused.iter().map(|refused| &refused.path).collect();
        for tree in trees.iter().flatten() {
            let before: BTreeSet<TreePath> = sights(tree).into_iter().map(|sight| sight.path).collect();
            let after: BTreeSet<TreePath> = drifts(&rules, tree).into_iter().map(|drift| drift.path).collect();
            let expected: BTreeSet<TreePath> = before.into_iter().filter(|path| refused.contains(path)).collect();
            prop_assert_eq!(after, expected);
        }
        for rule in &proposal.rules {
            for explained in &rule.paths {
                let mut beside = explained.as_bytes().to_vec();
                beside.extend_from_slice(b"-beside");
                let beside = path(std::str::from_utf8(&beside).unwrap());
                let intruded = with(&[file(&beside.to_string(), "evil")]);
                let found = drifts(&rules, &intruded);
                prop_assert!(
                    found.iter().any(|drift| drift.path == beside && drift.kind == DriftKind::Added),
                    "{} lets {} be", rule.rule, beside
                );
            }
        }
    }
}
