//! Storms around the real daemon: killed, stopped and restarted under one, with one processor for both, and for long. What it
//! ends in is what a scan finds, each time, and it never grows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drift::finding::DriftId;
use drift::report::{Part, StateUpdate};
use nix::sys::signal::Signal;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::descriptor_store::DescriptorStore;
use crate::instance::{AGENT, Instance, Running};
use crate::loopback::{Loopback, World, eventually, pause};
use crate::place::in_each;
use crate::restarted::{blindness, instance, killed, watches};

/// Whatever comes after a storm takes seconds; this is for two busy cores.
const LIMIT: Duration = Duration::from_secs(120);
/// What the daemon may ever have held.
const MOST_KIB: u64 = 32 * 1024;

/// Makes, writes, renames and removes below `many`, as fast as it can, until it is dropped.
struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    changes: Arc<AtomicU64>,
}

impl Storm {
    /// With a rest after each so many changes.
    fn begin(root: &Path, rest: Option<(u64, Duration)>) -> Storm {
        let (over, changes) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (root, stop, count) = (root.to_owned(), Arc::clone(&over), Arc::clone(&changes));
        let thread = std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(5);
            while !stop.load(Ordering::Relaxed) {
                change(&root, &mut random);
                let done = count.fetch_add(1, Ordering::Relaxed) + 1;
                if let Some((_, rest)) = rest.filter(|(every, _)| done.is_multiple_of(*every)) {
                    let_pass(rest);
                }
            }
        });
        Storm {
            over,
            thread: Some(thread),
            changes,
        }
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One change. Many meet something that is not there, or there already: what was done is what counts.
fn change(root: &Path, random: &mut fastrand::Rng) {
    let mut at = || root.join(format!("many/{}", random.usize(0..40)));
    let (one, other) = (at(), at());
    let _ = match random.u8(0..6) {
        0 => fs::create_dir(&one),
        1 => fs::write(one.join("file"), [random.u8(..)]),
        2 => fs::rename(&one, &other),
        3 => fs::remove_dir_all(&one),
        4 => fs::write(&one, [random.u8(..)]),
        _ => fs::remove_file(&one),
    };
}

/// More names than a queue has room for.
fn fill(root: &Path) {
    let most = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    for nth in 0..most.trim().parse::<usize>().unwrap() + 1000 {
        let path = root.join(format!("many/of-{nth}"));
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a storm has a rate, and a stopped daemon is stopped for a time"
)]
fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// What the collector takes to be open.
fn open(world: &World) -> Vec<String> {
    let mut open: BTreeMap<DriftId, String> = BTreeMap::new();
    let mut run = None;
    for (report, _) in &world.reports {
        let begins =
            report.states == StateUpdate::Whole && matches!(report.part, Part { index: 1, .. });
        if run.replace(report.run) != Some(report.run) || begins {
            open.clear();
        }
        for closed in &report.closed {
            open.remove(closed);
        }
        let opened = report.opened.iter();
        open.extend(opened.map(|one| (one.id, one.drift.path.to_text())));
    }
    let mut paths: Vec<_> = open.into_values().collect();
    paths.sort();
    paths
}

/// What a scan finds now.
fn scanned(instance: &Instance) -> Vec<String> {
    let mut check = Command::new(AGENT);
    check.args(["check", "--json", "--root"]);
    check.arg(instance.path("root"));
    check
        .arg("--manifest")
        .arg(instance.path("image/image.manifest"));
    check
        .arg("--trust")
        .arg(instance.path("keys/driftmark.pub"));
    check.arg("--state").arg(instance.path("check"));
    let found = check.output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut paths: Vec<_> = lines
        .filter_map(|line: serde_json::Value| Some(line["path"].as_str()?.to_owned()))
        .collect();
    assert!(text.contains("\"summary\""), "{text}");
    paths.sort();
    paths
}

