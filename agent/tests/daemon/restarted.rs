//! Agents that are killed and started anew: what happens meanwhile is told like anything else where the service manager keeps
//! their queues, and where nobody does it is said for how long nothing was seen.

use std::fs;
use std::path::Path;

use drift::attribution::{Attribution, Confidence};
use drift::finding::{Drift, DriftKind};
use drift::report::{Report, StateUpdate};

use crate::descriptor_store::DescriptorStore;
use crate::instance::{Instance, Running};
use crate::loopback::{Loopback, World, eventually};
use crate::place::{KINDS, in_all, in_each};

/// An instance of a file system of its own: what others do on this machine fills no queue of it.
pub(crate) fn instance(collector: &Loopback, place: &Path) -> Instance {
    let instance = Instance::within(place, &collector.token());
    let config = fs::read_to_string(instance.path("agent.toml")).unwrap();
    let config = config.replace("quick-interval = \"1s\"", "quick-interval = \"1h\"");
    fs::write(instance.path("agent.toml"), config).unwrap();
    fs::write(instance.path("root/etc/conf"), "conf").unwrap();
    fs::create_dir(instance.path("root/many")).unwrap();
    instance.bake();
    instance
}

const GOES_ON: &str = "the watch goes on";

/// Waits until the nth start watches, and has scanned.
pub(crate) fn watches(instance: &Instance, nth: usize) {
    eventually("the watch and the first scan", || {
        let begun = instance.log().matches("the watch begins").count();
        let begun = begun + instance.log().matches(GOES_ON).count();
        let status = instance.try_status()?;
        (begun == nth && status["phase"] == "running").then_some(())
    });
}

pub(crate) fn killed(mut running: Running) {
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

/// Reports of the run after `before`.
fn later<'a>(world: &'a World, before: &Report) -> impl Iterator<Item = &'a Report> {
    let run = before.run;
    let reports = world.reports.iter().map(|(report, _)| report);
    reports.filter(move |report| report.run != run)
}

fn first_whole(collector: &Loopback) -> Report {
    collector.wait_for("the first whole set", |world| {
        let mut reports = world.reports.iter().map(|(report, _)| report);
        reports
            .find(|report| report.states == StateUpdate::Whole)
            .cloned()
    })
}

pub(crate) fn blindness(report: &Report) -> Option<&String> {
    let mut notes = report.coverage.notes.iter();
    notes.find(|note| note.contains("was blind for"))
}

fn is_this_test(by: &Attribution) -> bool {
    let process = by.process.as_ref();
    process.is_some_and(|process| process.pid == std::process::id())
}

