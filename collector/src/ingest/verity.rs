//! Receives the dm-verity devices that an instance says it is mounted from, and raises drift where its build was sealed
//! with a root hash (its second statement) and it does not run from that.
//!
//! A statement has one root hash, and does not say which file system it is of: it is that of the root, or of `/usr` where
//! the image has its programs there (systemd's `usrhash=`). Either will do. Which other file systems have verity is shown
//! and not judged.

use drift::coverage::VerityRoot;
use drift::finding::DriftKind;
use drift::report::Report;
use drift::{Sha256, TreePath};
use rusqlite::Transaction;

use super::raised;
use crate::instance::Instance;
use crate::store::artifacts;
use crate::store::drifts::Source;

/// Where the root hash of a statement may be mounted.
const SEALED: [&[u8]; 2] = [b"", b"usr"];

/// Raises or closes the drift; whether anything may have changed.
///
/// A report that does not tell (before the first pass, or where the agent cannot ask its kernel) changes nothing: that
/// is a gap in its coverage, and no answer to what is open.
pub(super) fn check(
    tx: &Transaction<'_>,
    instance: &Instance,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let (Some(roots), Some(image)) = (&report.coverage.verity_roots, &instance.image) else {
        return Ok(false);
    };
    let sealed = artifacts::root_hashes(tx, &image.name, &image.version, &image.build)?;
    let raised = disagreement(&sealed, roots)
        .map(|(path, detail)| raised::drift(path, DriftKind::Baseline, detail));
    raised::settle(tx, instance.row, Source::Verity, raised.as_slice(), now_ms)
}

/// Where, and in which words, what an instance is mounted from does not agree with what its build was sealed with.
///
/// A build may have several statements, one for each platform, and so several hashes: one has to fit. Without any there
/// is nothing to hold an instance against.
fn disagreement(sealed: &[Sha256], roots: &[VerityRoot]) -> Option<(TreePath, String)> {
    let wanted: Vec<String> = sealed.iter().map(ToString::to_string).collect();
    let wanted_words = || wanted.join(" or ");
    if wanted.is_empty() {
        return None;
    }
    let of_image = || {
        let is_sealed = |root: &&VerityRoot| SEALED.contains(&root.mount_point.as_bytes());
        roots.iter().filter(is_sealed)
    };
    if let Some(bad) = of_image().find(|root| root.corrupted) {
        let detail = format!(
            "its kernel met a block that does not fit the dm-verity root hash {}",
            bad.root_hash
        );
        return Some((bad.mount_point.clone(), detail));
    }
    if of_image().any(|root| wanted.contains(&root.root_hash)) {
        return None;
    }
    Some(match of_image().next() {
        Some(other) => (
            other.mount_point.clone(),
            format!(
                "it runs from the dm-verity root hash {}, and its image was sealed with {}",
                other.root_hash,
                wanted_words()
            ),
        ),
        None => (
            TreePath::root(),
            format!(
                "neither / nor /usr is mounted from a dm-verity device, and its image was sealed with the root hash {}",
                wanted_words()
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(at: &[u8], byte: u8) -> VerityRoot {
        VerityRoot {
            mount_point: TreePath::new(at).expect("a path"),
            root_hash: Sha256::from_bytes([byte; 32]).to_string(),
            algorithm: "sha256".to_owned(),
            corrupted: false,
        }
    }

    fn bad(root: VerityRoot) -> VerityRoot {
        VerityRoot {
            corrupted: true,
            ..root
        }
    }

    #[test]
    fn an_instance_runs_from_what_its_build_was_sealed_with_or_it_drifted() {
        let [one, two] = [[1; 32], [2; 32]].map(Sha256::from_bytes);
        let told = |sealed: &[Sha256], roots: &[VerityRoot]| {
            disagreement(sealed, roots).map(|(path, detail)| {
                let what = ["neither", "runs from", "met a block"];
                let which = what.into_iter().find(|what| detail.contains(what));
                (path.to_string(), which.expect("one of these"))
            })
        };
        let drift = |path: &str, which| Some((path.to_owned(), which));
        let cases = [
            // Nothing to hold it against.
            (&[][..], vec![], None),
            (&[], vec![root(b"", 9)], None),
            (&[], vec![bad(root(b"", 9))], None),
            // It fits, at / or at /usr, by any of the build's statements.
            (&[one], vec![root(b"", 1)], None),
            (&[one], vec![root(b"usr", 1)], None),
            (&[one, two], vec![root(b"", 2)], None),
            (&[one], vec![root(b"", 9), root(b"usr", 1)], None),
            // It does not.
            (&[one], vec![], drift("/", "neither")),
            (&[one], vec![root(b"opt", 1)], drift("/", "neither")),
            (&[one], vec![root(b"usr", 2)], drift("/usr", "runs from")),
            (&[one], vec![bad(root(b"", 1))], drift("/", "met a block")),
            (
                &[one],
                vec![root(b"", 1), bad(root(b"usr", 9))],
                drift("/usr", "met a block"),
            ),
            (&[one], vec![root(b"", 1), bad(root(b"opt", 9))], None),
        ];
        for (sealed, roots, wanted) in cases {
            assert_eq!(told(sealed, &roots), wanted, "{sealed:?} {roots:?}");
        }
        // A hash is compared whole, whatever a sender writes.
        let mut short = root(b"", 1);
        short.root_hash.truncate(62);
        let mut odd = root(b"", 1);
        odd.root_hash = String::new();
        for roots in [short, odd] {
            assert!(disagreement(&[one], &[roots]).is_some());
        }
    }
}
