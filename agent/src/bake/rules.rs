//! Which rules an image gets: its maker's, then its distribution's.

use std::path::PathBuf;

use drift::rules::{Built, RuleFile, Rules};

use super::BakeError;
use super::glance::Glance;

/// What was asked for with `--rules`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RulesChoice {
    /// Those of the distribution that the image is.
    #[default]
    Distribution,
    /// These files first, then those of the distribution, if it is known.
    Files(Vec<PathBuf>),
    /// None: nothing may change.
    Nothing,
}

/// The rules of an image, and which files they come from.
#[derive(Debug)]
pub struct ChosenRules {
    /// In the order in which they count.
    pub built: Built,
    /// The files, for people.
    pub files: Vec<String>,
}

/// The rules that ship, by `ID-VERSION_ID` of os-release.
const SHIPPED: [(&str, &str); 4] = [
    (
        "debian-12",
        include_str!("../../../packaging/rules.d/debian-12.toml"),
    ),
    (
        "debian-13",
        include_str!("../../../packaging/rules.d/debian-13.toml"),
    ),
    (
        "ubuntu-22.04",
        include_str!("../../../packaging/rules.d/ubuntu-22.04.toml"),
    ),
    (
        "ubuntu-24.04",
        include_str!("../../../packaging/rules.d/ubuntu-24.04.toml"),
    ),
];

/// Chooses the rules for an image.
pub(super) fn choose(image: Glance<'_>, choice: &RulesChoice) -> Result<ChosenRules, BakeError> {
    let paths = match choice {
        RulesChoice::Nothing => {
            return Ok(ChosenRules {
                built: Rules::build(vec![], vec![])?,
                files: vec![],
            });
        }
        RulesChoice::Distribution => &[][..],
        RulesChoice::Files(paths) => paths,
    };
    let mut own = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|source| BakeError::Read {
            path: path.clone(),
            source,
        })?;
        own.push(RuleFile::parse(&super::shown(path), &text)?);
    }
    let distribution = distribution(image);
    let shipped = SHIPPED.iter().find(|(name, _)| *name == distribution);
    let distribution = match shipped {
        Some((name, text)) => vec![RuleFile::parse(&format!("{name}.toml"), text)?],
        None if own.is_empty() => return Err(BakeError::UnknownDistribution(distribution)),
        None => Vec::new(),
    };
    let files = own
        .iter()
        .chain(&distribution)
        .map(|file| file.name.clone())
        .collect();
    Ok(ChosenRules {
        built: Rules::build(own, distribution)?,
        files,
    })
}

/// `ID-VERSION_ID` of the image's os-release.
fn distribution(image: Glance<'_>) -> String {
    let text = ["usr/lib/os-release", "etc/os-release"]
        .iter()
        .find_map(|path| image.text(path));
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    match (field("ID"), field("VERSION_ID")) {
        (Some(id), Some(version)) => format!("{id}-{version}"),
        (Some(id), None) => id,
        _ => "an image without an os-release".to_owned(),
    }
}
