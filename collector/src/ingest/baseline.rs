//! Receives the manifest that an instance says it verifies against, and raises drift where it is not that of the
//! registered build that it enrolled for.

use drift::finding::{Drift, DriftKind};
use drift::report::Report;
use drift::{Blake3, TreePath};
use rusqlite::Transaction;

use super::raised;
use crate::instance::Instance;
use crate::store::drifts::Source;
use crate::store::images;

/// Where the manifest lies in every image.
const MANIFEST: &[u8] = b"usr/lib/driftmark/image.manifest";

/// Raises or closes the `baseline` drift; whether anything may have changed.
///
/// An image that is not registered is not drift: the instance is unverifiable until somebody registers it. An instance
/// that enrolled without an image takes the first one that it reports.
pub(super) fn check(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let Some(reported) = &report.image else {
        // Whatever it said before: what it verifies against now, nobody knows.
        instance.image_known = false;
        return Ok(false);
    };
    instance.reported_manifest = Some(reported.manifest);
    let image = instance.image.get_or_insert_with(|| reported.clone());
    let registered =
        images::lookup(tx, &image.name, &image.version, &image.build)?.map(|build| build.digest);
    instance.image_known = registered.is_some();
    let wrong = registered.filter(|registered| *registered != reported.manifest);
    let raised = wrong.map(|registered| drift(reported.manifest, registered));
    raised::settle(
        tx,
        instance.row,
        Source::Manifest,
        raised.as_slice(),
        now_ms,
    )
}

fn drift(reported: Blake3, registered: Blake3) -> Drift {
    let path = TreePath::new(MANIFEST).expect("a path that we chose");
    let detail = format!("it verifies against manifest {reported}, and its image has {registered}");
    raised::drift(path, DriftKind::Baseline, detail)
}
