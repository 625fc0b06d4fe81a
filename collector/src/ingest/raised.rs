//! Receives what the collector itself finds of an instance, beside what its agent tells; has just that open, of one source.

use drift::TreePath;
use drift::class::classify;
use drift::entry::{Attribute, AttributeSet};
use drift::finding::{Drift, DriftKind};
use rusqlite::Transaction;

use crate::store::drifts::{self, Source};

/// Opens what is raised and was not, closes what no longer is; whether anything changed. `instance` is its row.
pub(super) fn settle(
    tx: &Transaction<'_>,
    instance: i64,
    source: Source,
    raised: &[Drift],
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let mut wanted: Vec<_> = raised.iter().map(Drift::id).collect();
    wanted.sort_unstable();
    let open = drifts::ids(tx, instance, source)?;
    if open == wanted {
        return Ok(false);
    }
    for id in open {
        if wanted.binary_search(&id).is_err() {
            drifts::close(tx, instance, source, id)?;
        }
    }
    for drift in raised {
        drifts::open(tx, instance, source, drift.id(), drift, now_ms)?;
    }
    Ok(true)
}

/// A drift that is raised here: what changed, if anything did, is content.
pub(super) fn drift(path: TreePath, kind: DriftKind, detail: String) -> Drift {
    let changed = match kind {
        DriftKind::Changed => AttributeSet::of(&[Attribute::Content]),
        _ => AttributeSet::EMPTY,
    };
    let meaning = classify(&path, &kind, changed, None);
    Drift {
        attribution: None,
        path,
        kind,
        changed,
        found: None,
        detail: Some(detail),
        class: meaning.class,
        severity: meaning.severity,
        technique: meaning.techniques.into_iter().map(Into::into).collect(),
    }
}
