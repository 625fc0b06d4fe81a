//! Receives the values that an image leaves open; fixes the first ones, and raises drift where later ones differ.
//!
//! Only an append-only file may come later: it is fixed when it does.

use drift::finding::{Drift, DriftKind};
use drift::report::HeldValue;
use rusqlite::Transaction;

use super::raised;
use crate::instance::Instance;
use crate::store::drifts::{self, First, Source};

/// Held values of one instance that are fixed: far more than any image leaves open.
pub(super) const MAX_HELD: usize = 100_000;

/// What a later value is to the first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// The same, or, of an append-only file, a continuation of it.
    Same,
    /// A longer append-only file whose beginning nobody looked at: the agent lost what it remembered. A gap, not drift.
    Unproven,
    /// Something else.
    Broken(String),
}

/// What a later set is to the first.
#[derive(Debug, Default)]
struct Compared<'v> {
    drifts: Vec<Drift>,
    /// How many values are unproven.
    unproven: u64,
    /// Append-only files that are there for the first time, to be held from now on.
    begun: Vec<&'v HeldValue>,
}

/// Fixes or compares a whole set; whether what is open may have changed.
pub(super) fn check(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    mut values: Vec<HeldValue>,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    values.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    values.dedup_by(|a, b| a.path == b.path);
    if !instance.held_fixed {
        for value in values.iter().take(MAX_HELD) {
            drifts::hold(tx, instance.row, value)?;
        }
        instance.held_fixed = true;
        return Ok(false);
    }
    let first = drifts::held(tx, instance.row)?;
    let room = MAX_HELD.saturating_sub(first.len());
    let Compared {
        drifts,
        unproven,
        begun,
    } = compare(&first, &values, room);
    instance.held_unproven = unproven;
    for value in begun {
        drifts::hold(tx, instance.row, value)?;
    }
    raised::settle(tx, instance.row, Source::Held, &drifts, now_ms)
}

/// Merges two sets in the order of their paths' bytes; `room` is how many paths more can be held.
fn compare<'v>(first: &[First], later: &'v [HeldValue], room: usize) -> Compared<'v> {
    let mut compared = Compared::default();
    let mut later = later.iter().peekable();
    for first in first {
        let bytes = first.path.as_bytes();
        while let Some(new) = later.next_if(|value| value.path.as_bytes() < bytes) {
            compared.meet(new, room);
        }
        match later.next_if(|value| value.path == first.path) {
            None => compared.drifts.push(raised::drift(
                first.path.clone(),
                DriftKind::Removed,
                "it was held and is gone".to_owned(),
            )),
            Some(value) => match sight(first, value) {
                Sight::Same => {}
                Sight::Unproven => compared.unproven += 1,
                Sight::Broken(detail) => {
                    let path = first.path.clone();
                    let drift = raised::drift(path, DriftKind::Changed, detail);
                    compared.drifts.push(drift);
                }
            },
        }
    }
    for new in later {
        compared.meet(new, room);
    }
    compared.drifts.truncate(drifts::ROWS as usize);
    compared
}

impl<'v> Compared<'v> {
    /// A path that was not held: an append-only file (it alone has a length) may appear, and is held from now on.
    fn meet(&mut self, new: &'v HeldValue, room: usize) {
        let may_appear = new.length.is_some() && new.value.is_some();
        if may_appear && self.begun.len() < room {
            self.begun.push(new);
            return;
        }
        let detail = match may_appear {
            true => {
                "it may appear, but this instance has as many held values as the collector keeps"
            }
            false => "it was not there when this instance was first verified",
        };
        let drift = raised::drift(new.path.clone(), DriftKind::Added, detail.to_owned());
        self.drifts.push(drift);
    }
}

