//! An instance as the collector shows it in; what people read of it, out.

use drift::attribution::Attribution;
use drift::coverage::VerityRoot;
use serde::Deserialize as _;
use serde_json::Value;

use super::super::CliError;
use super::super::table::{Paint, Table, say};
use super::paint;
use crate::api::instances::{ShownDrift, ShownInstance, ShownMoment, ShownTransaction};
use crate::clock::{ago, now_ms, rfc3339};

/// Prints it; `grouped`: what packages would explain is a line for each.
pub(super) fn show(instance: &ShownInstance, grouped: bool) -> Result<(), CliError> {
    let mut facts = Table::of(&["INSTANCE", ""]);
    let listed = &instance.listed;
    let none = || "-".to_owned();
    facts.row([
        ("id".to_owned(), Paint::Plain),
        (listed.id.clone(), Paint::Plain),
    ]);
    facts.row([
        ("state".to_owned(), Paint::Plain),
        (listed.state.clone(), paint(&listed.state)),
    ]);
    for (name, value) in [
        ("fleet", listed.fleet.clone()),
        ("cloud id", listed.cloud_id.clone().unwrap_or_else(none)),
        (
            "proven",
            if listed.proven { "yes" } else { "no" }.to_owned(),
        ),
        ("image", listed.image.clone().unwrap_or_else(none)),
        (
            "manifest",
            instance.reported_manifest.clone().unwrap_or_else(none),
        ),
        (
            "unverifiable",
            instance.unverifiable.clone().unwrap_or_else(none),
        ),
        ("enrolled", rfc3339(listed.enrolled_at_ms)),
        ("heard", listed.heard_at_ms.map_or_else(none, rfc3339)),
        ("certificate until", rfc3339(instance.certificate_until_ms)),
        ("agent", instance.agent_version.clone().unwrap_or_else(none)),
        ("hold", listed.hold.clone().unwrap_or_else(none)),
        ("open", listed.open.to_string()),
        ("verified", ages(instance.coverage.as_ref())),
        ("dm-verity", verity(instance.coverage.as_ref())),
        ("sealed with", sealed(&instance.sealed_root_hashes)),
    ] {
        facts.plain([name.to_owned(), value]);
    }
    facts.print("")?;
    if grouped && !instance.transactions.is_empty() {
        say("")?;
        let mut packages = Table::of(&["WORST", "WOULD BE EXPLAINED BY", "DONE BY"]);
        for transaction in &instance.transactions {
            let worst = (
                transaction.severity.clone(),
                paint_of(&transaction.severity),
            );
            let by = match transaction.programs.as_slice() {
                [] => "-".to_owned(),
                programs => programs
                    .iter()
                    .map(|name| short(name))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            packages.row([worst, (line(transaction), Paint::Plain), (by, Paint::Plain)]);
        }
        packages.print("")?;
    }
    if !instance.drifts.is_empty() {
        say("")?;
        let mut drifts = Table::of(&[
            "SEVERITY", "KIND", "PATH", "CHANGED", "EXPECTED", "FOUND", "BY", "OPEN FOR",
        ]);
        for drift in &instance.drifts {
            drifts.row(drift_row(drift));
        }
        drifts.print("")?;
    }
    let leaves_out = grouped && !instance.transactions.is_empty();
    show_moments(&instance.moments, leaves_out)
}

/// What happened and is over. Whoever installs a package makes a file for each of its files under another name: what was
/// made and gone again is left out where packages are told as lines.
fn show_moments(all: &[ShownMoment], leaves_out: bool) -> Result<(), CliError> {
    let is_told =
        |moment: &&ShownMoment| !leaves_out || field(moment.drift.as_ref(), "kind") != "added";
    let told: Vec<_> = all.iter().filter(is_told).collect();
    if !told.is_empty() {
        say("")?;
        let mut moments = Table::of(&["HAPPENED", "KIND", "PATH", "CHANGED", "FOUND", "BY"]);
        for moment in &told {
            moments.row(moment_row(moment));
        }
        moments.print("")?;
    }
    match all.len() - told.len() {
        0 => Ok(()),
        left_out => Ok(say(&format!(
            "\n{left_out} files were made, and gone again before they were looked at: `--ungrouped` lists them"
        ))?),
    }
}

/// How long ago, at most, it verified what it verified, by its last report: `content 690 s ago (at most 90000)`.
fn ages(coverage: Option<&Value>) -> String {
    let kinds = [
        ("seen", "content"),
        ("quick", "metadata"),
        ("disk", "the disk"),
    ];
    let told = kinds.map(|(kind, what)| {
        let record = &coverage?[kind];
        let oldest = record["oldest_seconds"].as_u64()?;
        let ceiling = record["ceiling_seconds"].as_u64();
        let ceiling = ceiling.map_or(String::new(), |ceiling| format!(" (at most {ceiling})"));
        Some(format!("{what} {oldest} s ago{ceiling}"))
    });
    let processes = coverage.and_then(|coverage| coverage["processes"]["age_seconds"].as_u64());
    let processes = processes.map(|seconds| format!("processes {seconds} s ago"));
    let told: Vec<String> = told.into_iter().flatten().chain(processes).collect();
    match told.is_empty() {
        true => "-".to_owned(),
        false => told.join(", "),
    }
}

/// What it is mounted from: `/ sha256:HASH`, one after the other.
fn verity(coverage: Option<&Value>) -> String {
    let roots = coverage.and_then(|coverage| Vec::deserialize(&coverage["verity_roots"]).ok());
    let line = |root: &VerityRoot| {
        let corrupted = if root.corrupted { " (corrupted)" } else { "" };
        format!(
            "{} {}:{}{corrupted}",
            root.mount_point, root.algorithm, root.root_hash
        )
    };
    match roots.as_deref() {
        None => "-".to_owned(),
        Some([]) => "none".to_owned(),
        Some(roots) => roots.iter().map(line).collect::<Vec<_>>().join(", "),
    }
}

fn sealed(hashes: &[String]) -> String {
    match hashes {
        [] => "-".to_owned(),
        hashes => hashes.join(" or "),
    }
}

fn drift_row(open: &ShownDrift) -> [(String, Paint); 8] {
    let drift = open.drift.as_ref();
    [
        (open.severity.clone(), paint_of(&open.severity)),
        (field(drift, "kind"), Paint::Plain),
        (path(drift), Paint::Plain),
        (field(drift, "changed"), Paint::Plain),
        (attributes(open.expected.as_ref()), Paint::Plain),
        (found(drift), Paint::Plain),
        (who(drift), Paint::Plain),
        (ago(now_ms(), open.opened_at_ms), Paint::Plain),
    ]
}

/// By the collector's clock: the host's may say anything.
fn moment_row(moment: &ShownMoment) -> [(String, Paint); 6] {
    let drift = moment.drift.as_ref();
    [
        (ago(now_ms(), moment.received_at_ms), Paint::Plain),
        (field(drift, "kind"), Paint::Odd),
        (path(drift), Paint::Plain),
        (field(drift, "changed"), Paint::Plain),
        (found(drift), Paint::Plain),
        (who(drift), Paint::Plain),
    ]
}

/// A field of a drift: a word, or words.
fn field(drift: Option<&Value>, name: &str) -> String {
    match drift.and_then(|drift| drift.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        _ => String::new(),
    }
}

/// What is there now, or what is to be said of it.
fn found(drift: Option<&Value>) -> String {
    match field(drift, "detail") {
        nothing if nothing.is_empty() => attributes(drift.and_then(|drift| drift.get("found"))),
        detail => detail,
    }
}

/// Who did it, as far as a line has room: `/usr/bin/dpkg[812]`.
fn who(drift: Option<&Value>) -> String {
    let attribution = drift.and_then(|drift| drift.get("attribution"));
    let attribution = attribution.and_then(|told| Attribution::deserialize(told).ok());
    let Some(process) = attribution.and_then(|told| told.process) else {
        return "-".to_owned();
    };
    let program = process.executable.map_or_else(
        || "a process that has ended".to_owned(),
        |program| short(&program.path),
    );
    format!("{program}[{}]", process.pid)
}

fn paint_of(severity: &str) -> Paint {
    match severity {
        "high" | "critical" => Paint::Bad,
        _ => Paint::Plain,
    }
}

/// `openssl 3.0.11 → 3.0.15, 14 files (host database, unsigned)`.
fn line(of: &ShownTransaction) -> String {
    let version = of.version.as_deref().map(short).unwrap_or_default();
    let what = match (&of.name, &of.before) {
        (Some(name), Some(before)) => format!("{} {} → {version}", short(name), short(before)),
        (Some(name), None) => format!("{} {version} installed", short(name)),
        (None, _) => "the package database itself".to_owned(),
    };
    let plural = if of.files == 1 { "file" } else { "files" };
    format!("{what}, {} {plural} ({})", of.files, of.trust)
}

/// What a line has of a name or version: the host chose them.
const NAMED_CHARS: usize = 64;

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(NAMED_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn path(drift: Option<&Value>) -> String {
    let path = drift.and_then(|drift| drift.get("path")).cloned();
    match path.and_then(|path| serde_json::from_value::<drift::TreePath>(path).ok()) {
        Some(path) => path.to_text(),
        None => "(one of many)".to_owned(),
    }
}

/// Kind, mode, owner, size and the beginning of the digest: what fits on a line.
fn attributes(shown: Option<&Value>) -> String {
    let shown =
        shown.and_then(|shown| serde_json::from_value::<drift::entry::Shown>(shown.clone()).ok());
    let Some(shown) = shown else {
        return "-".to_owned();
    };
    let mut text = format!("{} {} {}:{}", shown.kind, shown.mode, shown.uid, shown.gid);
    if let Some(size) = shown.size {
        text.push_str(&format!(" {size}B"));
    }
    if let Some(content) = shown.content {
        text.push_str(&format!(" {}", &content.to_string()[..12]));
    }
    if let Some(target) = shown.target {
        text.push_str(&format!(" -> {target}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_one_line_and_a_hostile_one_is_short_and_draws_nothing() {
        let transaction =
            |name: &str, before: Option<&str>, version: &str, files| ShownTransaction {
                name: Some(name.to_owned()),
                before: before.map(str::to_owned),
                version: Some(version.to_owned()),
                files,
                severity: "high".to_owned(),
                programs: Vec::new(),
                trust: drift::finding::HostPackage::TRUST.to_owned(),
            };
        assert_eq!(
            line(&transaction("openssl", Some("3.0.11"), "3.0.15", 14)),
            "openssl 3.0.11 → 3.0.15, 14 files (host database, unsigned)"
        );
        assert_eq!(
            line(&transaction("curl", None, "7.88.1", 1)),
            "curl 7.88.1 installed, 1 file (host database, unsigned)"
        );
        let hostile = "\u{1b}[2J\u{202e}".repeat(60);
        let mut table = Table::of(&["LINE"]);
        table.plain([line(&transaction(&hostile, Some(&hostile), &hostile, 1))]);
        let text = table.render(false);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert!(text.len() < 5_000, "{}", text.len());
    }
}
