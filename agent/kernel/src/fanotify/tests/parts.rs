//! File systems that are not seen as a whole by what is mounted of them.

use std::fs;
use std::process::Command;

use super::*;

#[test]
fn a_subvolume_is_watched_with_all_others_and_each_is_told_from_the_rest() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        if let Err(what) = lab::mount_fresh("btrfs", place) {
            return lab::skip(what);
        }
        let (root, other) = (place.join("@"), place.join("other"));
        let nested = root.join("nested");
        let mut made = [&root, &nested, &other].into_iter();
        let make = |path| {
            lab::run_or_skip(
                Command::new("btrfs")
                    .args(["-q", "subvolume", "create"])
                    .arg(path),
            )
        };
        if !made.all(make) {
            return;
        }
        fs::create_dir(root.join("etc")).expect("create a directory");
        // Where a walk from the top of the subvolume would end for what lies in the other one.
        fs::create_dir_all(root.join("other")).expect("create a directory");
        let point = place.join("mounted");
        fs::create_dir(&point).expect("create a directory");
        rustix::mount::mount_bind(&root, &point).expect("bind");
        let mut world = World::around(&point, Shows::Part);
        for (path, seen_as) in [
            (point.join("etc/passwd"), "etc/passwd"),
            (point.join("nested/file"), "nested/file"),
            (root.join("through-another-mount"), "through-another-mount"),
            (other.join("outside"), "(elsewhere)/outside"),
            (place.join("at-the-top"), "(elsewhere)/at-the-top"),
        ] {
            fs::write(&path, b"x").expect("write");
            let seen = world.seen();
            let found = |event: &Seen| {
                event.what.has(Mask::CREATE) && event.path.as_deref() == Some(seen_as)
            };
            assert!(seen.iter().any(found), "{seen_as}: {seen:#?}");
        }
    });
}

#[test]
fn a_bind_mount_is_one_more_way_to_the_same_place() {
    in_each(|kind, root| {
        let (inner, alias) = (root.join("inner"), root.join("alias"));
        for directory in [&inner, &alias] {
            fs::create_dir(directory).expect("create a directory");
        }
        rustix::mount::mount_bind(&inner, &alias).expect("bind");
        let mut world = World::around(root, Shows::All);
        fs::write(alias.join("file"), b"x").expect("write");
        let seen = world.seen();
        let found = |event: &Seen| event.path.as_deref() == Some("inner/file");
        assert!(seen.iter().any(found), "{kind}: {seen:#?}");
        let mut part = World::around(&inner, Shows::Part);
        fs::write(inner.join("second"), b"x").expect("write");
        fs::write(root.join("beside"), b"x").expect("write");
        let seen: Vec<_> = part
            .seen()
            .into_iter()
            .filter_map(|event| event.path)
            .collect();
        assert!(seen.contains(&"second".into()), "{kind}: {seen:?}");
        assert!(
            seen.contains(&"(elsewhere)/beside".into()),
            "{kind}: {seen:?}"
        );
    });
}

#[test]
fn an_overlay_without_handles_is_watched_directory_by_directory_and_says_so() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        let root = match overlay(place, "index=off") {
            Ok(root) => root,
            Err(what) => return lab::skip(what),
        };
        fs::create_dir_all(root.join("marked/not")).expect("create directories");
        let watch = Watch::open().expect("a group");
        let top = fs::File::open(&root).expect("open");
        let sight = watch.watch_filesystem(top.as_fd());
        let Sight::Directories { because, .. } = &sight else {
            panic!("{sight}")
        };
        assert_eq!(because.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert!(sight.to_string().contains("directory by directory"));
        let marked = fs::File::open(root.join("marked")).expect("open");
        watch.watch_directory(marked.as_fd()).expect("mark");
        for path in ["at-the-top", "marked/file", "marked/not/file"] {
            fs::write(root.join(path), b"x").expect("write");
        }
        let mut buffer = Buffer::default();
        let mut names = Vec::new();
        while let Some(events) = watch.read(&mut buffer).expect("read") {
            for event in events {
                let event = event.expect("whole");
                assert_eq!(event.actor.pid, std::process::id());
                if event.what.has(Mask::CREATE) {
                    names.push(event.place.expect("a name").name.to_vec());
                }
            }
        }
        assert_eq!(
            names,
            [&b"at-the-top"[..], b"file"],
            "in the two that are marked"
        );
    });
}

#[test]
fn what_has_no_handles_to_open_is_not_watched_as_a_whole_and_says_why() {
    let _alone = alone();
    lab::with_own_mounts(|_| {
        let watch = Watch::open().expect("a group");
        let proc = fs::File::open("/proc/self").expect("open");
        match watch.watch_filesystem(proc.as_fd()) {
            // From Linux 6.6 on its directories have handles that can be compared.
            Sight::None { because } | Sight::Directories { because, .. } => {
                assert_eq!(because.raw_os_error(), Some(libc::EOPNOTSUPP), "{because}");
            }
            Sight::Whole { .. } => panic!("nothing in /proc can be found by a handle"),
        }
    });
}

#[test]
fn a_directory_that_was_removed_is_gone_and_one_that_is_called_deleted_is_not() {
    in_each(|kind, root| {
        for directory in ["gone", "there (deleted)"] {
            fs::create_dir(root.join(directory)).expect("create a directory");
        }
        let mut world = World::around(root, Shows::All);
        for directory in ["gone", "there (deleted)"] {
            fs::write(root.join(directory).join("file"), b"").expect("write");
        }
        fs::remove_dir_all(root.join("gone")).expect("remove");
        let paths: Vec<_> = world
            .seen()
            .into_iter()
            .filter_map(|event| event.path)
            .collect();
        assert!(paths.contains(&"(gone)/file".into()), "{kind}: {paths:?}");
        assert!(
            paths.contains(&"there (deleted)/file".into()),
            "{kind}: {paths:?}"
        );
    });
}
