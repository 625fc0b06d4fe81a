//! Whatever is done to a tree, the watch tells what a scan would tell, and who did it.

use std::path::Path;

use drift::attribution::{Confidence, Origin};
use drift::finding::{Drift, DriftKind};

use crate::place::{BY_DIRECTORY, BY_NAME, KINDS, as_nobody, in_all, in_each};
use crate::world::World;

const TREE: &str = "
mkdir -p bin etc lib opt/full/below var/log var/lib/held run ../outside/tree/below
cp /bin/true bin/true; echo conf > etc/conf; echo other > etc/other; echo back > etc/back
seq 20000 > lib/library; ln -s library lib/link
echo group > lib/hard-a; ln lib/hard-a lib/hard-b; ln lib/hard-a opt/hard-c
echo outside > lib/outside; ln lib/outside ../outside/name
echo a > opt/full/a; echo b > opt/full/below/b; echo log > var/log/log; echo held > var/lib/held/file
echo in > ../outside/tree/file; echo in > ../outside/tree/below/file
";
const RULES: &str = r#"
[[rule]]
type = "volatile"
path = "/var/log"
reason = "logs"
"#;

/// The tree becomes the lower layer of an overlay: what is changed is copied up, and has been looked at before.
const OVERLAID: &str = "
cd ..; mv root lower; mkdir root upper work
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,index=off,redirect_dir=off root
";

/// What is done, where it is seen, and by which program; a program that is empty is the shell itself.
struct Mutation {
    script: &'static str,
    at: &'static str,
    by: &'static str,
}

const fn mutation(script: &'static str, at: &'static str, by: &'static str) -> Mutation {
    Mutation { script, at, by }
}

const MUTATIONS: [Mutation; 30] = [
    mutation("echo changed > etc/conf", "etc/conf", ""),
    mutation("echo more >> etc/conf", "etc/conf", ""),
    mutation("echo conf > etc/conf", "etc/conf", ""),
    mutation("chmod 4755 bin/true", "bin/true", "chmod"),
    mutation("chown 1:1 etc/other", "etc/other", "chown"),
    mutation("touch -d 2001-01-01 etc/other", "etc/other", "touch"),
    mutation("truncate -s 10 lib/library", "lib/library", "truncate"),
    mutation("cp /bin/true bin/added", "bin/added", "cp"),
    mutation("rm etc/back", "etc/back", "rm"),
    mutation("echo back > etc/back", "etc/back", ""),
    mutation("mv etc/conf etc/moved", "etc/moved", "mv"),
    mutation(
        "echo new > etc/.new; mv etc/.new etc/conf",
        "etc/conf",
        "mv",
    ),
    mutation("ln -sf other lib/link", "lib/link", "ln"),
    mutation("mkfifo etc/pipe", "etc/pipe", "mkfifo"),
    mutation("mknod etc/null c 1 3", "etc/null", "mknod"),
    mutation(
        "mkdir -p opt/new/in/it; echo x > opt/new/in/it/file",
        "opt/new/in/it/file",
        "",
    ),
    mutation("mv opt/full opt/elsewhere", "opt/elsewhere", "mv"),
    mutation("mv opt/elsewhere opt/full", "opt/full", "mv"),
    mutation("mv ../outside/tree opt/tree", "opt/tree/below/file", "mv"),
    mutation("echo x > opt/tree/below/file", "opt/tree/below/file", ""),
    mutation("mv opt/tree ../outside/tree", "opt/tree", "mv"),
    mutation("mv opt/full ../outside/full", "opt/full", "mv"),
    mutation("rm -r opt/new", "opt/new", "rm"),
    mutation("rm etc/moved; ln -s /etc etc/moved", "etc/moved", "ln"),
    mutation("chmod 700 var/lib", "var/lib", "chmod"),
    mutation(
        "mv var/lib/held/file var/log/file",
        "var/lib/held/file",
        "mv",
    ),
    mutation("mkdir var/log/deep; echo y > var/log/deep/y", "", ""),
    mutation("mv var/log/deep etc/deep", "etc/deep", "mv"),
    mutation("echo z > etc/deep/z", "etc/deep/z", ""),
    mutation(
        "dd if=/dev/zero of=data bs=1M count=9 status=none",
        "data",
        "dd",
    ),
];

#[test]
fn each_mutation_is_told_as_a_scan_tells_it_and_with_who_did_it() {
    let name = "mutations::each_mutation_is_told_as_a_scan_tells_it_and_with_who_did_it";
    in_all(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        for Mutation { script, at, by } in MUTATIONS {
            let story = format!("{kind}: {script}");
            is_told(&mut world, &story, script);
            if !at.is_empty() {
                by_whom(&mut world, &story, at, by);
            }
        }
    });
}

