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
    let witness = Witness::new().expect("a witness");
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
    let mut witness = Witness::new().expect("a witness");
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
    let witness = Witness::new().expect("a witness");
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
fn what_is_looked_at_late_or_without_proof_says_so() {
    let witness = Witness::new().expect("a witness");
    let mut child = waiting("cat", &[]);
    let late = witness.attribute(&actor_of(&child), Promptness::Late, |_| true);
    assert_eq!(late.confidence, Confidence::Late);
    let unproven = Actor {
        pid: child.id(),
        pidfd: Err(NoPidfd::Refused),
    };
    let unproven = witness.attribute(&unproven, Promptness::AtOnce, |_| true);
    assert_eq!(unproven.confidence, Confidence::Late);
    assert!(process(&unproven).started_milliseconds.is_some());
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
    let witness = Witness::new().expect("a witness");
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
