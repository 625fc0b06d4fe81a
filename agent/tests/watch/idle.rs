//! A watch that has nothing to do does nothing.

use std::fs;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::place::in_each;
use crate::world::World;

const TREE: &str = "mkdir etc log; echo conf > etc/conf; echo log > log/log";
const RULES: &str = r#"
[[rule]]
type = "volatile"
path = "/log"
reason = "logs"
"#;
/// Somebody else may mount something, or start programs, each of which wakes it once a second at most.
const OTHERS: u64 = 8;

/// How often the watch's threads were waked.
fn wakings() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let mut sum = 0;
    for task in tasks.map(|task| task.unwrap().path()) {
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if ["watch", "look"].contains(&name.trim_end()) {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += count.unwrap().trim().parse::<u64>().unwrap();
        }
    }
    sum
}

fn let_pass(time: Duration) {
    let (_held, never) = channel::<()>();
    let _ = never.recv_timeout(time);
}

#[test]
fn nothing_wakes_a_watch_where_nothing_happens_or_only_where_nothing_is_held() {
    let name = "idle::nothing_wakes_a_watch_where_nothing_happens_or_only_where_nothing_is_held";
    in_each(name, &["tmpfs", "ext4"], |kind, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        let log = world.root.join("log/log");
        fs::write(&log, "a first time").unwrap();
        fs::write(world.root.join("etc/conf"), "x").unwrap();
        world.comes_to_what_a_scan_says(kind);
        let_pass(Duration::from_secs(2));
        let before = wakings();
        let_pass(Duration::from_secs(3));
        let idle = wakings() - before;
        assert!(idle <= OTHERS, "{kind}: waked {idle} times");
        for nth in 0..5000 {
            fs::write(&log, [nth as u8; 100]).unwrap();
        }
        let_pass(Duration::from_millis(200));
        let busy = wakings() - before - idle;
        assert!(busy <= OTHERS, "{kind}: waked {busy} times");
    });
}
