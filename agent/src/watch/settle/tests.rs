//! Nothing that changed stays without a look; nothing that never rests is looked at all the time.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a path")
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn paths(looks: &[Look]) -> Vec<(String, Reach)> {
    looks
        .iter()
        .map(|look| (look.path.to_string(), look.reach))
        .collect()
}

#[test]
fn what_is_done_is_looked_at_at_once_and_once() {
    let mut settle = Settle::default();
    for change in [Change::Writing, Change::Writing, Change::Done, Change::Done] {
        settle.changed(path("/etc/passwd"), change, at(5));
    }
    assert_eq!(settle.next(), Some(at(5)));
    assert_eq!(
        paths(&settle.due(at(5))),
        [("/etc/passwd".into(), Reach::Itself)]
    );
    assert_eq!((settle.next(), settle.due(at(9999))), (None, Vec::new()));
}

#[test]
fn what_is_being_written_is_looked_at_when_it_rests_or_patience_ends() {
    let mut settle = Settle::default();
    settle.changed(path("/a"), Change::Writing, at(0));
    settle.changed(path("/a"), Change::Writing, at(40));
    assert!(settle.due(at(60)).is_empty());
    assert_eq!(settle.due(at(90)).len(), 1);
    let mut settle = Settle::default();
    let mut first = None;
    for now in (0..3000).step_by(10) {
        settle.changed(path("/a"), Change::Writing, at(now));
        if first.is_none() && !settle.due(at(now)).is_empty() {
            first = Some(now);
        }
    }
    assert_eq!(first, Some(1000));
}

#[test]
fn what_never_rests_is_looked_at_ever_more_rarely() {
    let mut settle = Settle::default();
    let mut looks = Vec::new();
    for now in 0..60_000 {
        settle.changed(path("/log"), Change::Done, at(now));
        if !settle.due(at(now)).is_empty() {
            looks.push(now);
        }
    }
    assert!((10..25).contains(&looks.len()), "{looks:?}");
    let last = looks.last().copied().expect("looks");
    assert!(60_000 - last <= 10_000);
    // It has rested for long enough: the next change is news.
    settle.due(at(80_000));
    settle.changed(path("/log"), Change::Done, at(200_000));
    assert_eq!(settle.due(at(200_000)).len(), 1);
    settle.changed(path("/log"), Change::Done, at(200_020));
    assert_eq!(settle.due(at(200_020)).len(), 1);
}

#[test]
fn a_directory_covers_what_is_in_it_and_nothing_beside_it() {
    let mut settle = Settle::default();
    for text in ["/a", "/a/b", "/a/b/c", "/a-b", "/a.d", "/b"] {
        settle.changed(path(text), Change::Done, at(1));
    }
    settle.changed(path("/a"), Change::Below, at(1));
    settle.changed(path("/a/later"), Change::Done, at(1));
    // A directory with all that is in it comes last.
    assert_eq!(paths(&settle.due(at(1))), [("/a".into(), Reach::Below)]);
    let expected = [
        ("/a-b".into(), Reach::Itself),
        ("/a.d".into(), Reach::Itself),
        ("/b".into(), Reach::Itself),
    ];
    assert_eq!(paths(&settle.due(at(1))), expected);
}

#[test]
fn lost_events_are_a_look_at_everything_and_do_not_delay_what_comes_after() {
    let mut settle = Settle::default();
    settle.changed(TreePath::root(), Change::Below, at(0));
    assert_eq!(settle.due(at(0)).len(), 1);
    // The next one has to wait; a file has not.
    settle.changed(TreePath::root(), Change::Below, at(1));
    settle.changed(path("/etc/shadow"), Change::Done, at(2));
    assert_eq!(
        paths(&settle.due(at(2))),
        [("/etc/shadow".into(), Reach::Itself)]
    );
    assert_eq!(paths(&settle.due(at(10))), [("/".into(), Reach::Below)]);
}