/// Waits until the collector holds just that to be open which a scan finds, and the coverage has no limit.
fn ends_exactly(story: &str, collector: &Loopback, instance: &Instance) {
    let expected = scanned(instance);
    let end = Instant::now() + LIMIT;
    loop {
        let (open, limits) = {
            let world = collector.world.lock().unwrap();
            let last = world.reports.last().map(|(report, _)| report);
            let limits = last.map(|report| report.coverage.limits.clone());
            (open(&world), limits.unwrap_or_default())
        };
        if open == expected && limits.is_empty() {
            return;
        }
        let log = || instance.log();
        assert!(
            Instant::now() < end,
            "{story}: {open:?} for {expected:?}; {limits:?}; {}",
            log()
        );
        pause();
    }
}

fn note(collector: &Loopback) -> Option<String> {
    let world = collector.world.lock().unwrap();
    world
        .reports
        .last()
        .and_then(|(last, _)| blindness(last))
        .cloned()
}

/// A number of `/proc/PID/status`.
fn number(of: &Running, word: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", of.child.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(word))
        .unwrap();
    line.trim_end_matches(" kB").trim().parse().unwrap()
}

fn descriptors(of: &Running) -> u64 {
    let open = fs::read_dir(format!("/proc/{}/fd", of.child.id())).unwrap();
    open.count() as u64
}

fn killed_stopped_and_restarted(stopped: Duration) {
    let name = match stopped > Duration::from_secs(5) {
        true => "storms::killed_stopped_for_a_minute_and_restarted_what_is_left_is_exact",
        false => {
            "storms::killed_stopped_and_restarted_under_a_storm_what_is_left_is_exact_each_time"
        }
    };
    in_each(name, &["ext4"], |_, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let manager = DescriptorStore::start(instance.home.path());
        let root = instance.path("root");
        let mut running = manager.run(&instance);
        watches(&instance, 1);
        for round in 0..2 {
            let storm = Storm::begin(&root, None);
            let_pass(Duration::from_millis(500));
            killed(running);
            // With its queues, or with nothing of the one before.
            running = match round {
                0 => manager.run(&instance),
                _ => instance.start(),
            };
            watches(&instance, 3 * round + 2);
            drop(storm);
            ends_exactly("killed", &collector, &instance);

            let storm = Storm::begin(&root, None);
            running.signal(Signal::SIGSTOP);
            fill(&root);
            let_pass(stopped);
            running.signal(Signal::SIGCONT);
            drop(storm);
            // What is read before that says so may come to it already.
            let said = eventually("the queue to have been full", || note(&collector));
            println!("{said}");
            ends_exactly("stopped", &collector, &instance);

            let storm = Storm::begin(&root, None);
            let_pass(Duration::from_millis(500));
            assert_eq!(running.stop(), Some(0));
            running = manager.run(&instance);
            watches(&instance, 3 * round + 3);
            drop(storm);
            ends_exactly("restarted", &collector, &instance);

            killed(running);
            running = manager.run(&instance);
            watches(&instance, 3 * round + 4);
        }
        assert_eq!(running.stop(), Some(0));
    });
}

#[test]
fn killed_stopped_and_restarted_under_a_storm_what_is_left_is_exact_each_time() {
    killed_stopped_and_restarted(Duration::from_secs(2));
}

#[test]
#[ignore = "takes some minutes: make soak"]
fn killed_stopped_for_a_minute_and_restarted_what_is_left_is_exact() {
    killed_stopped_and_restarted(Duration::from_secs(60));
}

/// So many files made and then removed, and so many mixed changes, with one processor for the daemon and who does it.
fn on_one_processor(name: &str, files: usize, changes: u64) {
    in_each(name, &["tmpfs"], |_, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let root = instance.path("root");
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", "0", AGENT]);
        let running = instance.start_by(taskset);
        watches(&instance, 1);
        let mut first = CpuSet::new();
        first.set(0);
        let story = root.clone();
        let began = Instant::now();
        let storm = std::thread::spawn(move || {
            sched_setaffinity(None, &first).unwrap();
            let at = |nth: usize| story.join(format!("many/of-{nth}"));
            (0..files).for_each(|nth| fs::write(at(nth), "").unwrap());
            (0..files).for_each(|nth| fs::remove_file(at(nth)).unwrap());
            println!("{files} made and removed in {:?}", began.elapsed());
            let (began, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
            (0..changes).for_each(|_| change(&story, &mut random));
            println!("{changes} mixed changes in {:?}", began.elapsed());
        });
        storm.join().unwrap();
        fs::write(root.join("etc/left"), "").unwrap();
        ends_exactly("a storm on one processor", &collector, &instance);
        let peak = number(&running, "VmHWM:");
        let said = note(&collector);
        println!("peak {peak} KiB; {said:?}");
        // Each drift that is open takes its room: where tens of thousands are for a moment, the peak is told alone.
        assert!(peak <= MOST_KIB || files > 5_000, "{peak} KiB");
        assert_eq!(running.stop(), Some(0));
    });
}

