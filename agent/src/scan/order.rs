//! A part of the manifest in, when its turn is out: what runs at boot, and what says how, comes first.

use drift::TreePath;
use drift::manifest::Part;

/// Configuration and programs, then what programs load, then all else. A link of a merged `/usr` (`/bin`) is a part of what
/// it lies in.
const FIRST: [&[u8]; 7] = [
    b"bin",
    b"boot",
    b"etc",
    b"sbin",
    b"usr/bin",
    b"usr/local",
    b"usr/sbin",
];
const SECOND: [&[u8]; 5] = [b"lib", b"lib64", b"usr/lib", b"usr/lib64", b"usr/libexec"];

/// The lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    First,
    Second,
    Later,
}

/// When the turn of a part is: that of the first directory, at or below which it has paths.
pub(super) fn rank(part: &Part) -> Rank {
    let has_any = |directories: &[&[u8]]| directories.iter().any(|directory| has(part, directory));
    if has_any(&FIRST) {
        Rank::First
    } else if has_any(&SECOND) {
        Rank::Second
    } else {
        Rank::Later
    }
}

fn has(part: &Part, directory: &[u8]) -> bool {
    let Ok(directory) = TreePath::new(directory) else {
        return false;
    };
    let begins_by_then = |start: &TreePath| *start <= directory || start.is_within(&directory);
    part.start.as_ref().is_none_or(begins_by_then)
        && part.end.as_ref().is_none_or(|end| *end > directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: Option<&str>, end: Option<&str>) -> Part {
        let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
        Part::between(start.map(path), end.map(path))
    }

    #[test]
    fn a_part_comes_when_the_first_of_what_it_has_does() {
        for (start, end, expected) in [
            (None, None, Rank::First),
            (None, Some("bin"), Rank::Later),
            (None, Some("bin/a"), Rank::First),
            (Some("etc/ssl"), Some("etc/x11"), Rank::First),
            (Some("etc/zz"), Some("home"), Rank::First),
            (Some("home"), Some("lib"), Rank::Later),
            (Some("home"), Some("lib64"), Rank::Second),
            (
                Some("usr/lib/modules"),
                Some("usr/lib/modules/6"),
                Rank::Second,
            ),
            (Some("usr/lib/z"), Some("usr/local"), Rank::Second),
            (Some("usr/lib/z"), Some("usr/local/bin"), Rank::First),
            (Some("usr/share"), Some("var"), Rank::Later),
            (Some("usr/binaries"), Some("usr/c"), Rank::Later),
            (Some("var"), None, Rank::Later),
        ] {
            assert_eq!(rank(&part(start, end)), expected, "{start:?} {end:?}");
        }
    }
}
