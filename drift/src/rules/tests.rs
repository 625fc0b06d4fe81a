//! Receives rule files and encodings; holds them to order, errors and canonical bytes.

use proptest::prelude::*;

use super::*;
use crate::TreePath;
use crate::entry::{AttributeSet, Kind};
use crate::glob::BadPattern;

fn file(text: &str) -> RuleFile {
    RuleFile::parse("test.toml", text).unwrap()
}

fn rules(text: &str) -> Rules {
    Rules::build(vec![file(text)], Vec::new()).unwrap().rules
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn one(rule_type: &str, path: &str) -> String {
    format!("[[rule]]\ntype = \"{rule_type}\"\npath = '{path}'\n")
}

#[test]
fn every_type_is_read_by_its_word() {
    for rule_type in RuleType::ALL {
        let text = match rule_type {
            RuleType::Shape(shape) => format!("{}shape = \"{}\"", one("shape", "/a"), shape.word()),
            _ => one(rule_type.word(), "/a"),
        };
        assert_eq!(rules(&text).as_slice()[0].rule_type, rule_type, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let texts = [
        one("sometimes", "/a"),
        one("volatile", "/a") + "when = \"always\"",
        one("volatile", "/a") + "type = \"absent\"",
        "[[rules]]\ntype = \"volatile\"\npath = \"/a\"".to_owned(),
        "[[rule]]\npath = \"/a\"".to_owned(),
        one("shape", "/a") + "shape = \"round\"",
    ];
    for text in texts {
        assert!(
            matches!(RuleFile::parse("f", &text), Err(BadRuleFile::Syntax { .. })),
            "{text}"
        );
    }
    let texts = [
        one("shape", "/a"),
        one("volatile", "/a") + "shape = \"machine-id\"",
        one("volatile", "/a") + "paths = [\"/b\"]",
        "[[rule]]\ntype = \"volatile\"\npaths = []".to_owned(),
        "[[rule]]\ntype = \"volatile\"".to_owned(),
    ];
    for text in texts {
        assert!(
            matches!(
                RuleFile::parse("f", &text),
                Err(BadRuleFile::Keys { number: 1, .. })
            ),
            "{text}"
        );
    }
}

#[test]
fn a_bad_pattern_is_named_with_its_file_and_rule() {
    let text = one("volatile", "/a") + &one("absent", "/b/../c");
    let error = RuleFile::parse("image.toml", &text).unwrap_err();
    assert_eq!(error.to_string(), "rule 2 of image.toml: path \"/b/../c\"");
    assert!(matches!(
        error,
        BadRuleFile::Pattern {
            source: BadPattern::Component,
            ..
        }
    ));
}

#[test]
fn a_rule_names_its_program_or_its_file_does() {
    let text = "with = \"/usr/bin/a\"\n".to_owned()
        + &one("volatile", "/a")
        + &one("volatile", "/b")
        + "with = \"/usr/bin/b\"\n";
    let with = file(&text).rules.into_iter().map(|rule| rule.with);
    assert_eq!(
        with.collect::<Vec<_>>(),
        [Some(path("/usr/bin/a")), Some(path("/usr/bin/b"))]
    );
    assert_eq!(file(&one("volatile", "/a")).rules[0].with, None);
    for bad in ["", "/", "usr/bin/a", "/usr/../a", "/usr//a"] {
        let text = format!("with = {bad:?}\n{}", one("volatile", "/a"));
        assert!(
            matches!(RuleFile::parse("f", &text), Err(BadRuleFile::With { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn a_rule_that_allows_everything_is_refused() {
    for (rule_type, pattern) in [
        ("volatile", "/"),
        ("volatile", "/*"),
        ("volatile", "/?*"),
        ("volatile", "/**"),
        ("first-boot", "/**"),
        ("content", "/?**"),
        ("absent", "/**?"),
        ("covered", "/***"),
    ] {
        let built = Rules::build(vec![file(&one(rule_type, pattern))], Vec::new());
        assert!(
            matches!(built, Err(RulesError::Everything(_))),
            "{rule_type} {pattern}"
        );
    }
    assert!(Rules::build(vec![file(&one("absent", "/*"))], Vec::new()).is_ok());
}

#[test]
fn a_rule_with_nothing_left_is_an_error_in_its_file_and_a_note_in_a_later_one() {
    let shadowing = [
        (one("volatile", "/var"), one("absent", "/var/log/x")),
        (one("volatile", "/var/*"), one("volatile", "/var/log/**")),
        (one("absent", "/a"), one("content", "/a")),
        (one("content", "/a/**"), one("content", "/a/*/b")),
    ];
    for (earlier, later) in shadowing {
        let together = Rules::build(vec![file(&(earlier.clone() + &later))], Vec::new());
        assert!(
            matches!(together, Err(RulesError::Shadowed { .. })),
            "{earlier}{later}"
        );
        let apart = Rules::build(vec![file(&earlier)], vec![file(&later)]).unwrap();
        assert_eq!(
            (apart.rules.len(), apart.notes.len()),
            (1, 1),
            "{earlier}{later}"
        );
        assert_eq!(apart.notes[0].dropped.origin, Origin::Distribution);
    }
    for (earlier, later) in [
        (one("absent", "/var/log/x"), one("volatile", "/var")),
        (one("covered", "/tmp"), one("volatile", "/tmp")),
    ] {
        assert_eq!(rules(&(earlier + &later)).len(), 2);
    }
}

#[test]
fn the_first_match_wins_and_volatile_reaches_below() {
    let rules = rules(
        &[
            one("content", "/var/log/held"),
            one("volatile", "/var/log"),
            one("absent", "/var/*"),
            one("absent", "/etc/x"),
        ]
        .concat(),
    );
    let first = |text: &str| rules.first_match(&path(text)).map(|(nth, _)| nth);
    assert_eq!(first("/var/log/held"), Some(0));
    assert_eq!(first("/var/log"), Some(1));
    assert_eq!(first("/var/log/a/b"), Some(1));
    assert_eq!(first("/var/cache"), Some(2));
    assert_eq!(first("/var/cache/x"), None);
    assert_eq!(first("/etc/x"), Some(3));
    assert_eq!(first("/"), None);
    assert!(rules.is_volatile_root(&path("/var/log")) && !rules.below_volatile(&path("/var/log")));
    assert!(
        rules.below_volatile(&path("/var/log/a")) && !rules.is_volatile_root(&path("/var/log/a"))
    );
    assert!(!rules.below_volatile(&path("/var/log/held")));
    assert!(rules.descend(&path("/var/log")), "a held file is below");
    assert!(!rules.descend(&path("/var/log/a")));
    assert!(rules.descend(&path("/var")));
}

#[test]
fn a_mount_point_that_is_covered_and_volatile_is_not_entered() {
    let rules = rules(&[one("covered", "/proc"), one("volatile", "/proc")].concat());
    let kind = Kind::Directory;
    assert!(rules.allowance(&path("/proc"), kind).covered);
    assert_eq!(rules.allowance(&path("/proc/1"), kind), Allowance::ALL);
    assert!(!rules.descend(&path("/proc")));
}

#[test]
fn below_a_wildcard_root_only_the_first_directory_is_the_root() {
    let rules = rules(&one("volatile", "/var/cache/**"));
    assert!(rules.is_volatile_root(&path("/var/cache/a")));
    assert!(rules.below_volatile(&path("/var/cache/a/b")));
    assert!(rules.descend(&path("/var/cache")));
    assert!(!rules.descend(&path("/var/cache/a")));
}

#[test]
fn each_type_allows_what_it_says() {
    let rules = rules(
        &[
            one("volatile", "/v"),
            one("first-boot", "/f"),
            one("append-only", "/p"),
            one("content", "/c"),
            one("absent", "/a"),
            one("covered", "/m"),
        ]
        .concat(),
    );
    let content = AttributeSet::of(&[
        crate::entry::Attribute::Size,
        crate::entry::Attribute::Content,
    ]);
    let cases = [
        ("/v/x", Kind::File, Allowance::ALL),
        (
            "/v",
            Kind::Directory,
            Allowance {
                appear: true,
                ..Allowance::NONE
            },
        ),
        (
            "/v",
            Kind::File,
            Allowance {
                covered: false,
                ..Allowance::ALL
            },
        ),
        (
            "/f",
            Kind::File,
            Allowance {
                covered: false,
                ..Allowance::ALL
            },
        ),
        (
            "/p",
            Kind::File,
            Allowance {
                appear: true,
                attributes: content,
                ..Allowance::NONE
            },
        ),
        (
            "/c",
            Kind::File,
            Allowance {
                attributes: content,
                ..Allowance::NONE
            },
        ),
        (
            "/a",
            Kind::File,
            Allowance {
                go: true,
                ..Allowance::NONE
            },
        ),
        (
            "/m",
            Kind::Directory,
            Allowance {
                covered: true,
                ..Allowance::NONE
            },
        ),
        ("/m/x", Kind::File, Allowance::NONE),
        ("/f/x", Kind::File, Allowance::NONE),
    ];
    for (text, kind, expected) in cases {
        assert_eq!(rules.allowance(&path(text), kind), expected, "{text}");
    }
}

#[test]
fn decoding_refuses_what_encoding_does_not_make() {
    let cases: [(&[u8], BadRules); 9] = [
        (b"", BadRules::Malformed),
        (b"\x01", BadRules::Malformed),
        (b"\x01\x00\x05/a", BadRules::Malformed),
        (b"\x01\x09\x02/a", BadRules::UnknownType(9)),
        (b"\x01\x00\x03/\\a", BadRules::Spelling(1)),
        (b"\x01\x00\x02/*", BadRules::Everything(1)),
        (b"\x00\x00", BadRules::Trailing),
        (b"\x01\x00\x82\x00/a", BadRules::Malformed),
        (b"\xff\xff\x03", BadRules::TooMany),
    ];
    for (bytes, error) in cases {
        assert_eq!(Rules::decode(bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn the_encoding_stays_what_it_is() {
    let mut bytes = Vec::new();
    rules(&[one("covered", "/tmp"), one("volatile", "/tmp")].concat()).encode(&mut bytes);
    assert_eq!(bytes, b"\x02\x05\x04/tmp\x00\x04/tmp");
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let rule = (0usize..9, "(/[ab*?]{1,2}){1,3}");
    prop::collection::vec(rule, 0..6).prop_map(|written| {
        let rules = written.into_iter().filter_map(|(nth, text)| {
            let rule = Rule {
                rule_type: RuleType::ALL[nth],
                pattern: Pattern::new(text.as_bytes()).ok()?,
            };
            (!rule.allows_everything()).then_some(rule)
        });
        Rules::from_checked(rules.collect())
    })
}

proptest! {
    #[test]
    fn rules_round_trip(rules in any_rules()) {
        let mut bytes = Vec::new();
        rules.encode(&mut bytes);
        prop_assert_eq!(Rules::decode(&bytes), Ok(rules));
    }

    #[test]
    fn decoding_never_panics_and_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(rules) = Rules::decode(&bytes) {
            let mut again = Vec::new();
            rules.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn lookup_is_the_definition(rules in any_rules(), text in "(/[ab]{1,2}){1,4}") {
        let path = path(&text);
        let expected = rules.as_slice().iter().position(|rule| match rule.rule_type {
            RuleType::Volatile => rule.pattern.matches_or_contains(&path),
            _ => rule.pattern.matches(&path),
        });
        prop_assert_eq!(rules.first_match(&path).map(|(nth, _)| nth), expected);
    }

    #[test]
    fn a_scope_narrowed_on_the_way_down_answers_as_all_rules_do(rules in any_rules(), text in "(/[ab]{1,2}){1,4}") {
        let path = path(&text);
        let mut scope = rules.scope();
        let mut above = TreePath::root();
        for name in path.components() {
            scope = scope.below(&above);
            let here = above.join(name).unwrap();
            prop_assert_eq!(scope.first_match(&here), rules.first_match(&here).map(|(_, rule)| rule));
            prop_assert_eq!(scope.descend(&here), rules.descend(&here));
            above = here;
        }
    }

    #[test]
    fn what_is_not_entered_is_volatile_throughout(rules in any_rules(), text in "(/[ab]{1,2}){1,2}", below in "(/[ab]{1,2}){1,2}") {
        if !rules.descend(&path(&text)) {
            prop_assert!(rules.below_volatile(&path(&(text + &below))));
        }
    }

    #[test]
    fn a_shadowed_rule_never_counts(rules in any_rules(), text in "(/[ab]{1,2}){1,4}") {
        let path = path(&text);
        if let Some((nth, rule)) = rules.first_match(&path) {
            prop_assert!(!rules.as_slice()[..nth].iter().any(|earlier| earlier.shadows(rule)));
        }
    }
}
