//! The result for people: aligned, coloured on a terminal, control bytes escaped, one line at the end that says what
//! it means.

use std::io::{self, Write};

use drift::class::Severity;
use drift::finding::{DriftKind, HostPackage};

use super::transactions::Transaction;
use super::{Checked, DriftLine, Outcome};
use crate::scan::ScanSummary;

/// Whether colours are wanted: on a terminal, unless `NO_COLOR` says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Escape codes.
    Coloured,
    /// None.
    Plain,
}

pub(super) fn print(out: &mut dyn Write, style: Style, checked: &Checked) -> io::Result<()> {
    for transaction in &checked.transactions.groups {
        print_transaction(out, style, transaction)?;
    }
    let by_themselves = checked.drifts.iter().enumerate();
    for (_, drift) in by_themselves.filter(|(nth, _)| !checked.transactions.holds(*nth)) {
        print_drift(out, style, drift)?;
    }
    for gap in &checked.gaps {
        let detail = if gap.detail.is_empty() {
            String::new()
        } else {
            format!(" ({})", gap.detail)
        };
        let word = paint(style, YELLOW, "gap     ");
        writeln!(
            out,
            "{word}           {}  {}{detail}",
            gap.path,
            gap.reason.sentence()
        )?;
    }
    for limit in &checked.summary.coverage.limits {
        writeln!(
            out,
            "{}           {limit}",
            paint(style, YELLOW, "limit   ")
        )?;
    }
    for note in &checked.summary.coverage.notes {
        writeln!(out, "{}           {note}", paint(style, DIM, "note    "))?;
    }
    print_end(out, style, checked)?;
    out.flush()
}

/// One line for what one package's transaction explains, by the host's own word.
fn print_transaction(
    out: &mut dyn Write,
    style: Style,
    transaction: &Transaction,
) -> io::Result<()> {
    let kind = paint(
        style,
        colour(&transaction.severity),
        &format!("{:<8}", transaction.what.word()),
    );
    let trust = paint(style, DIM, &format!("  ({})", HostPackage::TRUST));
    let plural = if transaction.count == 1 { "" } else { "s" };
    writeln!(
        out,
        "{kind} {:<9} {transaction}, {} path{plural}{trust}",
        transaction.severity, transaction.count
    )
}

fn colour(severity: &Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => RED,
        Severity::Medium => YELLOW,
        _ => CYAN,
    }
}

fn print_drift(out: &mut dyn Write, style: Style, drift: &DriftLine) -> io::Result<()> {
    let kind = paint(
        style,
        colour(&drift.severity),
        &format!("{:<8}", drift.kind),
    );
    let mut line = format!("{kind} {:<9} {}", drift.severity, drift.shown_path());
    for what in differences(drift) {
        line.push_str("  ");
        line.push_str(&what);
    }
    if let Some(package) = &drift.package {
        line.push_str(&paint(
            style,
            DIM,
            &format!("  [{}]", drift::escape(package.as_bytes())),
        ));
    }
    if let Some(host) = &drift.host_package {
        let told = format!(
            "  [{}: {} {}, {}]",
            HostPackage::TRUST,
            drift::escape(host.name.as_bytes()),
            drift::escape(host.version.as_bytes()),
            if host.matches {
                "as it brings it"
            } else {
                "not as it brings it"
            }
        );
        line.push_str(&paint(style, DIM, &told));
    }
    writeln!(out, "{line}")
}

/// What differs, expected → found, for what fits a line.
fn differences(drift: &DriftLine) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    if drift.kind == DriftKind::Changed {
        let (expected, found) = (
            drift.expected.clone().unwrap_or_default(),
            drift.found.clone().unwrap_or_default(),
        );
        let both = |expected: &Option<Box<str>>, found: &Option<Box<str>>| {
            let texts = expected.as_deref().zip(found.as_deref());
            texts.map(|(expected, found)| (expected.to_owned(), found.to_owned()))
        };
        for attribute in drift.changed.iter() {
            let word = attribute.word();
            let pair = match word {
                "kind" => Some((expected.kind.to_string(), found.kind.to_string())),
                "mode" => Some((expected.mode.to_string(), found.mode.to_string())),
                "uid" => Some((expected.uid.to_string(), found.uid.to_string())),
                "gid" => Some((expected.gid.to_string(), found.gid.to_string())),
                "size" => expected
                    .size
                    .zip(found.size)
                    .map(|(a, b)| (a.to_string(), b.to_string())),
                "target" => both(&expected.target, &found.target),
                "device" => both(&expected.device, &found.device),
                "flags" => Some((
                    flags(&expected.flags.letters()),
                    flags(&found.flags.letters()),
                )),
                _ => None,
            };
            told.push(match pair {
                Some((expected, found)) => format!("{word} {expected}→{found}"),
                None => word.to_owned(),
            });
        }
    } else if let Some(found) = &drift.found {
        told.push(format!(
            "{} {} {}:{}",
            found.kind, found.mode, found.uid, found.gid
        ));
    }
    told.extend(drift.detail.clone());
    told
}

fn flags(letters: &str) -> String {
    if letters.is_empty() {
        "-".to_owned()
    } else {
        letters.to_owned()
    }
}

fn print_end(out: &mut dyn Write, style: Style, checked: &Checked) -> io::Result<()> {
    let ScanSummary {
        entries,
        bytes,
        drifts,
        gaps,
        elapsed,
        coverage,
        measured,
        ..
    } = &checked.summary;
    let image = checked.baseline.image();
    let image = format!("{} {} ({})", image.name, image.version, image.build);
    let looked = format!(
        "{} of {} entries verified, {entries} paths and {} read{}{} in {:.1} s",
        coverage.verified_entries,
        coverage.expected_entries,
        crate::size(*bytes),
        match measured {
            0 => String::new(),
            measured => format!(", {measured} files measured by fs-verity"),
        },
        match coverage.disk {
            Some(_) => " from the disk",
            None => "",
        },
        elapsed.as_secs_f64()
    );
    let verdict = match checked.outcome() {
        Outcome::Clean => paint(style, GREEN, &format!("clean: this is {image}")),
        Outcome::Drift => {
            let plural = if *drifts == 1 { "" } else { "s" };
            paint(
                style,
                RED,
                &format!("drifted: {drifts} difference{plural} from {image}"),
            ) + &match checked.transactions.count() {
                0 => String::new(),
                told => format!(" ({told} of them in lines on packages; --json lists each)"),
            }
        }
        Outcome::Gap => {
            let unseen = if *gaps == 0 {
                "parts".to_owned()
            } else {
                format!("{gaps} paths")
            };
            paint(
                style,
                YELLOW,
                &format!(
                    "unsure: nothing differs from {image}, but {unseen} could not be verified"
                ),
            )
        }
    };
    writeln!(out, "{verdict}; {looked}")
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const DIM: &str = "2";

fn paint(style: Style, code: &str, text: &str) -> String {
    match style {
        Style::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        Style::Plain => text.to_owned(),
    }
}
