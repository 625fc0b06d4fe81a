//! A queue that is full, kept elsewhere, or not to be had.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use super::*;

#[test]
fn a_full_queue_is_an_event_of_its_own_and_what_came_before_is_whole() {
    let _alone = alone();
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events");
    let limit: usize = limit
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(16_384);
    if limit > 200_000 {
        return lab::skip(&format!("fill a queue of {limit} events"));
    }
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let mut world = World::around(place, Shows::All);
        for number in 0..limit + 4_000 {
            let path = place.join(number.to_string());
            rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::RUSR, 0)
                .expect("make a file");
        }
        let before = pidfds();
        let mut names = 0;
        let mut overflows = Vec::new();
        while let Some(events) = world.watch.read(&mut world.buffer).expect("read") {
            for event in events {
                let event = event.expect("whole");
                if event.is_overflow() {
                    assert!(matches!(
                        event.actor.pidfd,
                        Err(NoPidfd::NotAsked | NoPidfd::Gone)
                    ));
                    assert_eq!((event.actor.pid, event.place), (0, None));
                    overflows.push(names);
                } else {
                    let place = event.place.expect("a name");
                    assert_eq!(
                        place.name,
                        names.to_string().as_bytes(),
                        "in order, none left out"
                    );
                    names += 1;
                }
            }
        }
        assert_eq!(
            (names, overflows),
            (limit, vec![limit]),
            "after all others, and once"
        );
        assert_eq!(pidfds(), before);
        fs::write(place.join("after"), b"").expect("write");
        let seen = world.seen();
        assert!(
            seen.iter()
                .any(|event| event.path.as_deref() == Some("after")),
            "it goes on"
        );
    });
}

#[test]
fn events_that_nobody_takes_leave_no_descriptor() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let mut world = World::around(place, Shows::All);
        let before = pidfds();
        for number in 0..600 {
            fs::write(place.join(number.to_string()), b"").expect("write");
        }
        let mut events = world
            .watch
            .read(&mut world.buffer)
            .expect("read")
            .expect("events");
        let first = events.next().expect("an event").expect("whole");
        assert!(first.actor.pidfd.is_ok());
        assert!(
            pidfds() > before + 100,
            "the others are open already, and only numbers so far"
        );
        drop(first);
        drop(events);
        while let Some(events) = world.watch.read(&mut world.buffer).expect("read") {
            drop(events);
        }
        assert_eq!(pidfds(), before);
    });
}

#[test]
fn a_queue_that_was_kept_elsewhere_has_what_happened_meanwhile() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let world = World::around(place, Shows::All);
        for number in 0..100 {
            let marked = place.join(number.to_string());
            fs::create_dir(&marked).expect("create a directory");
            let marked = fs::File::open(marked).expect("open");
            world.watch.watch_directory(marked.as_fd()).expect("mark");
        }
        let kept = world.watch.as_fd().try_clone_to_owned().expect("keep it");
        let about = fs::read(format!("/proc/self/fdinfo/{}", kept.as_raw_fd()));
        assert!(about.expect("fdinfo").len() > 2 * 4096, "it says all marks");
        let World { watch, holder, .. } = world;
        drop(watch);
        fs::write(place.join("meanwhile"), b"").expect("write");
        let watch = Watch::resumed(kept).expect("resume");
        assert!(watch.asks().has(Mask::RENAME));
        let (major, minor) = crate::Stat::of(&holder).expect("stat").dev;
        let has_marked = |device| watch.has_marked(device).expect("fdinfo");
        assert!(has_marked((major, minor)), "after all the directories");
        assert!(!has_marked((major, minor + 1)));
        let mut world = World {
            root: place.to_owned(),
            watch,
            holder,
            buffer: Buffer::default(),
        };
        let seen = world.seen();
        assert!(
            seen.iter()
                .any(|event| event.path.as_deref() == Some("meanwhile")),
            "{seen:?}"
        );
    });
}

#[test]
fn a_mark_is_gone_with_its_file_system_and_is_no_mark_for_more_than_it_asks_for() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let World { watch, holder, .. } = World::around(place, Shows::All);
        let device = crate::Stat::of(&holder).expect("stat").dev;
        let less = Watch::open().expect("a group").asking(Mask::MODIFY);
        assert!(matches!(
            less.watch_filesystem(holder.as_fd()),
            Sight::Whole { .. }
        ));
        let again = |watch: &Watch| {
            let kept = watch.as_fd().try_clone_to_owned().expect("keep it");
            Watch::resumed(kept).expect("resume")
        };
        assert!(!again(&less).has_marked(device).expect("fdinfo"));
        assert!(again(&watch).has_marked(device).expect("fdinfo"));
        drop(holder);
        let unmounted = Command::new("umount").arg(place).status().expect("umount");
        assert!(unmounted.success());
        assert!(!again(&watch).has_marked(device).expect("fdinfo"));
    });
}