#[test]
fn thousands_of_changes_on_one_processor_end_exactly_within_the_memory_that_there_is() {
    on_one_processor(
        "storms::thousands_of_changes_on_one_processor_end_exactly_within_the_memory_that_there_is",
        5_000,
        20_000,
    );
}

#[test]
#[ignore = "fills the machine for a minute: make soak"]
fn fifty_thousand_files_and_two_hundred_thousand_changes_on_one_processor() {
    on_one_processor(
        "storms::fifty_thousand_files_and_two_hundred_thousand_changes_on_one_processor",
        50_000,
        200_000,
    );
}

/// What a daemon holds.
#[derive(Debug, Clone, Copy)]
struct Holds {
    resident_kib: u64,
    descriptors: u64,
    threads: u64,
}

/// Lets changes come for so long, and looks what the daemon holds all the while.
fn does_not_grow(name: &str, time: Duration) {
    in_each(name, &["ext4"], |_, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let running = instance.start();
        watches(&instance, 1);
        // Some 2,000 in a second: what a busy host does to its image in a day, in ten minutes.
        let storm = Storm::begin(&instance.path("root"), Some((10, Duration::from_millis(5))));
        let began = Instant::now();
        let (mut warm, mut late): (Vec<Holds>, Vec<Holds>) = Default::default();
        while began.elapsed() < time {
            let_pass(time / 200);
            let holds = Holds {
                resident_kib: number(&running, "VmRSS:"),
                descriptors: descriptors(&running),
                threads: number(&running, "Threads:"),
            };
            match began.elapsed() {
                elapsed if elapsed < time / 4 => {}
                elapsed if elapsed < time * 5 / 8 => warm.push(holds),
                _ => late.push(holds),
            }
            // Else the test itself would hold all that was ever told.
            collector.world.lock().unwrap().reports.clear();
        }
        let changes = storm.changes();
        drop(storm);
        let most = |of: &[Holds], what: fn(&Holds) -> u64| of.iter().map(what).max().unwrap();
        let (resident, later) = (
            most(&warm, |one| one.resident_kib),
            most(&late, |one| one.resident_kib),
        );
        println!(
            "{changes} changes in {time:?}: at most {resident} KiB, then {later}; descriptors {}, then {}; threads {}, then {}",
            most(&warm, |one| one.descriptors),
            most(&late, |one| one.descriptors),
            most(&warm, |one| one.threads),
            most(&late, |one| one.threads),
        );
        assert!(
            later <= resident + resident / 8 + 512,
            "{resident} KiB, then {later}"
        );
        // Whatever is in the middle of being read has one of its own, or two.
        let some = |of: &[Holds], what: fn(&Holds) -> u64| of.iter().map(what).min().unwrap();
        assert!(some(&late, |one| one.descriptors) <= some(&warm, |one| one.descriptors) + 2);
        assert!(some(&late, |one| one.threads) <= most(&warm, |one| one.threads));
        assert_eq!(running.stop(), Some(0));
    });
}

#[test]
fn changes_without_end_make_it_hold_no_more_than_before() {
    does_not_grow(
        "storms::changes_without_end_make_it_hold_no_more_than_before",
        Duration::from_secs(40),
    );
}

#[test]
#[ignore = "takes ten minutes: make soak"]
fn a_day_of_changes_in_ten_minutes_makes_it_hold_no_more_than_before() {
    does_not_grow(
        "storms::a_day_of_changes_in_ten_minutes_makes_it_hold_no_more_than_before",
        Duration::from_secs(600),
    );
}
