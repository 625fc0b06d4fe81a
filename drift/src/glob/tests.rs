//! Receives patterns and paths; holds matching and inclusion to a naive matcher.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::new(text.as_bytes()).unwrap()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// The definition, by brute force.
fn naive(tokens: &[Token], path: &[u8]) -> bool {
    match (tokens.first(), path.first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(Token::Byte(b)), Some(c)) => b == c && naive(&tokens[1..], &path[1..]),
        (Some(Token::One), Some(c)) => *c != b'/' && naive(&tokens[1..], &path[1..]),
        (Some(Token::Byte(_) | Token::One), None) => false,
        (Some(wild), c) => {
            naive(&tokens[1..], path)
                || c.is_some_and(|&c| {
                    (c != b'/' || *wild == Token::Across) && naive(tokens, &path[1..])
                })
        }
    }
}

#[test]
fn wildcards_stop_where_they_should() {
    let cases = [
        ("/", "/", true),
        ("/", "/a", false),
        ("/*", "/", false),
        ("/**", "/", false),
        ("/**", "/a/b", true),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/b/c", false),
        ("/a/*", "/a", false),
        ("/a/**", "/a/b/c", true),
        ("/a/?", "/a/b", true),
        ("/a?b", "/a/b", false),
        ("/**/*.pyc", "/usr/lib/x.pyc", true),
        ("/**/*.pyc", "/x.pyc", false),
        ("/**.pyc", "/x.pyc", true),
        ("/a\\*", "/a*", true),
        ("/a\\*", "/ab", false),
        ("/[ab]", "/a", false),
        ("/[ab]", "/[ab]", true),
        ("/{a,b}", "/{a,b}", true),
    ];
    for (text, name, expected) in cases {
        assert_eq!(
            pattern(text).matches(&path(name)),
            expected,
            "{text} on {name}"
        );
    }
}

#[test]
fn what_is_not_a_pattern_is_refused_by_its_reason() {
    let long = format!("/{}", "a".repeat(Pattern::MAX_BYTES));
    let cases = [
        ("", BadPattern::Empty),
        ("etc", BadPattern::Relative),
        ("/a//b", BadPattern::Component),
        ("//", BadPattern::Component),
        ("/a/", BadPattern::Component),
        ("/a/../b", BadPattern::Component),
        ("/a/.\\./b", BadPattern::Component),
        ("/./a", BadPattern::Component),
        ("/a\\", BadPattern::Escape),
        ("/a\0", BadPattern::Nul),
        ("/\\\0", BadPattern::Nul),
        (long.as_str(), BadPattern::TooLong),
    ];
    for (text, reason) in cases {
        assert_eq!(Pattern::new(text.as_bytes()), Err(reason), "{text:?}");
    }
}

#[test]
fn spelling_is_canonical() {
    assert_eq!(pattern("/\\a***\\*").as_bytes(), b"/a**\\*");
    assert_eq!(pattern("/\\a").as_bytes(), b"/a");
}

#[test]
fn a_hostile_pattern_is_slow_for_nobody() {
    let hostile = pattern(&format!("/{}b", "*a".repeat(2000)));
    assert!(!hostile.matches(&path(&"a".repeat(TreePath::MAX_BYTES))));
    assert!(!hostile.includes(&pattern(&format!("/{}", "a*".repeat(2000)))));
}

#[test]
fn inclusion_of_known_pairs() {
    let cases = [
        ("/**", "/a/*", true, true),
        ("/*", "/**", false, true),
        ("/", "/**", false, true),
        ("/", "/a", false, true),
        ("/a/*", "/a/b", true, true),
        ("/a/b", "/a/*", false, false),
        ("/a/**", "/a", false, false),
        ("/a", "/a/**", false, true),
        ("/a*", "/a?", true, true),
        ("/a?*", "/a*", false, false),
        ("/?*", "/*", true, true),
        ("/**/b", "/*/b", true, true),
        ("/*/b", "/**/b", false, false),
        ("/var/log", "/var/log/*.log", false, true),
        ("/var/lo?", "/var/log/x", false, true),
        ("/a**", "/a/**", true, true),
        ("/**a**", "/*a*", true, true),
    ];
    for (outer, inner, includes, below) in cases {
        let (outer, inner) = (pattern(outer), pattern(inner));
        assert_eq!(outer.includes(&inner), includes, "{outer} includes {inner}");
        assert_eq!(
            outer.includes_below(&inner),
            below,
            "{outer} includes below {inner}"
        );
    }
}

fn patterns() -> impl Strategy<Value = Pattern> {
    "/[ab/*?]{0,7}".prop_filter_map("not a pattern", |text| Pattern::new(text.as_bytes()).ok())
}

fn paths() -> impl Strategy<Value = TreePath> {
    "[abc/]{0,8}".prop_filter_map("not a path", |text| TreePath::new(text.as_bytes()).ok())
}

/// Every path of up to `depth` bytes over a, b, c and `/`.
fn every_path(depth: usize) -> Vec<TreePath> {
    let mut texts = vec![Vec::new()];
    let mut all = Vec::new();
    for _ in 0..=depth {
        all.extend(texts.iter().filter_map(|text: &Vec<u8>| {
            let path = TreePath::new(text).ok()?;
            (path.as_bytes() == text).then_some(path)
        }));
        texts = texts
            .iter()
            .flat_map(|text| b"abc/".map(|byte| [&text[..], &[byte]].concat()))
            .collect();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn matching_agrees_with_the_definition(pattern in patterns(), path in paths()) {
        let expected = if path.is_root() { pattern.tokens.is_empty() } else { naive(&pattern.tokens, path.as_bytes()) };
        prop_assert_eq!(pattern.matches(&path), expected);
        let mut ancestors = std::iter::successors(path.parent(), TreePath::parent);
        let contains = ancestors.any(|ancestor| pattern.matches(&ancestor));
        prop_assert_eq!(pattern.contains(&path), contains);
        prop_assert_eq!(pattern.matches_or_contains(&path), contains || expected);
    }

    #[test]
    fn a_match_is_always_announced_to_the_directories_above_it(pattern in patterns(), path in paths()) {
        if pattern.matches(&path) {
            for ancestor in std::iter::successors(path.parent(), TreePath::parent) {
                prop_assert!(pattern.may_match_below(&ancestor), "{} below {}", pattern, ancestor);
            }
        }
    }

    #[test]
    fn spelling_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(pattern) = Pattern::new(&[b"/", &bytes[..]].concat()) {
            prop_assert_eq!(Pattern::new(pattern.as_bytes()), Ok(pattern));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn inclusion_agrees_with_every_short_path(outer in patterns(), inner in patterns()) {
        let matched: Vec<_> = every_path(6).into_iter().filter(|path| inner.matches(path)).collect();
        if outer.includes(&inner) {
            prop_assert!(matched.iter().all(|path| outer.matches(path)), "{} includes {}", outer, inner);
        }
        if outer.includes_below(&inner) {
            prop_assert!(matched.iter().all(|path| outer.matches_or_contains(path)), "{} includes {}", outer, inner);
        }
    }
}
