//! One path against its entry: the same, allowed, held, or drift.

use crate::TreePath;
use crate::class::classify;
use crate::compare::{Difference, Finding};
use crate::entry::{Attribute, AttributeSet, Entry, Kind, Node, Shown};
use crate::finding::{Drift, DriftKind};
use crate::manifest::Header;
use crate::observation::Found;
use crate::report::HeldValue;
use crate::rules::{Allowance, RuleType, Rules};

/// What a manifest expects beside its entries: the rules, and what it does not hold at all.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'m> {
    rules: &'m Rules,
    not_held: AttributeSet,
}

impl<'m> Expectation<'m> {
    /// Takes them from a manifest's header.
    pub fn new(header: &'m Header) -> Self {
        Expectation {
            rules: &header.rules,
            not_held: header.not_held,
        }
    }

    /// The rules.
    pub fn rules(&self) -> &'m Rules {
        self.rules
    }

    /// Whether nothing that is held of an entry differs.
    fn is_met(&self, expected: &Entry, found: &Found) -> bool {
        let differences = expected.differences(&found.entry);
        differences.without(self.not_held).is_empty()
    }
}

/// Judges a path that is there, its links known.
pub fn judge(
    expectation: &Expectation<'_>,
    expected: Option<&Entry>,
    found: &Found,
    sink: &mut dyn FnMut(Finding),
) {
    let path = &found.entry.path;
    let kind = expected.map_or(found.entry.node.kind(), |expected| expected.node.kind());
    let rule = expectation
        .rules
        .first_match(path)
        .map(|(_, rule)| rule.rule_type);
    if rule.is_none() && expected.is_some_and(|expected| expectation.is_met(expected, found)) {
        return;
    }
    let allowed = expectation.rules.allowance(path, kind);
    let (allowed, detail) = match condition(rule, expected, found) {
        Ok(()) => (allowed, None),
        Err(why) => (Allowance::NONE, Some(why)),
    };
    if detail.is_none() {
        match rule {
            Some(RuleType::AppendOnly) => sink(Finding::Held(held_beginning(found))),
            Some(rule) if rule.holds_first_value() => sink(Finding::Held(held(found))),
            _ => {}
        }
    }
    let (kind, changed) = match expected {
        Some(expected) => {
            let differences = expected
                .differences(&found.entry)
                .without(expectation.not_held);
            (DriftKind::Changed, differences.without(allowed.attributes))
        }
        None => (DriftKind::Added, AttributeSet::EMPTY),
    };
    let drifted = if expected.is_some() {
        !changed.is_empty()
    } else {
        !allowed.appear
    };
    if drifted {
        let sides = (expected.cloned(), Some(found.entry.clone()));
        sink(difference(path, kind, changed, sides, detail));
    }
}

/// Whether a name of a link group is the very entry that it meets, and nothing is to be told of it, as long as its links are
/// the entry's too: all that has to be kept of it until they are known is which entry that is.
pub fn is_as_expected(expectation: &Expectation<'_>, expected: &Entry, found: &Found) -> bool {
    let mut linked = Found {
        group: found.group,
        ..Found::plain(found.entry.clone())
    };
    if linked != *found {
        return false;
    }
    linked.entry.links.clone_from(&expected.links);
    // What fs-verity measured is no attribute: it only stands for reading.
    let mut is_told = !expected.differences(&linked.entry).is_empty();
    judge(expectation, Some(expected), &linked, &mut |_| {
        is_told = true;
    });
    !is_told
}

/// Judges an entry that is not there.
pub fn judge_missing(
    expectation: &Expectation<'_>,
    missing: &Entry,
    sink: &mut dyn FnMut(Finding),
) {
    let rule = expectation
        .rules
        .first_match(&missing.path)
        .map(|(_, rule)| rule.rule_type);
    if rule.is_some_and(RuleType::holds_first_value) {
        sink(Finding::Held(HeldValue {
            path: missing.path.clone(),
            value: None,
            length: None,
            prefix: None,
        }));
    }
    // A manifest that is read from elsewhere (from outside the image, say) need not lie in the tree.
    let may_go = expectation
        .rules
        .allowance(&missing.path, missing.node.kind())
        .go
        || missing.node == Node::SelfFile;
    if !may_go {
        let sides = (Some(missing.clone()), None);
        sink(difference(
            &missing.path,
            DriftKind::Removed,
            AttributeSet::EMPTY,
            sides,
            None,
        ));
    }
}

