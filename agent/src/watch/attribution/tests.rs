//! Real processes, looked at alive, ended and gone.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags};

use super::*;

/// A child as an event would tell of it.
fn actor_of(child: &Child) -> Actor {
    Actor {
        pid: child.id(),
        pidfd: Ok(pidfd(child)),
    }
}

fn pidfd(child: &Child) -> OwnedFd {
    let pid = Pid::from_child(child);
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of the child")
}

/// Waits on its input until that is closed.
fn waiting(program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().expect("run it")
}

fn process(attribution: &Attribution) -> &Process {
    attribution.process.as_ref().expect("a process")
}

#[test]
fn a_process_that_lives_is_certain_and_told_with_all_there_is() {
    let witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = Command::new("sh")
        .args(["-c", "read line", "sh", "--password=s3cret"])
        .current_dir("/usr")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run sh");
    let actor = actor_of(&child);
    // Once it has read what is written, it is the program and not this one's copy any more.
    let looked = looked_until(&witness, &actor, |found| {
        process(found)
            .command_line
            .as_deref()
            .is_some_and(|line| line.starts_with("sh -c"))
    });
    drop(child.stdin.take());
    child.wait().expect("wait");
    assert_eq!(looked.confidence, Confidence::Certain);
    let found = process(&looked);
    let executable = found.executable.as_ref().expect("a program");
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    assert_eq!(executable.path, shell.display().to_string());
    assert_eq!(executable.origin, Origin::Image);
    assert_eq!(
        found.command_line.as_deref(),
        Some("sh -c read line sh --password=***")
    );
    assert_eq!(found.directory.as_deref(), Some("/usr"));
    assert_eq!(found.uid, Some(rustix::process::geteuid().as_raw()));
    assert_eq!(
        found.ancestors.first().map(|parent| parent.pid),
        Some(std::process::id())
    );
    assert!(
        found
            .started_milliseconds
            .is_some_and(|started| started > 0)
    );
    assert!(looked.is_within_limits());
    let own = fs::read("/proc/self/cgroup").expect("own group");
    assert_eq!(found.cgroup.is_some(), cgroup::own(&own).is_some());
}

/// Asks until it is so; the test runner ends what never is.
fn looked_until(
    witness: &Witness,
    actor: &Actor,
    is_so: impl Fn(&Attribution) -> bool,
) -> Attribution {
    loop {
        let looked = witness.attribute(actor, Promptness::AtOnce, |_| true);
        if is_so(&looked) {
            return looked;
        }
        std::thread::yield_now();
    }
}

#[test]
fn an_ended_process_is_told_by_what_it_ran_last() {
    let mut witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = waiting("cat", &[]);
    let actor = actor_of(&child);
    witness.ran(&actor, b"/usr/bin/cat", Origin::Image);
    drop(child.stdin.take());
    let ended = looked_until(&witness, &actor, |found| {
        found.confidence == Confidence::Exited
    });
    let found = process(&ended);
    assert_eq!(
        found.executable.as_ref().map(|program| &*program.path),
        Some("/usr/bin/cat")
    );
    assert_eq!(
        found.ancestors.first().map(|parent| parent.pid),
        Some(std::process::id())
    );
    child.wait().expect("wait");
    let gone = witness.attribute(&actor, Promptness::AtOnce, |_| true);
    assert_eq!(gone.confidence, Confidence::Exited);
    let found = process(&gone);
    assert_eq!(found.pid, child.id());
    assert_eq!(
        found.executable.as_ref().map(|program| &*program.path),
        Some("/usr/bin/cat")
    );
    assert!(
        found.ancestors.is_empty() && found.uid.is_none(),
        "its number is anybody's: {found:?}"
    );
}

#[test]
fn a_number_that_is_another_process_by_now_tells_nothing_of_that_one() {
    let witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut gone = waiting("cat", &[]);
    let descriptor = pidfd(&gone);
    drop(gone.stdin.take());
    gone.wait().expect("wait");
    // As if this very process had got the number since.
    let reused = Actor {
        pid: std::process::id(),
        pidfd: Ok(descriptor),
    };
    for actor in [
        reused,
        Actor {
            pid: std::process::id(),
            pidfd: Err(NoPidfd::Gone),
        },
    ] {
        let told = witness.attribute(&actor, Promptness::AtOnce, |_| true);
        assert_eq!(told.confidence, Confidence::Exited);
        let expected = Process {
            pid: std::process::id(),
            ..Process::default()
        };
        assert_eq!(told.process, Some(expected));
    }
}

#[test]
fn what_is_looked_at_late_says_so_and_nobody_is_nobody() {
    let witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = waiting("cat", &[]);
    let late = witness.attribute(&actor_of(&child), Promptness::Late, |_| true);
    assert_eq!(late.confidence, Confidence::Late);
    let nobody = Actor {
        pid: 0,
        pidfd: Err(NoPidfd::NotAsked),
    };
    let nobody = witness.attribute(&nobody, Promptness::AtOnce, |_| true);
    assert_eq!(nobody, Attribution::none());
    drop(child.stdin.take());
    child.wait().expect("wait");
}

