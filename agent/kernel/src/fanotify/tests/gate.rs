//! Executions that wait for an answer. Only ever on file systems of the tests' own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit};

use super::super::record::METADATA_BYTES;
use super::super::{Answer, Gate, Malformed};
use super::*;

/// Runs `place/program` while `answer` is asked for each execution that waits.
fn run(
    gate: &Gate,
    place: &Path,
    mut answer: impl FnMut(super::super::Question<'_>),
) -> io::Result<ExitStatus> {
    let program = place.join("program");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| Command::new(program).status());
        let mut buffer = Buffer::default();
        while !running.is_finished() {
            let mut polled = [PollFd::new(gate, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            if poll(&mut polled, Some(&moment)).expect("poll") == 0 {
                continue;
            }
            for question in gate.read(&mut buffer).expect("read").into_iter().flatten() {
                answer(question.expect("whole"));
            }
        }
        running.join().expect("the thread that runs it")
    })
}

#[test]
fn an_execution_is_allowed_denied_and_allowed_where_nobody_answers() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        let before = pidfds();
        let gate = Gate::open().expect("a gate");
        let top = File::open(place).expect("open");
        if let Err(error) = gate.guard(top.as_fd()) {
            return lab::skip(&format!("questions of the kernel: {error}"));
        }
        let mut asked = 0;
        let allowed = run(&gate, place, |question| {
            asked += 1;
            assert!(question.actor.pid > 0 && question.actor.pidfd.is_ok());
            let mut magic = [0; 4];
            let mut file = File::from(question.file().try_clone_to_owned().expect("clone"));
            file.read_exact(&mut magic)
                .expect("the program can be read");
            assert_eq!(&magic, b"\x7fELF");
            question.answer(Answer::Allow).expect("answer");
        });
        assert!(allowed.expect("run").success());
        assert_eq!(asked, 1);
        let denied = run(&gate, place, |question| {
            question.answer(Answer::Deny).expect("answer")
        });
        assert_eq!(
            denied.expect_err("denied").kind(),
            ErrorKind::PermissionDenied
        );
        let dropped = run(&gate, place, |question| {
            let _nobody_answers = question;
        });
        assert!(dropped.expect("run").success());
        assert_eq!(pidfds(), before);
    });
}

#[test]
fn a_file_that_is_allowed_from_now_on_is_asked_about_again_once_it_was_written_to() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let program = place.join("program");
        fs::copy("/bin/true", &program).expect("copy a program");
        let gate = Gate::open().expect("a gate");
        let top = File::open(place).expect("open");
        if let Err(error) = gate.guard(top.as_fd()) {
            return lab::skip(&format!("questions of the kernel: {error}"));
        }
        let mut asked = 0;
        let mut runs = |times: usize| {
            for _ in 0..times {
                let outcome = run(&gate, place, |question| {
                    asked += 1;
                    question.allow_from_now_on().expect("answer");
                });
                assert!(outcome.expect("run").success());
            }
            asked
        };
        assert_eq!(runs(3), 1);
        let mut file = File::options().append(true).open(&program).expect("open");
        file.write_all(b"more").expect("write");
        drop(file);
        assert_eq!(runs(3), 2);
        // Another file is another question.
        fs::remove_file(&program).expect("remove");
        fs::copy("/bin/true", &program).expect("copy a program");
        assert_eq!(runs(3), 3);
    });
}

/// A gate around `place`, and a shell that runs `place/program` once it is told to. The shell was started before: a child
/// that is about to run something holds what its parent has open, and a gate that somebody holds is not closed.
fn guarded_before(place: &Path) -> Option<(Gate, Child)> {
    let run = format!("read line; exec {}", place.join("program").display());
    let mut shell = Command::new("sh")
        .args(["-c", &run])
        .stdin(Stdio::piped())
        .spawn()
        .expect("run sh");
    let gate = Gate::open().expect("a gate");
    let top = File::open(place).expect("open");
    if let Err(error) = gate.guard(top.as_fd()) {
        drop(shell.stdin.take());
        shell.wait().expect("wait");
        lab::skip(&format!("questions of the kernel: {error}"));
        return None;
    }
    Some((gate, shell))
}

#[test]
fn a_gate_that_is_closed_in_the_middle_of_an_answer_allows_it_and_asks_no_more() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        let Some((gate, mut shell)) = guarded_before(place) else {
            return;
        };
        drop(shell.stdin.take());
        let mut polled = [PollFd::new(&gate, PollFlags::IN)];
        poll(&mut polled, None).expect("it waits");
        let mut buffer = Buffer::default();
        let mut questions = gate.read(&mut buffer).expect("read").expect("one");
        let question = questions.next().expect("one").expect("whole");
        gate.close().expect("close");
        assert!(shell.wait().expect("wait").success());
        // What is said now reaches nobody.
        let _ = question.answer(Answer::Deny);
        let again = Command::new(place.join("program")).status();
        assert!(again.expect("run").success());
    });
}