/// Judges what is mounted over a path, `what` saying what it is.
pub fn judge_cover(
    expectation: &Expectation<'_>,
    path: &TreePath,
    expected: Option<&Entry>,
    what: &str,
    sink: &mut dyn FnMut(Finding),
) {
    if !expectation.rules.allowance(path, Kind::Directory).covered {
        let sides = (expected.cloned(), None);
        sink(difference(
            path,
            DriftKind::Covered,
            AttributeSet::EMPTY,
            sides,
            Some(what.to_owned()),
        ));
    }
}

/// What a rule asks for before it allows anything: growth, a shape. The error says what is not so.
fn condition(
    rule: Option<RuleType>,
    expected: Option<&Entry>,
    found: &Found,
) -> Result<(), String> {
    match rule {
        Some(RuleType::AppendOnly) => grown(expected, found),
        Some(RuleType::Shape(shape)) => match &found.shape {
            Some(checked) => checked.clone(),
            None => Err(format!(
                "it is not a file that could be checked to be a {}",
                shape.word()
            )),
        },
        _ => Ok(()),
    }
}

/// It may grow: what the image has of it must still be its beginning.
fn grown(expected: Option<&Entry>, found: &Found) -> Result<(), String> {
    let Some((found_size, _)) = found.content() else {
        return Err("it may only grow, and it is not a regular file".to_owned());
    };
    match expected.map(|expected| &expected.node) {
        Some(Node::File { size, content, .. })
            if found_size < *size || found.prefix != Some(*content) =>
        {
            Err("it may only grow, and its beginning is not what the image has".to_owned())
        }
        _ => Ok(()),
    }
}

fn held(found: &Found) -> HeldValue {
    HeldValue {
        path: found.entry.path.clone(),
        value: Some(found.value()),
        length: None,
        prefix: None,
    }
}

fn held_beginning(found: &Found) -> HeldValue {
    let (length, digest) = found.content().unzip();
    HeldValue {
        path: found.entry.path.clone(),
        value: digest,
        length,
        prefix: found.held_prefix.clone(),
    }
}

/// Judges what is there and was not read though it should be a regular file, by what can be known of it without opening it: kind, mode,
/// owner and size. What `seen` says of anything else counts for nothing; where that matters, a gap says so.
///
/// A file that cannot be opened (someone holds a lease on it, the disk fails) is still drift if it is not in the image
/// or has another size or mode.
pub fn judge_unread(
    expectation: &Expectation<'_>,
    expected: Option<&Entry>,
    seen: &Entry,
    sink: &mut dyn FnMut(Finding),
) {
    let path = &seen.path;
    let kind = expected.map_or(seen.node.kind(), |expected| expected.node.kind());
    let allowed = expectation.rules.allowance(path, kind);
    let (kind, changed) = match expected {
        Some(expected) => {
            let known = AttributeSet::of(&[
                Attribute::Kind,
                Attribute::Mode,
                Attribute::Uid,
                Attribute::Gid,
                Attribute::Size,
            ]);
            let unknown = AttributeSet::ALL.without(known);
            let differences = expected
                .differences(seen)
                .without(unknown)
                .without(expectation.not_held);
            (DriftKind::Changed, differences.without(allowed.attributes))
        }
        None => (DriftKind::Added, AttributeSet::EMPTY),
    };
    let drifted = if expected.is_some() {
        !changed.is_empty()
    } else {
        !allowed.appear
    };
    if drifted {
        let detail = Some("its content was not read".to_owned());
        let sides = (expected.cloned(), Some(seen.clone()));
        let mut finding = difference(path, kind, changed, sides, detail);
        if let Finding::Drift(difference) = &mut finding {
            difference.found = None;
            if let Some(shown) = &mut difference.drift.found {
                shown.content = None;
            }
        }
        sink(finding);
    }
}

pub(super) fn difference(
    path: &TreePath,
    kind: DriftKind,
    changed: AttributeSet,
    sides: (Option<Entry>, Option<Entry>),
    detail: Option<String>,
) -> Finding {
    Finding::Drift(Box::new(differing(path, kind, changed, sides, detail)))
}

pub(super) fn differing(
    path: &TreePath,
    kind: DriftKind,
    changed: AttributeSet,
    (expected, found): (Option<Entry>, Option<Entry>),
    detail: Option<String>,
) -> Difference {
    let class = classify(path, &kind, changed, found.as_ref());
    let drift = Drift {
        attribution: None,
        path: path.clone(),
        kind,
        changed,
        found: found.as_ref().map(Shown::from),
        detail,
        class: class.class,
        severity: class.severity,
        technique: class
            .techniques
            .iter()
            .map(|&technique| technique.into())
            .collect(),
    };
    Difference {
        drift,
        expected,
        found,
    }
}
