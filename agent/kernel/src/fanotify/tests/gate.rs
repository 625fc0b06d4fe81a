//! Executions that wait for an answer. Only ever on file systems of the tests' own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::process::{Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::{Answer, Gate};
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
fn questions_that_nobody_takes_are_allowed_and_so_is_all_when_the_gate_is_closed() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        fs::copy("/bin/true", place.join("program")).expect("copy a program");
        // Started before: a child that is about to run something holds what its parent has open, and a gate that
        // somebody holds is not closed.
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
            return lab::skip(&format!("questions of the kernel: {error}"));
        }
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
