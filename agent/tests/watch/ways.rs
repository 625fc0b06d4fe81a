//! However a file is written, the watch tells what a scan tells, and who did it; so it does of many files at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use drift::attribution::Process;

use crate::mutations::ParsePath as _;
use crate::place::{KINDS, in_all, in_each};
use crate::world::World;

const TREE: &str = "
mkdir -p etc lib opt ../outside/tree ../outside/bound; seq 100 > etc/conf; echo other > etc/other
echo outside > lib/outside; ln lib/outside ../outside/name
for each in $(seq 3000); do echo $each > ../outside/tree/$each; done
";
const FILE: &str = "etc/conf";

/// The program of `ways.c`, which is nobody's but the test's.
fn program(home: &Path) -> PathBuf {
    let ways = home.join("ways");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch/ways.c");
    let mut compile = Command::new("cc");
    compile
        .args(["-O1", "-static", "-o"])
        .arg(&ways)
        .arg(source);
    assert!(compile.status().unwrap().success(), "cc");
    ways
}

/// Has the file written that way: by which process, and what keeps that one from ending if it was not started as a program.
fn write_by(ways: &Path, way: &str, root: &Path) -> (u32, Option<ChildStdin>) {
    let mut command = Command::new(ways);
    command.arg(way).arg(root.join(FILE));
    command.arg(root.join("etc/other"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (pid, held) = (child.id(), child.stdin.take());
    let mut heir = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut heir)
        .unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{way}: {status}");
    match heir.trim().parse() {
        Ok(heir) => (heir, held),
        Err(_) => (pid, None),
    }
}

fn actor<'a>(world: &'a mut World, story: &str, path: &str) -> &'a Process {
    world.until(story, |world| world.actor(path).is_some());
    world.actor(path).unwrap()
}

fn is_by(process: &Process, program: &Path, story: &str) {
    let executable = process.executable.as_ref().expect(story);
    assert_eq!(Path::new(&executable.path), program, "{story}");
}

#[test]
fn a_file_is_told_whichever_way_it_is_written_and_by_the_process_that_wrote_it() {
    let name = "ways::a_file_is_told_whichever_way_it_is_written_and_by_the_process_that_wrote_it";
    in_all(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, TREE, "");
        let ways = program(home);
        for way in [
            "write",
            "io_uring",
            "mmap",
            "mmap-closed",
            "heir",
            "copy_file_range",
            "sendfile",
            "fallocate",
        ] {
            // An overlay says that a file was closed when its descriptor is, and nothing of its mapping after that.
            if way == "mmap-closed" && kind == "overlay" {
                continue;
            }
            let story = format!("{kind}: {way}");
            world.sh("seq 100 > etc/conf");
            world.comes_to_what_a_scan_says(&story);
            assert!(!world.open.contains_key(&FILE.parse_path()), "{story}");
            world.actors.clear();
            let (pid, _held) = write_by(&ways, way, &world.root);
            world.until(&story, |world| world.open.contains_key(&FILE.parse_path()));
            world.comes_to_what_a_scan_says(&story);
            let by = actor(&mut world, &story, FILE);
            assert_eq!(by.pid, pid, "{story}");
            is_by(by, &ways, &story);
        }
        assert_eq!(world.doubts, 0, "{kind}: a pass was needed");
    });
}

#[test]
fn a_file_is_told_whatever_it_is_called_by_whoever_writes_it() {
    let name = "ways::a_file_is_told_whatever_it_is_called_by_whoever_writes_it";
    in_each(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, TREE, "");
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        for (script, path, is_named) in [
            (
                "mount --bind etc ../outside/bound; echo bound > ../outside/bound/conf; umount ../outside/bound",
                "etc/conf",
                true,
            ),
            (
                "unshare --mount sleep 60 & sleep=$!; \
                 until [ $(readlink /proc/$sleep/exe) = $(command -v sleep) ]; do :; done; \
                 echo rooted > /proc/$sleep/root$PWD/etc/other; kill $sleep",
                "etc/other",
                true,
            ),
            // Which name of the image it is, only a pass can tell.
            ("echo linked >> ../outside/name", "lib/outside", false),
        ] {
            let story = format!("{kind}: {script}");
            world.actors.clear();
            world.sh(script);
            world.comes_to_what_a_scan_says(&story);
            assert!(world.open.contains_key(&path.parse_path()), "{story}");
            if is_named {
                assert_eq!(world.doubts, 0, "{story}: a pass was needed");
                is_by(actor(&mut world, &story, path), &shell, &story);
            }
        }
    });
}

