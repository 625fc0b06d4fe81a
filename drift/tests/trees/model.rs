//! The comparison as one would say it, without a merge: every path by itself, in maps.

use std::collections::{BTreeMap, BTreeSet};

use drift::TreePath;
use drift::compare::Finding;
use drift::entry::{Attribute, AttributeSet, Entry, Links, Node};
use drift::finding::DriftKind;
use drift::manifest::UnverifiedManifest;
use drift::observation::{Found, Observation};
use drift::rules::{Rule, RuleType, Rules};

use super::grow::Tree;

/// A finding by what matters of it.
pub type Findings = BTreeSet<(TreePath, String)>;

/// What [`drift::compare::compare`] finds.
pub fn found_by_compare(tree: &Tree, observations: &[Observation]) -> Findings {
    let baked = tree.bake().unwrap();
    let manifest = UnverifiedManifest::open(baked.bytes).unwrap();
    let mut findings = Findings::new();
    let mut count = 0;
    drift::compare::compare(&manifest, observations.iter().cloned(), &mut |finding| {
        count += 1;
        findings.insert(match finding {
            Finding::Drift(difference) => {
                let drift = difference.drift;
                (
                    drift.path,
                    format!(
                        "{} {:?} {}",
                        drift.kind,
                        drift.changed,
                        drift.detail.is_some()
                    ),
                )
            }
            Finding::Gap(gap) => (gap.path, "gap".to_owned()),
            Finding::Held(held) => (
                held.path,
                format!("held {:?} {:?}", held.value.is_some(), held.length),
            ),
        });
    })
    .unwrap();
    assert_eq!(count, findings.len(), "nothing is told twice");
    findings
}

/// What there is to find.
pub fn expected(tree: &Tree, observations: &[Observation]) -> Findings {
    let entries: BTreeMap<&TreePath, &Entry> =
        tree.entries().map(|entry| (&entry.path, entry)).collect();
    let mut found: BTreeMap<&TreePath, &Found> = BTreeMap::new();
    let mut gaps: Vec<&TreePath> = Vec::new();
    for observation in observations {
        match observation {
            Observation::Found(one) => {
                found.insert(&one.entry.path, one);
            }
            Observation::Gap(gap) => gaps.push(&gap.path),
        }
    }
    let mut findings: Findings = gaps
        .iter()
        .map(|&path| (path.clone(), "gap".to_owned()))
        .collect();
    let beneath = |path: &TreePath| gaps.iter().any(|gap| path.is_within(gap));
    let unseen: Vec<&Entry> = entries
        .values()
        .copied()
        .filter(|entry| beneath(&entry.path) && !found.contains_key(&entry.path))
        .collect();
    let paths: BTreeSet<&TreePath> = entries.keys().chain(found.keys()).copied().collect();
    for path in paths {
        let told = match (entries.get(path), found.get(path)) {
            (_, Some(one)) => {
                let links = links(one, entries.get(path).copied(), &found, &unseen);
                there(tree, entries.get(path).copied(), one, links)
            }
            (Some(_), None) if beneath(path) => Vec::new(),
            (Some(entry), None) => gone(&tree.rules, entry),
            (None, None) => Vec::new(),
        };
        findings.extend(told.into_iter().map(|words| (path.clone(), words)));
    }
    findings
}

/// The links of a path: names with its inode, and names of its old group that nobody could look at.
fn links(
    one: &Found,
    entry: Option<&Entry>,
    found: &BTreeMap<&TreePath, &Found>,
    unseen: &[&Entry],
) -> Option<Links> {
    let group = one.group?;
    let same = |other: &Found| other.group.is_some_and(|other| other.inode == group.inode);
    let mut names: Vec<&TreePath> = found
        .values()
        .filter(|other| same(other))
        .map(|other| &other.entry.path)
        .collect();
    let old = entry
        .and_then(|entry| entry.links.as_ref())
        .map(|links| &links.least);
    let in_old =
        |other: &&&Entry| old.is_some() && other.links.as_ref().map(|links| &links.least) == old;
    names.extend(unseen.iter().filter(in_old).map(|entry| &entry.path));
    let least = (*names.iter().min()?).clone();
    Some(Links {
        least,
        outside: group.names.saturating_sub(names.len() as u32),
    })
}

