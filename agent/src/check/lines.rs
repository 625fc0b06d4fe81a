//! The result for machines: one JSON object a line, the last one a summary.

use std::borrow::Cow;
use std::io::{self, Write};

use drift::TreePath;
use drift::class::{Class, Severity};
use drift::compare::Difference;
use drift::coverage::{Coverage, GapReason};
use drift::entry::{AttributeSet, Shown};
use drift::finding::{DriftKind, HostPackage};
use drift::manifest::{Package, Packages};
use drift::report::ImageRef;
use serde::Serialize;

use super::Checked;
use crate::baseline::Baseline;
use crate::packages::Labels;

/// One drift.
#[derive(Debug, Serialize)]
pub struct DriftLine {
    /// As text; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Base64 of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// What happened.
    pub kind: DriftKind,
    /// With kind `changed`: which attributes differ.
    pub changed: AttributeSet,
    /// What the image has.
    pub expected: Option<Shown>,
    /// What is there.
    pub found: Option<Shown>,
    /// What the attributes do not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What part of the system it concerns.
    pub class: Class,
    /// How bad it is by itself.
    pub severity: Severity,
    /// MITRE ATT&CK techniques.
    pub technique: Vec<Cow<'static, str>>,
    /// The package that owns the path in the image.
    pub package: Option<String>,
    /// What the host's own package database says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_package: Option<HostPackage>,
    /// The package that owns the path in the image, in its parts.
    #[serde(skip)]
    pub(super) image_package: Option<Package>,
    /// Where, exactly.
    #[serde(skip)]
    pub(super) tree_path: TreePath,
}

/// One gap.
#[derive(Debug, Serialize)]
pub struct GapLine<'a> {
    gap: GapBody<'a>,
}

#[derive(Debug, Serialize)]
struct GapBody<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    reason: GapReason,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    image: ImageRef,
    entries: u64,
    bytes: u64,
    drifts: u64,
    gaps: u64,
    rehashed: u64,
    measured: u64,
    milliseconds: u128,
    /// VmHWM.
    peak_resident_kib: u64,
    coverage: &'a Coverage,
}

impl DriftLine {
    /// The package is looked up for what drifted alone: a scan does not touch that section.
    pub(super) fn new(
        difference: Difference,
        baseline: &Baseline,
        packages: &Packages,
        labels: &Labels,
    ) -> Self {
        let Difference {
            drift, expected, ..
        } = difference;
        let package = match &expected {
            Some(_) => baseline
                .manifest
                .origin_among(&drift.path, packages)
                .ok()
                .flatten()
                .and_then(|origin| origin.package),
            None => None,
        };
        DriftLine {
            path: drift.path.to_text(),
            path_bytes: bytes(&drift.path),
            kind: drift.kind,
            changed: drift.changed,
            expected: expected.as_ref().map(Shown::from),
            found: drift.found,
            detail: drift.detail,
            class: drift.class,
            severity: drift.severity,
            technique: drift.technique,
            package: package.as_ref().map(ToString::to_string),
            host_package: labels.of(&drift.path).cloned(),
            image_package: package,
            tree_path: drift.path,
        }
    }

    /// Where it drifted.
    pub fn tree_path(&self) -> &TreePath {
        &self.tree_path
    }

    /// The path for people: control bytes escaped.
    pub fn shown_path(&self) -> String {
        self.tree_path.to_string()
    }
}

pub(super) fn print(out: &mut dyn Write, checked: &Checked) -> io::Result<()> {
    let Checked {
        baseline,
        drifts,
        gaps,
        summary,
        ..
    } = checked;
    for drift in drifts {
        line(out, drift)?;
    }
    for gap in gaps {
        let body = GapBody {
            path: gap.path.to_text(),
            path_bytes: bytes(&gap.path),
            reason: gap.reason,
            detail: &gap.detail,
        };
        line(out, &GapLine { gap: body })?;
    }
    let summary = Summary {
        image: baseline.image(),
        entries: summary.entries,
        bytes: summary.bytes,
        drifts: summary.drifts,
        gaps: summary.gaps,
        rehashed: summary.rehashed,
        measured: summary.measured,
        milliseconds: summary.elapsed.as_millis(),
        peak_resident_kib: driftmark_kernel::process::peak_resident_kib().unwrap_or_default(),
        coverage: &summary.coverage,
    };
    line(out, &SummaryLine { summary })?;
    out.flush()
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn bytes(path: &TreePath) -> Option<String> {
    (!path.is_utf8()).then(|| drift::base64(&path.to_absolute()))
}
