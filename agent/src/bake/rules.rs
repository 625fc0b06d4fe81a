//! Which rules an image gets: its maker's, then its distribution's.

use std::path::{Path, PathBuf};

use drift::rules::{Built, RuleFile, Rules};
use driftmark_kernel::Tree;

use super::BakeError;

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

/// Chooses the rules for the image at `root`.
pub(super) fn choose(root: &Path, choice: &RulesChoice) -> Result<ChosenRules, BakeError> {
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
    let mut image = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|source| BakeError::Read {
            path: path.clone(),
            source,
        })?;
        image.push(RuleFile::parse(&super::shown(path), &text)?);
    }
    let distribution = distribution(root);
    let shipped = SHIPPED.iter().find(|(name, _)| *name == distribution);
    let distribution = match shipped {
        Some((name, text)) => vec![RuleFile::parse(&format!("{name}.toml"), text)?],
        None if image.is_empty() => return Err(BakeError::UnknownDistribution(distribution)),
        None => Vec::new(),
    };
    let files = image
        .iter()
        .chain(&distribution)
        .map(|file| file.name.clone())
        .collect();
    Ok(ChosenRules {
        built: Rules::build(image, distribution)?,
        files,
    })
}

/// `ID-VERSION_ID` of the image's os-release.
fn distribution(root: &Path) -> String {
    let text = ["usr/lib/os-release", "etc/os-release"]
        .iter()
        .find_map(|path| read_plain(root, path));
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

/// Reads a short text of the tree without following any link of it.
pub(super) fn read_plain(root: &Path, path: &str) -> Option<String> {
    use std::io::Read as _;
    const MAX_BYTES: u64 = 64 * 1024;
    let mut dir = Tree::open(root).ok()?.root().ok()?;
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    for directory in directories.split('/').filter(|name| !name.is_empty()) {
        dir = dir.open_dir(directory.as_bytes()).ok()?;
    }
    let mut text = String::new();
    dir.open_file(name.as_bytes())
        .ok()?
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}