#[test]
fn a_descriptor_that_is_no_such_queue_is_not_resumed() {
    let _alone = alone();
    let file = fs::File::open("/dev/null").expect("open");
    let refused = Watch::resumed(file.into()).expect_err("no group");
    assert_eq!(refused.kind(), ErrorKind::InvalidData);
    lab::with_own_mounts(|_| {
        let gate = super::super::Gate::open().expect("a gate");
        let kept = gate.as_fd().try_clone_to_owned().expect("keep it");
        let refused = Watch::resumed(kept).expect_err("it keeps others waiting");
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn without_the_right_there_is_no_queue() {
    lab::without_capabilities(|| {
        let refused = Watch::open().expect_err("no privilege");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn a_writer_that_is_gone_is_said_to_be() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let mut world = World::around(place, Shows::All);
        let file = place.join("file");
        let write = format!("echo x > {}", file.display());
        let mut child = Command::new("sh")
            .args(["-c", &write])
            .spawn()
            .expect("run sh");
        let pid = child.id();
        assert!(child.wait().expect("wait").success());
        let seen = world.seen();
        let written = seen
            .iter()
            .find(|event| event.what.has(Mask::CREATE))
            .expect("seen");
        assert_eq!(written.pid, pid);
        assert_eq!(written.path.as_deref(), Some("file"));
        assert!(
            matches!(written.pidfd, Err(NoPidfd::Gone)),
            "{:?}",
            written.pidfd
        );
    });
}

#[test]
fn a_busy_directory_wakes_nobody_once_it_is_ignored_but_by_renames() {
    in_each(|kind, root| {
        fs::create_dir_all(root.join("busy/below")).expect("create directories");
        fs::write(root.join("busy/log"), b"x").expect("write");
        let mut world = World::around(root, Shows::All);
        let busy = fs::File::open(root.join("busy")).expect("open");
        world.watch.ignore_directory(busy.as_fd()).expect("ignore");
        for round in 0..3 {
            fs::write(root.join("busy/log"), [b'x'; 100]).expect("write");
            fs::write(root.join(format!("busy/{round}")), b"").expect("create");
            fs::rename(
                root.join(format!("busy/{round}")),
                root.join("busy/renamed"),
            )
            .expect("rename");
            fs::remove_file(root.join("busy/renamed")).expect("remove");
        }
        let seen = world.seen();
        let is_last_link = |event: &Seen| event.what == Mask::ATTRIB && event.path.is_none();
        let is_rename = |event: &Seen| event.what == Mask::RENAME;
        let is_left = |event: &Seen| is_last_link(event) || is_rename(event);
        assert!(seen.iter().all(is_left), "{kind}: {seen:#?}");
        assert!(seen.len() <= 6, "{kind}: {seen:#?}");
        fs::rename(root.join("busy/log"), root.join("out")).expect("rename");
        let seen = world.seen();
        let led_out = |event: &Seen| event.to.as_deref() == Some("out");
        assert!(seen.iter().any(led_out), "{kind}: {seen:#?}");
        fs::write(root.join("busy/below/file"), b"").expect("write");
        fs::write(root.join("beside"), b"").expect("write");
        let seen = world.seen();
        for path in ["busy/below/file", "beside"] {
            assert!(
                seen.iter().any(|event| event.path.as_deref() == Some(path)),
                "{kind}: {seen:#?}"
            );
        }
    });
}

#[test]
fn a_kernel_that_says_fewer_names_says_both_names_of_a_rename_in_two_events() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::write(place.join("old"), b"").expect("write");
        let watch = Watch::older().expect("a group");
        let kept = watch.as_fd().try_clone_to_owned().expect("keep it");
        let mut world = World::with(watch, place, Shows::All);
        fs::rename(place.join("old"), place.join("new")).expect("rename");
        let seen = world.seen();
        for (what, path) in [(Mask::MOVED_FROM, "old"), (Mask::MOVED_TO, "new")] {
            let found = |event: &Seen| event.what.has(what) && event.path.as_deref() == Some(path);
            assert!(seen.iter().any(found), "{seen:#?}");
        }
        assert!(
            !Watch::resumed(kept)
                .expect("resume")
                .asks()
                .has(Mask::RENAME)
        );
    });
}
