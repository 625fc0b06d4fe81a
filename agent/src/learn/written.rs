//! Receives a proposal; hands on the rule file that `bake --rules` takes, or JSON.
//!
//! Every path in it was chosen on an instance that may be an attacker's: in a string it is escaped as TOML asks for,
//! in a comment as it is for any screen.

use std::fmt::Write as _;

use drift::report::ImageRef;
use drift::rules::RuleType;
use drift::{TreePath, escape};
use serde_json::{Value, json};

use super::observed::Observations;
use super::propose::{Proposal, ProposedRule, is_wide};

/// How many of the paths behind a rule its comment lists.
const LISTED: usize = 12;

/// As a rule file.
pub(super) fn rule_file(observations: &Observations, proposal: &Proposal) -> String {
    let mut text = String::new();
    let instances = observations.instances.len();
    let _ = writeln!(
        text,
        "# Proposed by `driftmark-agent learn` from {} of {}.",
        counted(instances, "instance"),
        observations.image.as_ref().map_or_else(String::new, image)
    );
    text.push_str("# Read it before you bake with it: what a rule allows, nobody will hear of.\n");
    for rule in &proposal.rules {
        let _ = write!(text, "\n{}", one(rule, instances));
    }
    if !proposal.refused.is_empty() {
        let _ = writeln!(
            text,
            "\n# Not allowed, and drift again on the next boot ({}):",
            counted(proposal.refused.len(), "path")
        );
    }
    for refused in &proposal.refused {
        let _ = writeln!(
            text,
            "#   {} {} {} {}: {}",
            refused.kind, refused.class, refused.severity, refused.path, refused.why
        );
    }
    if observations.gaps > 0 {
        let _ = writeln!(
            text,
            "\n# {} could not be verified when it was observed.",
            counted(observations.gaps as usize, "path")
        );
    }
    text
}

fn one(proposed: &ProposedRule, instances: usize) -> String {
    let mut text = String::new();
    let wide = is_wide(&proposed.rule.pattern) || proposed.rule.rule_type == RuleType::Volatile;
    if wide {
        for path in proposed.paths.iter().take(LISTED) {
            let _ = writeln!(text, "#   {path}");
        }
        if let Some(more) = proposed.paths.len().checked_sub(LISTED + 1) {
            let _ = writeln!(text, "#   and {} more", more + 1);
        }
    }
    text.push_str("[[rule]]\n");
    match proposed.rule.rule_type {
        RuleType::Shape(shape) => {
            let _ = writeln!(text, "type = \"shape\"\nshape = \"{}\"", shape.word());
        }
        other => {
            let _ = writeln!(text, "type = \"{}\"", other.word());
        }
    }
    let _ = writeln!(
        text,
        "path = {}\nreason = \"learned: {}, seen on {} of {}\"",
        toml_string(proposed.rule.pattern.as_bytes()),
        what(proposed.rule.rule_type),
        proposed.instances,
        counted(instances, "instance"),
    );
    text
}

fn what(rule_type: RuleType) -> &'static str {
    match rule_type {
        RuleType::Volatile => "another at each look",
        RuleType::FirstBoot => "made or changed by a first boot, and the same from then on",
        RuleType::AppendOnly => "it grows",
        RuleType::Content => "its content changes, and nothing else of it",
        RuleType::Absent => "gone",
        RuleType::Covered => "mounted over",
        RuleType::Shape(_) => "another on each instance, and checked for what it must be",
    }
}

/// A basic string of TOML: what is not printable ASCII as `\uXXXX` or `\UXXXXXXXX`.
fn toml_string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            other => {
                let _ = write!(text, "\\U{:08X}", u32::from(other));
            }
        }
    }
    text.push('"');
    text
}

/// As JSON, one object.
pub(super) fn json(observations: &Observations, proposal: &Proposal) -> String {
    let path = |path: &TreePath| json!(path);
    let rules: Vec<Value> = proposal
        .rules
        .iter()
        .map(|proposed| {
            json!({
                "type": match proposed.rule.rule_type {
                    RuleType::Shape(_) => "shape",
                    other => other.word(),
                },
                "shape": match proposed.rule.rule_type {
                    RuleType::Shape(shape) => Some(shape.word()),
                    _ => None,
                },
                "path": String::from_utf8_lossy(proposed.rule.pattern.as_bytes()),
                "paths": proposed.paths.iter().map(path).collect::<Vec<_>>(),
                "instances": proposed.instances,
            })
        })
        .collect();
    let refused: Vec<Value> = proposal
        .refused
        .iter()
        .map(|refused| {
            json!({
                "path": refused.path,
                "kind": refused.kind,
                "class": refused.class,
                "severity": refused.severity,
                "why": refused.why,
            })
        })
        .collect();
    let whole = json!({
        "image": observations.image,
        "instances": observations.instances.len(),
        "gaps": observations.gaps,
        "rules": rules,
        "refused": refused,
    });
    format!("{whole}\n")
}

fn image(image: &ImageRef) -> String {
    let part = |text: &String| escape(text.as_bytes());
    format!(
        "{} {} ({})",
        part(&image.name),
        part(&image.version),
        part(&image.build)
    )
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