#[test]
fn not_even_a_restart_is_blind_where_the_manager_keeps_the_queues() {
    let name = "restarted::not_even_a_restart_is_blind_where_the_manager_keeps_the_queues";
    in_all(name, &KINDS, |kind, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let manager = DescriptorStore::start(instance.home.path());
        let running = manager.run(&instance);
        watches(&instance, 1);
        let first = first_whole(&collector);
        let names = manager.names();
        assert_eq!(
            names.len(),
            2,
            "{kind}: of changes and of programs: {names:?}"
        );
        // Marked anew, as if what was ignored could be held by now: still no more are kept.
        fs::create_dir(instance.path("root/moved")).unwrap();
        fs::rename(instance.path("root/moved"), instance.path("root/other")).unwrap();
        fs::remove_dir(instance.path("root/other")).unwrap();
        eventually("nothing to be open", || {
            let status = instance.try_status()?;
            (status["open_drifts"] == 0).then_some(())
        });
        // One is taken back after another is given.
        eventually("another one to be kept instead", || {
            let now = manager.names();
            (now.len() == names.len() && now != names).then_some(())
        });
        let names = manager.names();

        killed(running);
        fs::write(instance.path("root/etc/motd"), "pwned\n").unwrap();
        fs::write(instance.path("root/etc/conf"), "other").unwrap();
        fs::write(instance.path("root/etc/conf"), "conf").unwrap();
        let running = manager.run(&instance);
        watches(&instance, 2);
        let by = collector.wait_for("what was changed, with who did it", |world| {
            let mut opened = later(world, &first).flat_map(|report| &report.opened);
            let motd = |drift: &Drift| drift.path.to_text() == "/etc/motd";
            opened.find_map(|open| {
                let by = open
                    .drift
                    .attribution
                    .as_deref()
                    .filter(|_| motd(&open.drift))?;
                Some(by.clone())
            })
        });
        assert_eq!(by.confidence, Confidence::Late, "{kind}: {by:?}");
        assert!(is_this_test(&by), "{kind}: {by:?}");
        collector.wait_for("what was put back", |world| {
            let mut moments = later(world, &first).flat_map(|report| &report.moments);
            let is_it = |drift: &Drift| {
                let by = drift.attribution.as_deref();
                drift.path.to_text() == "/etc/conf"
                    && drift.kind == DriftKind::Changed
                    && by.is_some_and(|by| by.confidence == Confidence::Late && is_this_test(by))
            };
            moments.find(|moment| is_it(&moment.drift)).map(drop)
        });
        assert!(instance.log().contains(GOES_ON), "{kind}");
        // Who does something now is asked at once again.
        fs::write(instance.path("root/etc/new"), "").unwrap();
        collector.wait_for("who does something now", |world| {
            let mut opened = later(world, &first).flat_map(|report| &report.opened);
            opened.find(|open| {
                let by = open.drift.attribution.as_deref();
                open.drift.path.to_text() == "/etc/new"
                    && by.is_some_and(|by| by.confidence == Confidence::Certain)
            })?;
            let blind = later(world, &first).find_map(blindness);
            assert_eq!(blind, None, "{kind}: nothing was missed");
            Some(())
        });
        assert_eq!(manager.names(), names, "{kind}");
        assert_eq!(running.stop(), Some(0));
    });
}

#[test]
fn what_a_kept_queue_has_no_room_for_is_found_and_said() {
    let name = "restarted::what_a_kept_queue_has_no_room_for_is_found_and_said";
    in_each(name, &["tmpfs"], |_, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let manager = DescriptorStore::start(instance.home.path());
        let running = manager.run(&instance);
        watches(&instance, 1);
        let first = first_whole(&collector);
        killed(running);
        let most = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        let many = |nth: usize| instance.path(&format!("root/many/{nth}"));
        let count = most.trim().parse::<usize>().unwrap() + 1000;
        (0..count).for_each(|nth| fs::write(many(nth), "").unwrap());
        (0..count).for_each(|nth| fs::remove_file(many(nth)).unwrap());
        fs::write(instance.path("root/etc/left"), "").unwrap();
        let running = manager.run(&instance);
        is_said_and_exact(&collector, &first);
        assert!(instance.log().contains(GOES_ON));
        drop(running);
    });
}

#[test]
fn a_start_after_another_says_for_how_long_nothing_was_seen_where_nobody_keeps_queues() {
    let name = "restarted::a_start_after_another_says_for_how_long_nothing_was_seen_where_nobody_keeps_queues";
    in_each(name, &["tmpfs"], |_, _, place| {
        let collector = Loopback::start();
        let instance = instance(&collector, place);
        let running = instance.start();
        watches(&instance, 1);
        let first = first_whole(&collector);
        eventually("the time to be noted", || {
            let noted = fs::read_to_string(instance.path("last-seen")).ok()?;
            (!noted.is_empty()).then_some(())
        });
        assert_eq!(first.coverage.notes, [""; 0], "nobody was there before");
        killed(running);
        fs::write(instance.path("root/etc/left"), "").unwrap();
        let running = instance.start();
        is_said_and_exact(&collector, &first);
        assert!(!instance.log().contains(GOES_ON));
        drop(running);
    });
}

/// The run after `before` ends in the one file that was left, and says that it was blind for a time.
fn is_said_and_exact(collector: &Loopback, before: &Report) {
    collector.wait_for("what is left, and for how long nothing was seen", |world| {
        let left = |report: &Report| {
            let mut opened = report.opened.iter();
            opened.any(|open| open.drift.path.to_text() == "/etc/left")
        };
        let last = later(world, before).last()?;
        let is_exact = last.open_count == 1 && later(world, before).any(left);
        (is_exact && blindness(last).is_some() && last.coverage.limits.is_empty()).then_some(())
    });
}