#[test]
fn a_program_that_is_foreign_removed_or_only_in_memory_is_said_to_be() {
    let witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let place = tempfile::tempdir_in("/var/tmp").expect("a place");
    let program = place.path().join("program (deleted)");
    fs::copy("/bin/cat", &program).expect("copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = program.to_str().expect("text");
    let mut child = waiting(path, &[]);
    let actor = actor_of(&child);
    let look = |is_so: fn(&Executable) -> bool| {
        loop {
            let looked = witness.attribute(&actor, Promptness::AtOnce, |_| false);
            match process(&looked).executable.clone() {
                Some(executable) if is_so(&executable) => return executable,
                _ => std::thread::yield_now(),
            }
        }
    };
    let there = look(|executable| executable.path.contains("program"));
    assert_eq!((there.path.as_str(), there.origin), (path, Origin::Foreign));
    fs::remove_file(&program).expect("remove");
    let removed = look(|_| true);
    assert_eq!(
        (removed.path.as_str(), removed.origin),
        (path, Origin::Deleted)
    );
    drop(child.stdin.take());
    child.wait().expect("wait");

    let memory = rustix::fs::memfd_create(c"evil", rustix::fs::MemfdFlags::empty()).expect("memfd");
    let mut memory = fs::File::from(memory);
    io::copy(&mut fs::File::open("/bin/cat").expect("open"), &mut memory).expect("copy");
    let path = |file: &fs::File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    // Nothing that is open for writing is run.
    let readable = fs::File::open(path(&memory)).expect("open anew");
    drop(memory);
    let mut child = waiting(&path(&readable), &[]);
    let actor = actor_of(&child);
    let looked = looked_until(&witness, &actor, |found| {
        let executable = process(found).executable.as_ref();
        executable.is_some_and(|executable| executable.path.starts_with("/memfd:"))
    });
    let executable = process(&looked).executable.clone().expect("a program");
    assert_eq!(
        (executable.path.as_str(), executable.origin),
        ("/memfd:evil", Origin::Memory)
    );
    drop(child.stdin.take());
    child.wait().expect("wait");
}

/// As an event tells of a process where no descriptor could be made.
fn unproven(child: &Child, why: NoPidfd) -> Actor {
    Actor {
        pid: child.id(),
        pidfd: Err(why),
    }
}

#[test]
fn a_process_that_is_known_by_its_number_alone_is_not_described() {
    let mut witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = waiting("cat", &[]);
    for why in [NoPidfd::Refused, NoPidfd::NotAsked, NoPidfd::Gone] {
        let actor = unproven(&child, why);
        // Its start was not known then either, so this proves nothing.
        witness.ran(&actor, b"/usr/bin/cat", Origin::Image);
        let found = witness.attribute(&actor, Promptness::AtOnce, |_| true);
        assert_eq!(found.confidence, Confidence::Exited, "{why:?}");
        let expected = Process {
            pid: child.id(),
            executable: Some(Executable {
                path: "/usr/bin/cat".into(),
                origin: Origin::Image,
            }),
            ..Process::default()
        };
        assert_eq!(found.process, Some(expected), "{why:?}");
    }
    drop(child.stdin.take());
    child.wait().expect("wait");
}

#[test]
fn a_process_whose_start_was_known_before_is_described_without_a_descriptor() {
    let mut witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = waiting("cat", &[]);
    witness.ran(&actor_of(&child), b"/usr/bin/cat", Origin::Image);
    for (why, confidence) in [
        (NoPidfd::Refused, Confidence::Late),
        (NoPidfd::NotAsked, Confidence::Late),
        (NoPidfd::Gone, Confidence::Exited),
    ] {
        let actor = unproven(&child, why);
        let found = witness.attribute(&actor, Promptness::AtOnce, |_| true);
        assert_eq!(found.confidence, confidence);
        let is_described = process(&found).started_milliseconds.is_some();
        assert_eq!(is_described, confidence == Confidence::Late);
    }
    drop(child.stdin.take());
    child.wait().expect("wait");
}

#[test]
fn a_process_that_runs_another_program_than_it_last_started_is_late() {
    let mut witness = Witness::new(CommandLine::Redacted).expect("a witness");
    let mut child = waiting("cat", &[]);
    let actor = actor_of(&child);
    let runs = |found: &Attribution| process(found).executable.clone().map(|one| one.path);
    let own = fs::canonicalize("/proc/self/exe").expect("own program");
    let looked = looked_until(&witness, &actor, |found| {
        runs(found).is_some_and(|path| path != own.display().to_string())
    });
    assert_eq!(looked.confidence, Confidence::Certain);
    let path = runs(&looked).expect("a program");
    witness.ran(&actor, path.as_bytes(), Origin::Image);
    let same = witness.attribute(&actor, Promptness::AtOnce, |_| true);
    assert_eq!(same.confidence, Confidence::Certain);
    witness.ran(&actor, b"/usr/bin/before", Origin::Image);
    let other = witness.attribute(&actor, Promptness::AtOnce, |_| true);
    assert_eq!(
        (other.confidence, runs(&other)),
        (Confidence::Late, Some(path))
    );
    drop(child.stdin.take());
    child.wait().expect("wait");
}

#[test]
fn what_is_cut_says_so_at_the_limit_too() {
    for (length, expected) in [
        (7, "xxxxxxx"),
        (8, "xxxxxxxx"),
        (9, "xxxxx…"),
        (99, "xxxxx…"),
    ] {
        assert_eq!(shown("x".repeat(length).as_bytes(), 8), expected);
    }
}
