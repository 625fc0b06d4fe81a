//! Receives the package sources of this machine; hands on the release and the mirror that an image is made from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What a root file system is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The release by its code name: `bookworm`, `noble`.
    pub suite: String,
    /// The address of the mirror.
    pub mirror: String,
    /// The components that the image may use.
    pub components: String,
    /// Whose signatures count, where it is not this machine's own choice.
    pub keyring: Option<PathBuf>,
    /// Updates, as lines of a sources.list: a root of today, not of the day of the release.
    pub updates: Vec<String>,
}

impl Source {
    /// The release that this machine runs, from the mirror that it uses itself.
    ///
    /// # Errors
    /// It is no Debian or Ubuntu, or its apt has no source for its own release.
    pub fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .map(|name| name.trim_matches('"').to_owned())
            .context("find VERSION_CODENAME in /etc/os-release")?;
        let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
        let directory = Path::new("/etc/apt/sources.list.d");
        let mut files: Vec<_> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        texts.extend(
            files
                .iter()
                .map(|file| fs::read_to_string(file).unwrap_or_default()),
        );
        let mirror = texts
            .iter()
            .find_map(|text| {
                mirror_of_lines(text, &suite).or_else(|| mirror_of_stanzas(text, &suite))
            })
            .with_context(|| format!("find a source for {suite} in /etc/apt"))?;
        Ok(Self {
            suite,
            mirror,
            components: "main".to_owned(),
            keyring: None,
            updates: Vec::new(),
        })
    }
}

/// From the old form: `deb [options] URI SUITE COMPONENT...`.
fn mirror_of_lines(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') {
            rest.split_once(']')?.1
        } else {
            rest
        };
        let mut words = rest.split_whitespace();
        let (uri, of, component) = (words.next()?, words.next()?, words.next()?);
        (of == suite && component == "main").then(|| uri.to_owned())
    })
}

/// From the deb822 form: stanzas with `Types:`, `URIs:`, `Suites:`.
fn mirror_of_stanzas(text: &str, suite: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let line = stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.split_whitespace().collect::<Vec<_>>())
        };
        let enabled = field("Enabled").is_none_or(|value| value != ["no"]);
        let fits = enabled
            && field("Types")?.contains(&"deb")
            && field("Suites")?.contains(&suite)
            && field("Components")?.contains(&"main");
        if fits {
            field("URIs")?.first().map(|&uri| uri.to_owned())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_options_gives_its_mirror() {
        let text = "# deb http://no.invalid/debian bookworm main\n\
                    deb http://sec.invalid/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/x.gpg] http://mirror.invalid/debian bookworm main contrib\n";
        assert_eq!(
            mirror_of_lines(text, "bookworm").as_deref(),
            Some("http://mirror.invalid/debian")
        );
        assert_eq!(mirror_of_lines(text, "trixie"), None);
    }

    #[test]
    fn a_stanza_gives_its_mirror_unless_it_is_disabled() {
        let text = "Types: deb\nURIs: http://off.invalid/\nSuites: noble\nComponents: main\nEnabled: no\n\n\
                    Types: deb deb-src\nURIs: http://mirror.invalid/ubuntu http://other.invalid/\n\
                    Suites: noble noble-updates\nComponents: main universe\n";
        assert_eq!(
            mirror_of_stanzas(text, "noble").as_deref(),
            Some("http://mirror.invalid/ubuntu")
        );
        assert_eq!(mirror_of_stanzas(text, "noble-security"), None);
    }
}