#[test]
fn what_lies_in_a_directory_from_its_first_moment_is_told() {
    let name = "ways::what_lies_in_a_directory_from_its_first_moment_is_told";
    in_each(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, TREE, "");
        for nth in 0..300 {
            let directory = world.root.join(format!("opt/{nth}/in/it"));
            fs::create_dir_all(&directory).unwrap();
            for file in ["a", "b"] {
                fs::write(directory.join(file), "x").unwrap();
            }
        }
        world.comes_to_what_a_scan_says(kind);
        assert_eq!(world.open.len(), 300 * 5, "{kind}");
        let own = std::env::current_exe().unwrap();
        for nth in 0..300 {
            let path = format!("opt/{nth}/in/it/b");
            is_by(world.actor(&path).expect(&path), &own, kind);
        }
    });
}

#[test]
fn a_tree_that_is_moved_in_or_away_is_told_with_all_that_is_in_it() {
    let name = "ways::a_tree_that_is_moved_in_or_away_is_told_with_all_that_is_in_it";
    in_all(
        name,
        &["ext4", "xfs", "btrfs", "tmpfs"],
        |kind, home, top| {
            let mut world = World::new(home, top, TREE, "");
            let mv = Path::new("/usr/bin/mv").canonicalize().unwrap();
            world.sh("mv ../outside/tree opt/tree");
            world.comes_to_what_a_scan_says(kind);
            assert_eq!(world.open.len(), 3001, "{kind}");
            for path in ["opt/tree/1", "opt/tree/3000"] {
                is_by(actor(&mut world, kind, path), &mv, kind);
            }
            world.sh("mv opt/tree ../outside/tree");
            world.comes_to_what_a_scan_says(kind);
            assert!(world.open.is_empty(), "{kind}");
            assert_eq!(world.doubts, 0, "{kind}: a pass was needed");
        },
    );
}

/// As databases and configuration tools write: a new file, synced, over the old one.
#[test]
fn each_of_many_files_that_others_are_renamed_over_is_told_with_who_did_it() {
    let name = "ways::each_of_many_files_that_others_are_renamed_over_is_told_with_who_did_it";
    let tree = "mkdir etc; for each in $(seq 200); do echo conf > etc/$each; done";
    in_each(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, tree, "");
        for nth in 1..=200 {
            let new = world.root.join("etc/.new");
            fs::write(&new, "another").unwrap();
            fs::rename(&new, world.root.join(format!("etc/{nth}"))).unwrap();
        }
        world.comes_to_what_a_scan_says(kind);
        assert_eq!(world.open.len(), 200, "{kind}");
        let own = std::env::current_exe().unwrap();
        for nth in 1..=200 {
            let path = format!("etc/{nth}");
            is_by(world.actor(&path).expect(&path), &own, kind);
        }
        assert_eq!(world.doubts, 0, "{kind}: a pass was needed");
    });
}

const FILES: usize = 1000;

/// A package of so many files, made and installed by dpkg itself, in a tree with a database of its own.
#[test]
fn each_of_a_thousand_files_that_dpkg_replaces_is_told_with_dpkg_as_who_did_it() {
    let name = "ways::each_of_a_thousand_files_that_dpkg_replaces_is_told_with_dpkg_as_who_did_it";
    in_all(name, &["ext4", "btrfs", "overlay"], |kind, home, top| {
        for version in ["1", "2"] {
            package(home, version);
        }
        let install = |version: &str| {
            format!(
                "dpkg --root=. --force-not-root --no-triggers -i {} >/dev/null",
                home.join(format!("{version}.deb")).display()
            )
        };
        let script = format!(
            "mkdir -p var/lib/dpkg/info var/lib/dpkg/updates var/log; : > var/lib/dpkg/status; {}",
            install("1")
        );
        let mut world = World::new(home, top, &script, "");
        world.sh(&install("2"));
        world.comes_to_what_a_scan_says(kind);
        let dpkg = Path::new("/usr/bin/dpkg");
        for nth in 0..FILES {
            let path = format!("usr/share/thousand/{nth}");
            assert!(
                world.open.contains_key(&path.parse_path()),
                "{kind}: {path}"
            );
            // Each had a second name for a while, so a pass may have told of it first.
            is_by(actor(&mut world, kind, &path), dpkg, kind);
        }
    });
}

fn package(home: &Path, version: &str) {
    let place = home.join(version);
    let files = place.join("usr/share/thousand");
    fs::create_dir_all(&files).unwrap();
    fs::create_dir(place.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: thousand\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: many\n"
    );
    fs::write(place.join("DEBIAN/control"), control).unwrap();
    for nth in 0..FILES {
        fs::write(files.join(nth.to_string()), format!("{nth} of {version}\n")).unwrap();
    }
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Znone", "--build"]);
    build.arg(&place).arg(home.join(format!("{version}.deb")));
    let built = build.stdout(Stdio::null()).status().unwrap();
    assert!(built.success(), "dpkg-deb");
}