#[test]
fn questions_that_nobody_takes_are_allowed_and_so_is_all_when_the_gate_is_closed() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        let Some((gate, mut shell)) = guarded_before(place) else {
            return;
        };
        std::thread::scope(|scope| {
            let program = place.join("program");
            let running = scope.spawn(|| Command::new(program).status());
            let mut buffer = Buffer::default();
            while !running.is_finished() {
                drop(gate.read(&mut buffer).expect("read"));
                std::thread::yield_now();
            }
            assert!(running.join().expect("join").expect("run").success());
        });
        drop(shell.stdin.take());
        let mut polled = [PollFd::new(&gate, PollFlags::IN)];
        poll(&mut polled, None).expect("it waits");
        drop(gate);
        assert!(shell.wait().expect("wait").success());
    });
}

#[test]
fn a_question_with_malformed_information_is_allowed_and_then_the_error_told() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        let gate = Gate::open().expect("a gate");
        let top = File::open(place).expect("open");
        if let Err(error) = gate.guard(top.as_fd()) {
            return lab::skip(&format!("questions of the kernel: {error}"));
        }
        let mut errors = 0;
        std::thread::scope(|scope| {
            let program = place.join("program");
            let running = scope.spawn(|| Command::new(program).status());
            let mut buffer = Buffer::default();
            while !running.is_finished() {
                // The first information's length, right behind the metadata: the process's descriptor is behind it.
                let spoil = |read: &mut [u8]| read[METADATA_BYTES + 2] = 3;
                let Some(questions) = gate.read_spoilt(&mut buffer, spoil).expect("read") else {
                    std::thread::yield_now();
                    continue;
                };
                for question in questions {
                    assert_eq!(question.err(), Some(Malformed::Info));
                    errors += 1;
                }
            }
            assert!(running.join().expect("join").expect("run").success());
        });
        assert_eq!(errors, 1);
    });
}

/// In a process of its own: how many files one may have open is the same for all of its threads.
#[test]
fn without_a_free_descriptor_the_kernel_denies_what_waits() {
    const ALONE: &str = "DRIFTMARK_TEST_WITH_FEW_DESCRIPTORS";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("own program");
        let name = "fanotify::tests::gate::without_a_free_descriptor_the_kernel_denies_what_waits";
        let run = Command::new(own)
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .expect("run itself");
        let said = String::from_utf8_lossy(&run.stdout);
        print!("{said}");
        assert!(run.status.success() && said.contains("1 passed"), "{run:?}");
        return;
    }
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        // The one that comes first takes two descriptors; of the other nothing is said.
        for (free, expected) in [(0, [Some(126), Some(126)]), (2, [Some(0), Some(126)])] {
            match with_descriptors(free, place) {
                Ok((outcome, mut codes)) => {
                    codes.sort_unstable();
                    assert_eq!(codes, expected, "126: found, and not to be run");
                    let error = outcome.err().and_then(|error| error.raw_os_error());
                    assert_eq!(error, (free == 0).then_some(libc::EMFILE));
                }
                Err(error) => lab::skip(&format!("questions of the kernel: {error}")),
            }
        }
    });
}

/// Runs `place/program` twice, and reads while this process has so many descriptors free: what comes of the reads, and the
/// codes that the runs end with.
fn with_descriptors(free: usize, place: &Path) -> io::Result<(io::Result<()>, [Option<i32>; 2])> {
    let run = format!("read line; exec {}", place.join("program").display());
    let mut shells = [(); 2].map(|()| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &run]).stdin(Stdio::piped());
        shell.stderr(Stdio::null()).spawn().expect("run sh")
    });
    let gate = Gate::open().expect("a gate");
    let top = File::open(place).expect("open");
    let guarded = gate.guard(top.as_fd());
    let before = rustix::process::getrlimit(Resource::Nofile);
    // The lowest numbers that are free, and the first that is not allowed.
    let null = || File::open("/dev/null").expect("open");
    let files: Vec<File> = (0..=free).map(|_| null()).collect();
    let last = files.last().map(AsRawFd::as_raw_fd);
    let few = Rlimit {
        current: last.and_then(|last| u64::try_from(last).ok()),
        ..before
    };
    drop(files);
    rustix::process::setrlimit(Resource::Nofile, few).expect("lower the limit");
    let mut outcome = Ok(());
    if guarded.is_ok() {
        for shell in &mut shells {
            // Not closed: its number would be free.
            let input = shell.stdin.as_mut().expect("its input");
            input.write_all(b"\n").expect("tell it to run");
        }
        let both = 2 * METADATA_BYTES as u64;
        while rustix::io::ioctl_fionread(&gate).expect("how much waits") < both {
            std::thread::yield_now();
        }
        let mut buffer = Buffer::default();
        // Each read that fails has one of them denied.
        for _ in 0..2 {
            outcome = outcome.and(gate.read(&mut buffer).map(drop));
        }
    }
    rustix::process::setrlimit(Resource::Nofile, before).expect("raise the limit");
    let codes = shells.map(|mut shell| shell.wait().expect("wait").code());
    guarded.map(|()| (outcome, codes))
}
