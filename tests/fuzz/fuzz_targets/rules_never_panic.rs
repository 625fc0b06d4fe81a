//! Rules as a manifest holds them and as people write them: read or refused, in one encoding, and asked about paths.
#![no_main]

use drift::TreePath;
use drift::entry::Kind;
use drift::rules::{RuleFile, Rules};
use libfuzzer_sys::fuzz_target;

/// Putting rules together compares each with each; what that costs is bounded for people, not for a fuzzer.
const MOST_RULES: usize = 6;

fuzz_target!(|data: &[u8]| {
    if let Ok(rules) = Rules::decode(data) {
        let mut again = Vec::new();
        rules.encode(&mut again);
        assert_eq!(again, data);
        ask(&rules, data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(file) = RuleFile::parse("fuzz", text)
        && file.rules.len() <= MOST_RULES
        && let Ok(built) = Rules::build(vec![file], Vec::new())
    {
        let mut encoded = Vec::new();
        built.rules.encode(&mut encoded);
        assert_eq!(Rules::decode(&encoded).expect("encoded here"), built.rules);
        ask(&built.rules, data);
    }
});

fn ask(rules: &Rules, data: &[u8]) {
    let names: Vec<&[u8]> = data
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .take(8)
        .collect();
    let Ok(path) = TreePath::new(&names.join(&b'/')) else {
        return;
    };
    let first = rules.first_match(&path).map(|(nth, _)| nth);
    let naive = rules
        .as_slice()
        .iter()
        .position(|rule| match rule.rule_type {
            drift::rules::RuleType::Volatile => rule.pattern.matches_or_contains(&path),
            _ => rule.pattern.matches(&path),
        });
    assert_eq!(first, naive);
    let _ = rules.allowance(&path, Kind::File);
    if rules.is_volatile_root(&path) {
        assert!(!rules.below_volatile(&path));
    }
    let _ = rules.descend(&path);
}
