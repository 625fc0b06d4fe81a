//! Content that the disk holds and no process sees: drift, whatever rules say of what processes may write.

use crate::compare::Finding;
use crate::compare::judgement::{Expectation, difference};
use crate::entry::{Attribute, AttributeSet, Entry};
use crate::finding::{Drift, DriftKind};
use crate::observation::Found;
use crate::rules::RuleType;

/// Judges what the disk holds of a file that held still and has other content in the page cache.
///
/// Nothing that goes through the file system makes the two differ, so a rule that lets a value be held from first sight on,
/// or a file grow, does not allow it. Only content that is not held at all is not: that of a swap file, say, which the
/// kernel itself writes beneath the file system.
pub fn judge_disk(
    expectation: &Expectation<'_>,
    expected: Option<&Entry>,
    on_disk: &Found,
    sink: &mut dyn FnMut(Finding),
) {
    let path = &on_disk.entry.path;
    let rule = expectation.rules().first_match(path);
    if rule.is_some_and(|(_, rule)| rule.rule_type == RuleType::Content) {
        return;
    }
    sink(difference(
        path,
        DriftKind::Changed,
        AttributeSet::of(&[Attribute::Content]),
        (expected.cloned(), Some(on_disk.entry.clone())),
        Some(Drift::ON_DISK_ALONE.to_owned()),
    ));
}
