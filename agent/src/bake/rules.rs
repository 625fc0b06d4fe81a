//! Which rules an image gets: its maker's, then its distribution's.

use std::path::PathBuf;

use drift::TreePath;
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

/// A rule file that ships, built in: a pipeline cannot pick up another by accident.
#[derive(Debug, Clone, Copy)]
struct Shipped {
    name: &'static str,
    text: &'static str,
}

macro_rules! shipped {
    ($name:literal) => {
        Shipped {
            name: $name,
            text: include_str!(concat!("../../../packaging/rules.d/", $name)),
        }
    };
}

const LINUX: Shipped = shipped!("linux.toml");
const CLOUD_INIT: Shipped = shipped!("cloud-init.toml");
const DEBIAN: Shipped = shipped!("debian.toml");
const UBUNTU: Shipped = shipped!("ubuntu.toml");
const RHEL: Shipped = shipped!("rhel.toml");
const AMAZON: Shipped = shipped!("amazon.toml");

/// What each distribution gets: its own file before those that it shares with others, the first match counts.
const DISTRIBUTIONS: [(&str, &[Shipped]); 6] = [
    ("debian-12", &[DEBIAN, CLOUD_INIT, LINUX]),
    ("debian-13", &[DEBIAN, CLOUD_INIT, LINUX]),
    ("ubuntu-22.04", &[UBUNTU, DEBIAN, CLOUD_INIT, LINUX]),
    ("ubuntu-24.04", &[UBUNTU, DEBIAN, CLOUD_INIT, LINUX]),
    ("rhel-9", &[RHEL, CLOUD_INIT, LINUX]),
    ("amazon-2023", &[AMAZON, RHEL, CLOUD_INIT, LINUX]),
];

/// Chooses the rules for an image, of which `has` knows every path.
pub(super) fn choose(
    image: Glance<'_>,
    has: &dyn Fn(&TreePath) -> bool,
    choice: &RulesChoice,
) -> Result<ChosenRules, BakeError> {
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
    let release = OsRelease::of(image);
    let mut distribution = match release.rules() {
        Some(shipped) => shipped
            .iter()
            .map(|file| RuleFile::parse(file.name, file.text))
            .collect::<Result<_, _>>()?,
        None if own.is_empty() => return Err(BakeError::UnknownDistribution(release.shown())),
        None => Vec::new(),
    };
    for file in own.iter_mut().chain(&mut distribution) {
        file.rules.retain(|rule| rule.with.as_ref().is_none_or(has));
    }
    own.retain(|file| !file.rules.is_empty());
    distribution.retain(|file: &RuleFile| !file.rules.is_empty());
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

/// What the image says that it is.
#[derive(Debug, Default)]
struct OsRelease {
    id: String,
    version: String,
    like: String,
}

impl OsRelease {
    fn of(image: Glance<'_>) -> Self {
        let text = ["usr/lib/os-release", "etc/os-release"]
            .iter()
            .find_map(|path| image.text(path));
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.map_or_else(String::new, |value| {
                value.trim().trim_matches(['"', '\'']).to_owned()
            })
        };
        Self {
            id: field("ID"),
            version: field("VERSION_ID"),
            like: field("ID_LIKE"),
        }
    }

    /// The rules for it, if it is a distribution that is known.
    ///
    /// A rebuild of RHEL says so in `ID_LIKE` and counts minor versions; nothing else is taken for what it is like.
    fn rules(&self) -> Option<&'static [Shipped]> {
        let is_rhel = self.id == "rhel" || self.like.split(' ').any(|like| like == "rhel");
        let key = match &*self.id {
            "amzn" => format!("amazon-{}", self.version),
            _ if is_rhel => format!(
                "rhel-{}",
                self.version.split('.').next().unwrap_or_default()
            ),
            id => format!("{id}-{}", self.version),
        };
        let known = DISTRIBUTIONS.iter().find(|(name, _)| *name == key);
        known.map(|(_, files)| *files)
    }

    fn shown(&self) -> String {
        match (&*self.id, &*self.version) {
            ("", _) => "an image without an os-release".to_owned(),
            (id, "") => id.to_owned(),
            (id, version) => format!("{id}-{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::filesystems::Filesystems;

    #[test]
    fn a_distribution_is_known_by_what_it_says_of_itself() {
        let rows = [
            ("ID=debian\nVERSION_ID=\"12\"", Some("debian.toml")),
            (
                "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\nDEBIAN_VERSION_FULL=13.1",
                Some("debian.toml"),
            ),
            ("ID=debian\nVERSION_ID=\"11\"", None),
            ("ID=debian", None),
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"",
                Some("ubuntu.toml"),
            ),
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"",
                Some("ubuntu.toml"),
            ),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.10\"", None),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22\"",
                None,
            ),
            (
                "ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"",
                Some("rhel.toml"),
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.5\"",
                Some("rhel.toml"),
            ),
            (
                "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.6\"",
                Some("rhel.toml"),
            ),
            (
                "ID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"9\"",
                Some("rhel.toml"),
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"10.0\"",
                None,
            ),
            (
                "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.10\"",
                None,
            ),
            ("ID=fedora\nVERSION_ID=9", None),
            (
                "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"",
                Some("amazon.toml"),
            ),
            (
                "ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\"",
                None,
            ),
            ("", None),
        ];
        for (text, expected) in rows {
            let rules = OsRelease::parse(text).rules();
            assert_eq!(rules.map(|files| files[0].name), expected, "{text}");
        }
    }

    #[test]
    fn shipped_files_leave_each_other_something_to_say() {
        for (distribution, files) in DISTRIBUTIONS {
            let parsed = files
                .iter()
                .map(|file| RuleFile::parse(file.name, file.text).unwrap());
            let built = Rules::build(vec![], parsed.collect()).unwrap();
            assert_eq!(built.notes, [], "{distribution}");
            assert!(
                built.sources.iter().all(|rule| rule.reason.is_some()),
                "{distribution}"
            );
        }
    }

    #[test]
    fn a_rule_counts_only_where_its_program_is() {
        let image = tempfile::tempdir().unwrap();
        let rules = image.path().join("rules.toml");
        let text = "[[rule]]\ntype = \"content\"\npath = \"/etc/a\"\nwith = \"/usr/sbin/a\"\n";
        std::fs::write(&rules, text).unwrap();
        let choice = RulesChoice::Files(vec![rules]);
        let count = || {
            let filesystems = Filesystems::open(image.path(), &[], &[]).unwrap();
            let has = |path: &TreePath| filesystems.look_up(path).is_ok();
            let chosen = choose(Glance(&filesystems), &has, &choice).unwrap();
            chosen.built.rules.len()
        };
        assert_eq!(count(), 0);
        std::fs::create_dir_all(image.path().join("usr/sbin")).unwrap();
        assert_eq!(count(), 0);
        std::os::unix::fs::symlink("/nowhere", image.path().join("usr/sbin/a")).unwrap();
        assert_eq!(count(), 1);
    }
}