/// But for whoever filled a directory that was not marked yet.
#[test]
fn directory_by_directory_each_mutation_is_told_with_who_did_it_and_what_is_seen_less_is_said() {
    let name = "mutations::directory_by_directory_each_mutation_is_told_with_who_did_it_and_what_is_seen_less_is_said";
    let kinds = [&BY_DIRECTORY[..], &["ext4"]].concat();
    in_all(name, &kinds, |kind, home, top| {
        let tree = match kind {
            "ext4" => TREE.to_owned() + OVERLAID,
            _ => TREE.to_owned(),
        };
        let mut world = World::limited(home, top, &tree, RULES);
        let said = format!("{:?}", world.limits);
        assert!(said.contains("watched directory by directory"), "{said}");
        for Mutation { script, at, by } in MUTATIONS {
            let story = format!("{kind}: {script}");
            for step in steps(script) {
                is_told(&mut world, &story, step);
            }
            if !at.is_empty() {
                by_whom(&mut world, &story, at, by);
            }
        }
    });
}

#[test]
fn where_only_names_are_told_each_mutation_is_and_nobody_is_blamed() {
    let name = "mutations::where_only_names_are_told_each_mutation_is_and_nobody_is_blamed";
    in_all(name, &BY_NAME, |kind, home, top| {
        let mut world = World::limited(home, top, TREE, RULES);
        let said = format!("{:?}", world.limits);
        assert!(said.contains("inotify"), "{said}");
        for Mutation { script, at, .. } in MUTATIONS {
            let story = format!("{kind}: {script}");
            is_told(&mut world, &story, script);
            assert!(world.actor(at).is_none(), "{story}");
        }
    });
}

#[test]
fn where_marks_are_not_in_step_with_the_tree_all_begins_again() {
    let name = "mutations::where_marks_are_not_in_step_with_the_tree_all_begins_again";
    in_each(name, &BY_DIRECTORY, |kind, home, top| {
        let mut world = World::limited(home, top, TREE, RULES);
        world.sh("mv opt/full var/log/full");
        world.comes_to_what_a_scan_says(kind);
        assert_eq!(world.beginnings, 1, "{kind}");
        // It is still marked, and where it is now nobody knows.
        world.sh("echo x > var/log/full/below/b");
        world.until(kind, |world| world.beginnings == 2);
        let doubts = world.doubts;
        world.sh("echo y > var/log/full/below/b; mv var/log/full opt/full");
        world.comes_to_what_a_scan_says(kind);
        world.sh("echo z > opt/full/below/b; echo changed > etc/conf");
        world.comes_to_what_a_scan_says(kind);
        assert_eq!((world.beginnings, world.doubts), (2, doubts), "{kind}");
        assert!(world.actor("etc/conf").is_some(), "{kind}");
    });
}

#[test]
fn where_not_all_directories_can_be_watched_that_is_said_and_the_rest_is() {
    let name = "mutations::where_not_all_directories_can_be_watched_that_is_said_and_the_rest_is";
    as_nobody(name, 3, |home, top| {
        let mut world = World::limited(home, top, TREE, RULES);
        let said = format!("{:?}", world.limits);
        assert!(said.contains("max_user_watches"), "{said}");
        world.sh("echo x > data; mkdir one-more");
        world.comes_to_what_a_scan_says("beside each other");
        assert_eq!((world.beginnings, world.doubts), (1, 0));
    });
}

/// A directory that is made and filled at once is seen as it is then; who filled it is seen once it is marked.
fn steps(script: &str) -> Vec<&str> {
    match script.strip_prefix("mkdir -p opt/new/in/it; ") {
        Some(filled) => vec!["mkdir -p opt/new/in/it", filled],
        None => vec![script],
    }
}

fn is_told(world: &mut World, story: &str, script: &str) {
    world.actors.clear();
    let doubts = world.doubts;
    world.sh(script);
    world.comes_to_what_a_scan_says(story);
    assert_eq!(world.doubts, doubts, "{story}: a pass was needed");
}

/// Nothing else is told of a mutation that is none (a time that was set), so its actor may still be on the way. Most of
/// these programs have ended by the time that what they did is read, and lie on another file system.
fn by_whom(world: &mut World, story: &str, at: &str, by: &str) {
    world.until(story, |world| world.actor(at).is_some());
    let process = world.actor(at).unwrap();
    let program = match by {
        "" => Path::new("/bin/sh").canonicalize().unwrap(),
        by => Path::new("/usr/bin").join(by).canonicalize().unwrap(),
    };
    let executable = process.executable.as_ref().expect(story);
    assert_eq!(Path::new(&executable.path), program, "{story}");
    assert_eq!(executable.origin, Origin::Foreign, "{story}");
}