fn sight(first: &First, later: &HeldValue) -> Sight {
    if first.value == later.value && first.length == later.length {
        return Sight::Same;
    }
    let shown = |value: Option<drift::Blake3>| {
        value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
    };
    let broken = || {
        Sight::Broken(format!(
            "it was {} at first, and is {}",
            shown(first.value),
            shown(later.value)
        ))
    };
    let (Some(first_length), Some(length)) = (first.length, later.length) else {
        return broken();
    };
    if later.value.is_none() || length < first_length {
        return Sight::Broken(format!(
            "it may only grow, and went from {first_length} to {length} bytes"
        ));
    }
    match &later.prefix {
        Some(prefix) if prefix.length == first_length && prefix.digest == first.value => {
            Sight::Same
        }
        Some(prefix) if prefix.length == first_length => Sight::Broken(format!(
            "it may only grow, and its first {first_length} bytes changed"
        )),
        _ if length == first_length => broken(),
        _ => Sight::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drift::report::HeldPrefix;
    use drift::{Blake3, TreePath};

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn first(text: &str, value: &[u8], length: Option<u64>) -> First {
        First {
            path: path(text),
            value: Some(Blake3::of(value)),
            length,
        }
    }

    fn later(
        text: &str,
        value: &[u8],
        length: Option<u64>,
        prefix: Option<(u64, &[u8])>,
    ) -> HeldValue {
        let prefix = prefix.map(|(length, bytes)| HeldPrefix {
            length,
            digest: Some(Blake3::of(bytes)),
        });
        HeldValue {
            path: path(text),
            value: Some(Blake3::of(value)),
            length,
            prefix,
        }
    }

    #[test]
    fn a_later_value_is_the_first_or_it_is_drift() {
        let held = first("etc/machine-id", b"one", None);
        assert_eq!(
            sight(&held, &later("etc/machine-id", b"one", None, None)),
            Sight::Same
        );
        assert!(matches!(
            sight(&held, &later("etc/machine-id", b"two", None, None)),
            Sight::Broken(_)
        ));
    }

    #[test]
    fn an_append_only_file_may_grow_and_nothing_else() {
        let log = first("var/log/auth", b"abc", Some(3));
        let cases = [
            (
                later("var/log/auth", b"abc", Some(3), None),
                Some(Sight::Same),
            ),
            (
                later("var/log/auth", b"abcd", Some(4), Some((3, b"abc"))),
                Some(Sight::Same),
            ),
            (
                later("var/log/auth", b"abcd", Some(4), None),
                Some(Sight::Unproven),
            ),
            (
                later("var/log/auth", b"abcdef", Some(6), Some((5, b"abcde"))),
                Some(Sight::Unproven),
            ),
            (
                later("var/log/auth", b"xbcd", Some(4), Some((3, b"xbc"))),
                None,
            ),
            (later("var/log/auth", b"ab", Some(2), None), None),
            (later("var/log/auth", b"xyz", Some(3), None), None),
        ];
        for (value, expected) in cases {
            let found = sight(&log, &value);
            match expected {
                Some(expected) => assert_eq!(found, expected, "{value:?}"),
                None => assert!(matches!(found, Sight::Broken(_)), "{value:?}"),
            }
        }
    }

    #[test]
    fn a_new_and_a_missing_path_are_each_drift() {
        let held = [
            first("a", b"1", None),
            first("c", b"1", None),
            first("d", b"1", None),
        ];
        let now = [
            later("b", b"1", None, None),
            later("c", b"1", None, None),
            later("e", b"1", None, None),
        ];
        let compared = compare(&held, &now, 10);
        let found: Vec<_> = compared
            .drifts
            .iter()
            .map(|it| {
                (
                    it.path.to_text().trim_start_matches('/').to_owned(),
                    it.kind.word().to_owned(),
                )
            })
            .collect();
        let expected = [
            ("a", "removed"),
            ("b", "added"),
            ("d", "removed"),
            ("e", "added"),
        ]
        .map(|(p, k)| (p.to_owned(), k.to_owned()));
        assert_eq!(
            (found.as_slice(), compared.unproven, compared.begun.len()),
            (expected.as_slice(), 0, 0)
        );
    }

    #[test]
    fn an_append_only_file_may_come_later_while_there_is_room_to_hold_it() {
        let held = [first("b", b"1", None)];
        let now = [
            later("a", b"1", Some(1), None),
            later("b", b"1", None, None),
            later("c", b"", Some(0), None),
        ];
        for (room, begun, raised) in [(2, 2, 0), (1, 1, 1), (0, 0, 2)] {
            let compared = compare(&held, &now, room);
            let counts = (compared.begun.len(), compared.drifts.len());
            assert_eq!(counts, (begun, raised), "{room}");
        }
    }
}
