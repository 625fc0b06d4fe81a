//! More than a watch can take in: what it ends in is exact, and what it did not see is said.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use driftmark_agent::watch::Told;

use crate::mutations::ParsePath as _;
use crate::place::{BY_DIRECTORY, BY_NAME, in_each};
use crate::world::World;

const TREE: &str =
    "mkdir etc many log; echo conf > etc/conf; echo other > etc/other; echo log > log/log";
const RULES: &str = r#"
[[rule]]
type = "volatile"
path = "/log"
reason = "logs"
"#;

#[test]
fn lost_events_are_said_with_their_time_and_what_comes_after_is_seen() {
    let name = "storms::lost_events_are_said_with_their_time_and_what_comes_after_is_seen";
    in_each(name, &["tmpfs"], |_, home, top| {
        let (open, gate) = channel::<()>();
        let (waits, waiting) = channel::<()>();
        let (gate, waits) = (Mutex::new(gate), Mutex::new(waits));
        let hold = move |told: &Told| {
            if matches!(told, Told::InDoubt) {
                waits.lock().unwrap().send(()).unwrap();
                // Once nobody opens it any more, it stands open.
                let _ = gate.lock().unwrap().recv();
            }
        };
        let mut world = World::held_up(home, top, TREE, RULES, hold);
        // Two names of one inode, neither of them held.
        world.sh("ln log/log log/linked");
        waiting.recv().unwrap();
        let most = std::fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        for nth in 0..most + 1000 {
            std::fs::write(world.root.join(format!("many/{nth}")), "").unwrap();
        }
        drop(open);
        world.until("lost events", |world| !world.blind.is_empty());
        let (from, until) = world.blind[0];
        assert!(from < until, "{from:?} {until:?}");
        world.comes_to_what_a_scan_says("after lost events");
        assert!(world.open.contains_key(&"many/0".parse_path()));
        let doubts = world.doubts;
        world.sh("echo x > etc/other");
        world.comes_to_what_a_scan_says("after that");
        assert_eq!(world.doubts, doubts);
    });
}

#[test]
fn many_changes_by_many_processes_come_to_what_a_scan_says() {
    let name = "storms::many_changes_by_many_processes_come_to_what_a_scan_says";
    let kinds = [&["ext4", "overlay"], &BY_DIRECTORY[..], &BY_NAME[..]].concat();
    in_each(name, &kinds, |kind, home, top| {
        let mut world = World::limited(home, top, TREE, "");
        let root = Arc::new(world.root.clone());
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let root = Arc::clone(&root);
                std::thread::spawn(move || storm(&root, number))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        world.comes_to_what_a_scan_says(kind);
        // Whatever was moved about is still watched.
        world.sh("find many -type d | while read -r at; do echo x > \"$at/last\"; done");
        world.comes_to_what_a_scan_says(kind);
    });
}

/// Makes, moves, changes and removes, each thread below a directory of its own, that moves too.
fn storm(root: &std::path::Path, number: usize) {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let at = |nth: usize| root.join(format!("many/{number}-{nth}"));
    for _ in 0..1500 {
        let (one, other) = (at(random.usize(0..12)), at(random.usize(0..12)));
        // Most of it meets something that is not there, or there already; what was done is what counts.
        let _ = match random.u8(0..7) {
            0 => std::fs::create_dir(&one),
            1 => std::fs::write(one.join("file"), [random.u8(..)]),
            2 => std::fs::rename(&one, &other),
            3 => std::fs::remove_dir_all(&one),
            4 => std::fs::write(&one, [random.u8(..)]),
            5 => std::fs::create_dir_all(one.join("deep/er")),
            _ => std::fs::rename(one.join("file"), &other),
        };
    }
}
