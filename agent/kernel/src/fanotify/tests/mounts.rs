//! What is mounted and unmounted.

use std::fs;

use rustix::mount::UnmountFlags;

use super::*;

#[test]
fn a_mount_and_its_end_are_seen_with_who_did_it() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        let namespace = fs::File::open("/proc/thread-self/ns/mnt").expect("own namespace");
        let watch = match Watch::of_mounts(namespace.as_fd()) {
            Ok(watch) => watch,
            Err(error) => return lab::skip(&format!("a watch of mounts: {error}")),
        };
        let mut buffer = Buffer::default();
        let mut last = || {
            let mut all = Vec::new();
            while let Some(events) = watch.read(&mut buffer).expect("read") {
                for event in events {
                    let event = event.expect("whole");
                    all.push((event.what, event.mount, event.actor.pid));
                }
            }
            all
        };
        assert_eq!(last(), []);
        lab::mount_tmpfs(place);
        let seen = last();
        let [(Mask::MOUNTED, Some(mount), pid)] = seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(pid, std::process::id());
        assert!(mount > 0);
        rustix::mount::unmount(place, UnmountFlags::empty()).expect("unmount");
        assert_eq!(last(), [(Mask::UNMOUNTED, Some(mount), pid)]);
    });
}