#[test]
fn a_process_that_lives_is_told_with_all_that_is_known_of_it() {
    let name = "mutations::a_process_that_lives_is_told_with_all_that_is_known_of_it";
    in_each(name, &["ext4"], |_, home, top| {
        let mut world = World::new(home, top, TREE, "");
        let conf = world.root.join("etc/conf");
        std::fs::write(conf, "by the test itself").unwrap();
        world.comes_to_what_a_scan_says("a write of a process that lives");
        let told = world.actors.get(&"etc/conf".parse_path()).unwrap();
        assert_eq!(told.confidence, Confidence::Certain, "{told:?}");
        let process = told.process.as_ref().unwrap();
        assert_eq!(process.pid, std::process::id());
        let own = std::env::current_exe().unwrap();
        let executable = process.executable.as_ref().unwrap();
        assert_eq!(Path::new(&executable.path), own);
        assert!(process.command_line.is_some() && !process.ancestors.is_empty());
    });
}

#[test]
fn all_names_of_an_inode_are_told_and_what_only_a_pass_can_tell_is_in_doubt() {
    let name =
        "mutations::all_names_of_an_inode_are_told_and_what_only_a_pass_can_tell_is_in_doubt";
    in_each(name, &["ext4", "tmpfs"], |kind, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        world.sh("echo more >> lib/hard-b");
        world.comes_to_what_a_scan_says("a write through one name of three");
        assert_eq!(world.doubts, 0, "{kind}");
        let names = ["lib/hard-a", "lib/hard-b", "opt/hard-c"];
        for name in names {
            assert!(
                world.open.contains_key(&name.parse_path()),
                "{kind}: {name}"
            );
            assert!(world.actor(name).is_some(), "{kind}: {name}");
        }
        world.sh("echo more >> ../outside/name; ln etc/other etc/linked; rm lib/hard-a");
        world.comes_to_what_a_scan_says("names made and removed");
        world.sh("rm etc/linked");
        world.comes_to_what_a_scan_says("a second name removed");
        assert!(world.doubts > 0, "{kind}");
    });
}

#[test]
fn what_is_over_before_it_is_looked_at_is_a_moment() {
    let name = "mutations::what_is_over_before_it_is_looked_at_is_a_moment";
    in_each(name, &["tmpfs"], |_, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        let of = |passed: &[Drift], path: &str, kind: &DriftKind| {
            let is_it = |drift: &Drift| drift.path == path.parse_path() && drift.kind == *kind;
            passed.iter().any(is_it)
        };
        let over = |world: &World| {
            of(&world.passed, "etc/conf", &DriftKind::Changed)
                && of(&world.passed, "etc/lock", &DriftKind::Added)
        };
        // A look may come in between, and then it was drift and is no more.
        for _ in 0..200 {
            let (conf, lock) = (world.root.join("etc/conf"), world.root.join("etc/lock"));
            std::fs::write(&conf, "x").unwrap();
            std::fs::write(&conf, "conf\n").unwrap();
            std::fs::write(&lock, "").unwrap();
            std::fs::remove_file(&lock).unwrap();
            world.comes_to_what_a_scan_says("put back");
            if over(&world) {
                break;
            }
        }
        assert!(over(&world), "{:#?}", world.passed);
        std::fs::write(world.root.join("var/log/log"), "x").unwrap();
        world.comes_to_what_a_scan_says("a log");
        assert!(!of(&world.passed, "var/log/log", &DriftKind::Changed));
    });
}

#[test]
fn a_program_that_the_image_does_not_contain_is_told_when_it_is_started_and_not_each_time() {
    let name = "mutations::a_program_that_the_image_does_not_contain_is_told_when_it_is_started_and_not_each_time";
    in_all(name, &KINDS, |kind, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        world.sh("bin/true; cp bin/true var/log/stranger; var/log/stranger");
        // As many do as may write there, and nothing of it is held.
        world.sh("printf '#!/bin/sh\\n:\\n' > var/log/script; chmod +x var/log/script");
        world.sh("for again in 1 2 3; do var/log/script; var/log/stranger; done");
        world.until(kind, |world| world.executed.len() >= 2);
        world.sh("echo the end > etc/conf");
        world.comes_to_what_a_scan_says(kind);
        let told: Vec<_> = world.executed.iter().collect();
        let paths: Vec<_> = told.iter().map(|drift| drift.path.to_string()).collect();
        assert_eq!(paths, ["/var/log/stranger", "/var/log/script"], "{kind}");
        for drift in told {
            assert_eq!(drift.kind, DriftKind::Executed, "{kind}");
            let by = drift.attribution.as_ref().unwrap();
            let pid = by.process.as_ref().map(|process| process.pid);
            assert!(pid.is_some_and(|pid| pid > 0), "{kind}: {by:?}");
        }
    });
}

pub(crate) trait ParsePath {
    fn parse_path(&self) -> drift::TreePath;
}

impl ParsePath for str {
    fn parse_path(&self) -> drift::TreePath {
        drift::TreePath::new(self.as_bytes()).unwrap()
    }
}
