//! Receives a table of keys; hands on the manual page of the file that has them, and that file with everything commented
//! out.

use std::fmt::Write as _;

use drift::documented::{Key, Shown};

use crate::pages::{Configuration, text};

/// How wide a comment of a default configuration is.
const COLUMNS: usize = 110;

/// A key as files spell it.
pub(crate) fn spelled(key: &Key) -> String {
    key.name.replace('_', "-")
}

/// What is said of a key, without the name that each doc comment begins with.
///
/// # Panics
/// The doc comment begins otherwise.
pub(crate) fn said(key: &Key) -> String {
    let joined: Vec<_> = key.lines.iter().map(|line| line.trim()).collect();
    let (joined, name) = (joined.join(" "), spelled(key));
    let starts = [format!("`{name}`: "), format!("`[{name}]`: ")];
    let rest = starts.iter().find_map(|start| joined.strip_prefix(start));
    rest.unwrap_or_else(|| panic!("the documentation of `{name}` begins with its name: {joined:?}"))
        .to_owned()
}

/// The manual page.
pub(crate) fn page(keys: &[Key], about: &Configuration, date: &str) -> String {
    let mut page = text::title(about.name, 5, date);
    text::name(&mut page, about.name, about.purpose);
    text::heading(&mut page, "DESCRIPTION");
    text::paragraphs(&mut page, about.description);
    text::heading(&mut page, about.keys_heading);
    text::paragraphs(&mut page, about.keys_introduction);
    described(&mut page, keys);
    for key in keys {
        if let Shown::Section(keys) = key.shown {
            text::heading(&mut page, &format!("SECTION [{}]", spelled(key)));
            text::paragraphs(&mut page, &[&capital(&said(key))]);
            described(&mut page, keys);
        }
    }
    text::sections(&mut page, about.sections);
    text::folded(&page)
}

fn described(page: &mut String, keys: &[Key]) {
    for key in keys {
        if let Shown::Value(value) = key.shown {
            text::tagged(
                page,
                &format!("{} = {value}", spelled(key)),
                &capital(&said(key)),
            );
        }
    }
}

/// The file: whoever takes the first `#` of a line away sets that key to what it is without it.
pub(crate) fn commented(keys: &[Key], about: &Configuration) -> String {
    let mut file = String::new();
    for paragraph in about.file_introduction {
        comment(&mut file, paragraph);
    }
    file.push('\n');
    file.push_str(about.file_start);
    settings(&mut file, keys);
    for key in keys {
        if let Shown::Section(keys) = key.shown {
            comment(&mut file, &capital(&said(key)));
            let _ = writeln!(file, "[{}]\n", spelled(key));
            settings(&mut file, keys);
        }
    }
    file.truncate(file.trim_end().len());
    file.push('\n');
    file
}

fn settings(file: &mut String, keys: &[Key]) {
    for key in keys {
        if let Shown::Value(value) = key.shown {
            comment(file, &capital(&said(key)));
            let _ = writeln!(file, "#{} = {value}\n", spelled(key));
        }
    }
}

fn comment(file: &mut String, paragraph: &str) {
    let mut line = String::from("#");
    for word in paragraph.split(' ') {
        if line.len() + 1 + word.len() > COLUMNS {
            let _ = writeln!(file, "{line}");
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(file, "{line}");
}

/// The first letter large: a doc comment goes on after the name of its key, a paragraph begins.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use driftmark_agent::config::{Config, Surroundings};
    use driftmark_collector::config::Flags;

    use super::*;
    use crate::pages;

    /// With every key set.
    fn uncommented(file: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key.to_owned(),
            _ => line.to_owned(),
        };
        file.lines().map(|text| line(text) + "\n").collect()
    }

    fn both(file: &str, check: impl Fn(&Path, &str)) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("default.toml");
        let set = uncommented(file);
        assert_ne!(set, file, "something is set");
        for text in [file, &set] {
            std::fs::write(&path, text).unwrap();
            check(&path, text);
        }
    }

    #[test]
    fn the_agents_default_configuration_is_accepted_as_it_is_and_with_every_key_set() {
        let keys = driftmark_agent::config::Written::KEYS;
        both(
            &commented(keys, &pages::AGENT_CONFIGURATION),
            |path, text| {
                let written = driftmark_agent::config::read_file(path)
                    .unwrap_or_else(|error| panic!("{error:?}\n{text}"));
                Config::check(written, &Surroundings::default())
                    .unwrap_or_else(|error| panic!("{error:?}\n{text}"));
            },
        );
    }

    #[test]
    fn the_collectors_default_configuration_is_accepted_as_it_is_and_with_every_key_set() {
        let keys = driftmark_collector::config::Written::KEYS;
        both(
            &commented(keys, &pages::COLLECTOR_CONFIGURATION),
            |path, text| {
                let loaded = driftmark_collector::config::load(Some(path), Flags::default());
                loaded.unwrap_or_else(|error| panic!("{error:?}\n{text}"));
            },
        );
    }

    #[test]
    fn the_example_of_a_fleets_file_is_accepted_as_it_is_and_with_every_key_set() {
        let keys = driftmark_collector::policy::written::Section::KEYS;
        both(&commented(keys, &pages::FLEETS), |path, text| {
            driftmark_collector::policy::Fleets::load(path)
                .unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        });
    }

    #[test]
    fn every_page_names_every_key() {
        fn names(keys: &[Key]) -> Vec<String> {
            let nested = |key: &Key| match key.shown {
                Shown::Value(_) => vec![spelled(key)],
                Shown::Section(keys) => names(keys),
            };
            keys.iter().flat_map(nested).collect()
        }
        let tables = [
            (
                driftmark_agent::config::Written::KEYS,
                &pages::AGENT_CONFIGURATION,
            ),
            (
                driftmark_collector::config::Written::KEYS,
                &pages::COLLECTOR_CONFIGURATION,
            ),
            (
                driftmark_collector::policy::written::Section::KEYS,
                &pages::FLEETS,
            ),
        ];
        for (keys, about) in tables {
            let page = page(keys, about, "2026-01-01");
            for name in names(keys) {
                let tag = format!("\\fB{} = ", name.replace('-', "\\-"));
                assert!(
                    page.contains(&tag),
                    "{} does not describe {name}",
                    about.name
                );
            }
        }
    }
}
