//! A manifest in the words of others: JSON Lines for programs, BSD mtree for `mtree` and `bsdtar`.

mod mtree;

use serde::Serialize;

use crate::entry::{Entry, Shown};
use crate::manifest::{Contents, Origin, Source};
use crate::{Blake3, Sha256};

pub use mtree::Mtree;

/// JSON Lines: one object for the header, then one an entry.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

#[derive(Serialize)]
struct HeaderLine {
    manifest: HeaderBody,
}

#[derive(Serialize)]
struct HeaderBody {
    version: u32,
    sha256: Sha256,
    blake3: Blake3,
    entries: u64,
    files: u64,
    content_bytes: u64,
    not_held: crate::entry::AttributeSet,
    filesystems: Vec<(String, String)>,
    rules: Vec<RuleLine>,
}

#[derive(Serialize)]
struct RuleLine {
    r#type: &'static str,
    path: String,
}

#[derive(Serialize)]
struct EntryLine {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(flatten)]
    shown: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
}

impl JsonLines {
    /// The first line.
    pub fn header<S: Source>(manifest: &Contents<S>) -> String {
        let header = manifest.header();
        let identity = manifest.identity();
        let rule = |rule: &crate::rules::Rule| RuleLine {
            r#type: rule.rule_type.word(),
            path: rule.pattern.to_string(),
        };
        let body = HeaderBody {
            version: crate::manifest::VERSION,
            sha256: identity.sha256,
            blake3: identity.blake3,
            entries: header.entry_count,
            files: header.file_count,
            content_bytes: header.content_bytes,
            not_held: header.not_held,
            filesystems: header
                .filesystems
                .iter()
                .map(|filesystem| (filesystem.mount_point.to_text(), filesystem.kind.clone()))
                .collect(),
            rules: header.rules.as_slice().iter().map(rule).collect(),
        };
        line(&HeaderLine { manifest: body })
    }

    /// The line of an entry. A path that is not UTF-8 has `path_bytes` (base64) beside it.
    pub fn entry(entry: &Entry, origin: &Origin) -> String {
        line(&EntryLine {
            path: entry.path.to_text(),
            path_bytes: (!entry.path.is_utf8()).then(|| crate::base64(&entry.path.to_absolute())),
            shown: Shown::from(entry),
            sha256: origin.sha256,
            package: origin.package.as_ref().map(ToString::to_string),
        })
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs")
}