fn there(tree: &Tree, entry: Option<&Entry>, one: &Found, links: Option<Links>) -> Vec<String> {
    let now = Entry {
        links,
        ..one.entry.clone()
    };
    let is_directory = entry.unwrap_or(&now).node == Node::Directory;
    let (rule, below) = first(&tree.rules, &now.path).unzip();
    let below = below.unwrap_or(false);
    let broken = match rule.map(|rule| rule.rule_type) {
        Some(RuleType::Shape(_)) => one.shape != Some(Ok(())),
        Some(RuleType::AppendOnly) => match (&now.node, entry.map(|entry| &entry.node)) {
            (
                Node::File { size, .. },
                Some(Node::File {
                    size: least,
                    content,
                    ..
                }),
            ) => size < least || one.prefix != Some(*content),
            (Node::File { .. }, _) => false,
            _ => true,
        },
        _ => false,
    };
    let content = AttributeSet::of(&[Attribute::Size, Attribute::Content]);
    let (may_appear, may_change) = match rule.map(|rule| rule.rule_type) {
        _ if broken => (false, AttributeSet::EMPTY),
        Some(RuleType::Volatile) if below || !is_directory => (true, AttributeSet::ALL),
        Some(RuleType::Volatile) => (true, AttributeSet::EMPTY),
        Some(RuleType::FirstBoot) => (true, AttributeSet::ALL),
        Some(RuleType::AppendOnly | RuleType::Shape(_)) => (true, content),
        Some(RuleType::Content) => (false, content),
        Some(RuleType::Absent | RuleType::Covered) | None => (false, AttributeSet::EMPTY),
    };
    let mut told = Vec::new();
    match rule.map(|rule| rule.rule_type) {
        _ if broken => {}
        Some(RuleType::AppendOnly) => told.push(format!(
            "held {:?} {:?}",
            one.content().is_some(),
            one.content().map(|it| it.0)
        )),
        Some(rule) if rule.holds_first_value() => told.push(format!("held true {:?}", None::<u64>)),
        _ => {}
    }
    match entry {
        None if !may_appear => {
            told.push(format!(
                "{} {:?} {broken}",
                DriftKind::Added,
                AttributeSet::EMPTY
            ));
        }
        Some(entry) => {
            let changed = changed(entry, &now)
                .without(tree.not_held)
                .without(may_change);
            if !changed.is_empty() {
                told.push(format!("{} {changed:?} {broken}", DriftKind::Changed));
            }
        }
        None => {}
    }
    told
}

fn gone(rules: &Rules, entry: &Entry) -> Vec<String> {
    let (rule, below) = first(rules, &entry.path).unzip();
    let rule = rule.map(|rule| rule.rule_type);
    let may_go = match rule {
        Some(RuleType::Volatile) => below == Some(true) || entry.node != Node::Directory,
        Some(RuleType::FirstBoot | RuleType::Absent) => true,
        _ => false,
    };
    let mut told = Vec::new();
    if rule.is_some_and(RuleType::holds_first_value) {
        told.push(format!("held false {:?}", None::<u64>));
    }
    if !may_go && entry.node != Node::SelfFile {
        told.push(format!(
            "{} {:?} false",
            DriftKind::Removed,
            AttributeSet::EMPTY
        ));
    }
    told
}

/// The first rule that matches the path, or is volatile and matches a directory above it, and whether it is the latter.
fn first<'r>(rules: &'r Rules, path: &TreePath) -> Option<(&'r Rule, bool)> {
    rules.as_slice().iter().find_map(|rule| {
        let above = std::iter::successors(path.parent(), TreePath::parent)
            .any(|above| rule.pattern.matches(&above));
        let below = rule.rule_type == RuleType::Volatile && above;
        (below || rule.pattern.matches(path)).then_some((rule, below))
    })
}

fn changed(expected: &Entry, now: &Entry) -> AttributeSet {
    let both = [&expected.node, &now.node];
    let differs = |attribute: &Attribute| match attribute {
        Attribute::Kind => both[0].kind() != both[1].kind(),
        Attribute::Mode => expected.mode != now.mode,
        Attribute::Uid => expected.uid != now.uid,
        Attribute::Gid => expected.gid != now.gid,
        Attribute::Links => expected.links != now.links,
        Attribute::Xattr => expected.xattrs != now.xattrs,
        Attribute::Flags => expected.flags != now.flags,
        Attribute::Size => {
            matches!(both, [Node::File { size: a, .. }, Node::File { size: b, .. }] if a != b)
        }
        Attribute::Content => {
            matches!(both, [Node::File { content: a, .. }, Node::File { content: b, .. }] if a != b)
        }
        Attribute::Target => {
            matches!(both, [Node::Symlink { target: a }, Node::Symlink { target: b }] if a != b)
        }
        Attribute::Device => {
            matches!(both, [Node::CharDevice(a), Node::CharDevice(b)] | [Node::BlockDevice(a), Node::BlockDevice(b)] if a != b)
        }
    };
    Attribute::ALL.into_iter().filter(differs).collect()
}
