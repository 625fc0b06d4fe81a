//! Receives paths that differ from instance to instance; hands on the pattern that generalises what differs, alone.
//!
//! A name is cut at everything that is no letter or digit. A piece that looks like an id (a number, hexadecimal digits,
//! random letters and digits) may differ; everything else must be the same. Where the pieces that differ have the same
//! length the pattern has as many `?`, else a `*`; neither crosses a `/`.

use drift::TreePath;
use drift::glob::Pattern;

/// More pieces of one path that differ are not ids but a tree of somebody's own.
const MAX_VARYING: usize = 8;
/// From this many hexadecimal digits on a piece may be an id; fewer are words and numbers.
const MIN_HEXADECIMAL: usize = 4;
/// `mkstemp(3)` and `mktemp(1)` put six letters and digits.
const MIN_RANDOM: usize = 6;

/// What paths have in common that differ in nothing but ids.
pub(super) fn key(path: &TreePath) -> Vec<u8> {
    let mut key = Vec::new();
    for piece in pieces(path.as_bytes()) {
        if is_id(piece) {
            key.push(0);
        } else {
            key.extend_from_slice(piece);
        }
    }
    key
}

/// The pattern of paths of one key; none if too much of them differs, or not even their first two names agree.
pub(super) fn pattern(paths: &[&TreePath]) -> Option<Pattern> {
    let (first, rest) = paths.split_first()?;
    let rest: Vec<Vec<&[u8]>> = rest.iter().map(|path| pieces(path.as_bytes())).collect();
    let mut spelled = vec![b'/'];
    let mut varying = 0;
    for (nth, piece) in pieces(first.as_bytes()).into_iter().enumerate() {
        let others = || rest.iter().map(|pieces| pieces[nth]);
        if others().all(|other| other == piece) {
            spelled.extend(escaped(piece));
            continue;
        }
        varying += 1;
        if spelled.iter().filter(|&&byte| byte == b'/').count() < 3 {
            return None;
        }
        if others().all(|other| other.len() == piece.len()) {
            spelled.extend(std::iter::repeat_n(b'?', piece.len()));
        } else {
            spelled.push(b'*');
        }
    }
    let fits = (1..=MAX_VARYING).contains(&varying);
    fits.then(|| Pattern::new(&spelled).ok())?
}

/// The pattern that matches this path alone.
pub(super) fn exact(path: &TreePath) -> Option<Pattern> {
    let mut spelled = vec![b'/'];
    spelled.extend(escaped(path.as_bytes()));
    Pattern::new(&spelled).ok()
}

fn escaped(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(|&byte| {
        let special = matches!(byte, b'*' | b'?' | b'\\');
        special.then_some(b'\\').into_iter().chain([byte])
    })
}

/// Runs of letters and digits, and each other byte by itself.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    bytes
        .chunk_by(|a, b| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        .collect()
}

fn is_id(piece: &[u8]) -> bool {
    let has = |what: fn(&u8) -> bool| piece.iter().any(what);
    let all = |what: fn(&u8) -> bool| piece.iter().all(what);
    let mixed = (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic))
        || (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase));
    all(u8::is_ascii_digit)
        || (all(u8::is_ascii_hexdigit) && piece.len() >= MIN_HEXADECIMAL)
        || (all(u8::is_ascii_alphanumeric) && mixed && piece.len() >= MIN_RANDOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Option<String> {
        let paths: Vec<TreePath> = paths
            .iter()
            .map(|path| TreePath::new(path.as_bytes()).unwrap())
            .collect();
        assert!(
            paths.iter().all(|path| key(path) == key(&paths[0])),
            "{paths:?}"
        );
        let paths: Vec<&TreePath> = paths.iter().collect();
        pattern(&paths).map(|pattern| pattern.to_string())
    }

    #[test]
    fn what_differs_is_generalised_and_nothing_else() {
        let cases: [(&[&str], Option<&str>); 7] = [
            (
                &["/var/lib/a/0123abcd/x", "/var/lib/a/89abcdef/x"],
                Some("/var/lib/a/????????/x"),
            ),
            (
                &["/var/lib/a/7.log", "/var/lib/a/12.log"],
                Some("/var/lib/a/*.log"),
            ),
            (
                &[
                    "/etc/net/550e8400-e29b-41d4-a716-446655440000.conf",
                    "/etc/net/6ba7b810-9dad-11d1-80b4-00c04fd430c8.conf",
                ],
                Some("/etc/net/????????-????-????-????-????????????.conf"),
            ),
            (
                &["/var/tmp/job-Rw4p2b", "/var/tmp/job-aB3dE9"],
                Some("/var/tmp/job-??????"),
            ),
            (
                &["/var/lib/a*b/11", "/var/lib/a*b/22"],
                Some("/var/lib/a\\*b/??"),
            ),
            // Too little in common.
            (&["/var/11", "/var/22"], None),
            (&["/var/lib/same", "/var/lib/same"], None),
        ];
        for (paths, expected) in cases {
            assert_eq!(of(paths).as_deref(), expected, "{paths:?}");
        }
    }

    #[test]
    fn words_are_no_ids() {
        for (a, b) in [
            ("/var/lib/cat", "/var/lib/dog"),
            ("/var/lib/a-b", "/var/lib/ab"),
        ] {
            let path = |text: &str| key(&TreePath::new(text.as_bytes()).unwrap());
            assert_ne!(path(a), path(b));
        }
    }
}