/// However many they are.
fn all_due(settle: &mut Settle) -> Vec<Look> {
    let mut all = Vec::new();
    loop {
        let some = settle.due(at(0));
        assert!(some.len() <= Settle::MOST_AT_ONCE);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[test]
fn more_than_can_be_remembered_is_remembered_by_directory() {
    let mut settle = Settle::default();
    let text = |number: usize| format!("/d{}/e{}/f{number}", number % 7, number % 91);
    let all = 3 * Settle::MOST;
    for number in 0..all {
        settle.changed(path(&text(number)), Change::Done, at(0));
        assert!(settle.waiting.len() <= Settle::MOST);
    }
    let looks = all_due(&mut settle);
    for number in 0..all {
        let changed = path(&text(number));
        let covers = |look: &Look| {
            look.path == changed || look.reach == Reach::Below && changed.is_within(&look.path)
        };
        assert!(looks.iter().any(covers), "{changed}");
    }
}

#[test]
fn long_paths_are_remembered_by_directory_though_they_are_few() {
    let mut settle = Settle::default();
    let long = "n".repeat(250) + "/";
    let text = |number: usize| format!("/d{}/{}f{number}", number % 7, long.repeat(60));
    for number in 0..2000 {
        settle.changed(path(&text(number)), Change::Done, at(0));
        assert!(settle.waiting_bytes <= Settle::MOST_BYTES);
        let held: usize = settle.waiting.keys().map(bytes_of).sum();
        assert_eq!(settle.waiting_bytes, held);
        if number % 100 == 0 {
            all_due(&mut settle);
            let held: usize = settle.looked.keys().map(bytes_of).sum();
            assert_eq!((settle.waiting_bytes, settle.looked_bytes), (0, held));
        }
    }
    for number in 0..2000 {
        settle.remember(&path(&text(number)), at(0));
        assert!(settle.looked_bytes <= Settle::MOST_BYTES);
    }
}

#[test]
fn one_deep_path_among_many_does_not_have_all_gone_through_for_each_of_its_directories() {
    assert_eq!(depths_above(5).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(depths_above(0).count(), 0);
    // The deepest that a path may be.
    assert!(depths_above(TreePath::MAX_BYTES / 2).count() <= 14);
    let mut settle = Settle::default();
    let deep = path("d/".repeat(2000).trim_end_matches('/'));
    settle.changed(deep.clone(), Change::Done, at(0));
    for number in 0..Settle::MOST {
        let text = format!("/a{}/f{number}", number % 100);
        settle.changed(path(&text), Change::Done, at(0));
    }
    let looks = all_due(&mut settle);
    assert!(looks.len() < Settle::MOST / 2);
    assert!(looks.iter().any(|look| deep.is_within(&look.path)));
    assert!(looks.iter().all(|look| !look.path.is_root()));
}

fn step() -> impl Strategy<Value = (TreePath, Change, u64, bool)> {
    let name = prop::sample::select(vec!["a", "b", "a-b", "c"]);
    let path = prop::collection::vec(name, 0..4)
        .prop_map(|names| TreePath::new(names.join("/").as_bytes()).expect("a path"));
    let change = prop::sample::select(vec![
        Change::Writing,
        Change::Done,
        Change::Done,
        Change::Below,
    ]);
    (path, change, 0_u64..40, any::<bool>())
}

proptest! {
    #[test]
    fn each_change_is_followed_by_a_look_in_time(steps in prop::collection::vec(step(), 1..80)) {
        let mut settle = Settle::default();
        let mut now = 0;
        // What has changed and was not looked at since, with when.
        let mut owed: Vec<(TreePath, Reach, u64)> = Vec::new();
        let latest = (Settle::PATIENCE + Settle::LONGEST_REST).as_millis() as u64;
        let settled = |settle: &mut Settle, owed: &mut Vec<(TreePath, Reach, u64)>, now: u64| {
            let looks = settle.due(at(now));
            for pair in looks.windows(2) {
                assert!(pair[0].path < pair[1].path);
                assert!(pair[0].reach == Reach::Itself || !pair[1].path.is_within(&pair[0].path));
            }
            owed.retain(|(path, reach, _)| !looks.iter().any(|look| match look.reach {
                Reach::Below => path.is_within(&look.path),
                Reach::Itself => *reach == Reach::Itself && *path == look.path,
            }));
            assert!(owed.iter().all(|(_, _, since)| now <= since + latest), "{owed:?}");
        };
        for (path, change, later, is_asked) in steps {
            let held: usize = settle.waiting.keys().map(bytes_of).sum();
            prop_assert_eq!(settle.waiting_bytes, held);
            now += later;
            let reach = if change == Change::Below { Reach::Below } else { Reach::Itself };
            settle.changed(path.clone(), change, at(now));
            owed.push((path, reach, now));
            if is_asked {
                settled(&mut settle, &mut owed, now);
            }
        }
        while let Some(next) = settle.next() {
            now = now.max(next.as_millis() as u64 + 1);
            settled(&mut settle, &mut owed, now);
        }
        prop_assert!(owed.is_empty(), "never looked at: {owed:?}");
    }
}
