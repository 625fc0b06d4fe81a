//! Which system calls the daemon may make.
//!
//! Two filters. The first ends the process at once where a call can only be an intruder's: running a program, entering
//! or changing a namespace, a mount, another process or the kernel. systemd starts the agent anew, and the journal and
//! the collector (which sees another run) tell of it. The second lets through what the daemon does, and lets all else
//! appear not to exist (`ENOSYS`): a library of tomorrow that meets a call which is not on the list then takes its older
//! way. With `EPERM` it would fail, and with death a harmless update would silence a whole fleet at once.
//!
//! An x86-64 process that calls by the 32-bit table is ended as well (seccompiler checks the architecture).

mod listed;

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use listed::{DEADLY, MEMORY, OLDER, OWN, READING, SPEAKING, THREADS, TIME, WATCHING, WRITING};

/// System calls that stay as free as they were.
#[derive(Debug, thiserror::Error)]
#[error("filter system calls")]
pub struct CallsError(#[from] seccompiler::Error);

/// Filters the system calls of all threads of this process, and of those that they start, for good.
///
/// Call it once everything is open that needs more: it can do no more than give up capabilities, read any file, write
/// files that it has the right to, speak over sockets, and watch.
///
/// # Errors
/// The kernel has no seccomp, or a thread has a filter of its own.
pub fn filter_calls() -> Result<(), CallsError> {
    for program in programs().map_err(seccompiler::Error::from)? {
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let compile = |rules, mismatch, matched| {
        SeccompFilter::new(rules, mismatch, matched, architecture)?.try_into()
    };
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let not_there = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok([
        compile(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?,
        compile(allowed()?, not_there, SeccompAction::Allow)?,
    ])
}

/// By call: no rule for any arguments, else one of the rules has to hold.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let groups = [
        MEMORY, THREADS, READING, WATCHING, WRITING, SPEAKING, TIME, OWN, OLDER,
    ];
    let calls = groups.into_iter().flatten();
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();

    // Threads, never processes, and in its own namespaces. `clone3` hides its flags from a filter; the C library does
    // without it.
    let thread = libc::CLONE_THREAD as u64;
    let looked_at = Is::MaskedEq(thread | NAMESPACES);
    rules.insert(
        libc::SYS_clone,
        vec![only(0, Length::Qword, looked_at, thread)?],
    );
    // What it does to itself (`abort` is a signal to the own thread), it does to nobody else.
    let own = u64::from(std::process::id());
    for (call, itself) in [(libc::SYS_tgkill, own), (libc::SYS_prlimit64, 0)] {
        rules.insert(call, vec![only(0, Length::Dword, Is::Eq, itself)?]);
    }
    // A scan makes way for everyone at the disk, and nothing gets ahead of anyone.
    rules.insert(
        libc::SYS_ioprio_set,
        vec![only(2, Length::Dword, Is::Eq, IOPRIO_IDLE)?],
    );
    // For reading: a handle reaches every file of its file system, whatever the descriptor's mount shows of it. The
    // agent's own directory is a writable mount, and often of the root's file system.
    let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    rules.insert(
        libc::SYS_open_by_handle_at,
        vec![only(2, Length::Dword, Is::MaskedEq(writing), 0)?],
    );
    // The collector, the journal, the service manager, name service. Netlink tells the C library its own addresses.
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let sockets = families.map(|family| only(0, Length::Dword, Is::Eq, family as u64));
    rules.insert(
        libc::SYS_socket,
        sockets.into_iter().collect::<Result<_, _>>()?,
    );
    Ok(rules)
}

/// The rule that one argument holds to this.
fn only(
    argument: u8,
    length: Length,
    is: Is,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])
}

/// linux/ioprio.h.
const IOPRIO_IDLE: u64 = 3 << 13;

/// The flags of `clone` that make a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    /// Runs `story` in a thread that may call no more than the daemon; the test's own threads stay as they are.
    fn filtered<T: Send + 'static>(story: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(|| {
            for program in programs().expect("compile") {
                seccompiler::apply_filter(&program).expect("apply");
            }
            story()
        })
        .join()
        .expect("the story")
    }

    fn call(number: c_long, arguments: [c_long; 3]) -> Option<i32> {
        // SAFETY: the numbers and arguments below touch no memory of this process but the handle that outlives the call.
        let answer = unsafe { libc::syscall(number, arguments[0], arguments[1], arguments[2]) };
        (answer < 0)
            .then(|| std::io::Error::last_os_error().raw_os_error())
            .flatten()
    }

    #[test]
    fn the_daily_work_goes_on() {
        filtered(|| {
            let directory = tempfile::tempdir().expect("make a directory");
            std::fs::write(directory.path().join("a"), b"state").expect("write");
            std::fs::rename(directory.path().join("a"), directory.path().join("b"))
                .expect("rename");
            std::thread::spawn(|| ()).join().expect("a thread");
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
            let address = listener.local_addr().expect("ask");
            std::net::TcpStream::connect(address).expect("connect");
            use std::net::ToSocketAddrs as _;
            assert!(("localhost", 1).to_socket_addrs().is_ok());
            assert!(std::fs::read_dir("/proc").expect("list").count() > 0);
        });
    }

    #[test]
    fn what_the_daemon_never_does_seems_not_to_exist() {
        let packet = [libc::AF_PACKET, libc::SOCK_RAW, 0].map(c_long::from);
        let fork = [c_long::from(libc::SIGCHLD), 0, 0];
        let elsewhere = [c_long::from(libc::CLONE_THREAD | libc::CLONE_NEWNS), 0, 0];
        let refused = [
            ("a raw socket", libc::SYS_socket, packet),
            ("a process", libc::SYS_clone, fork),
            (
                "a thread that sees other mounts",
                libc::SYS_clone,
                elsewhere,
            ),
            ("a signal to another process", libc::SYS_kill, [1, 0, 0]),
            ("a signal to another's thread", libc::SYS_tgkill, [1, 1, 0]),
            ("another's limits", libc::SYS_prlimit64, [1, 7, 0]),
            ("another filter", libc::SYS_seccomp, [1, 0, 0]),
            ("io_uring", libc::SYS_io_uring_setup, [1, 0, 0]),
            ("a device node", libc::SYS_mknodat, [-1, 0, 0]),
            ("a hard link", libc::SYS_linkat, [-1, 0, -1]),
            ("the clock", libc::SYS_clock_settime, [0, 0, 0]),
            ("capabilities", libc::SYS_capset, [0, 0, 0]),
            ("a key ring", libc::SYS_keyctl, [0, 0, 0]),
            ("a call of tomorrow", 9_999, [0, 0, 0]),
        ];
        for (what, number, arguments) in refused {
            let answer = filtered(move || call(number, arguments));
            assert_eq!(answer, Some(libc::ENOSYS), "{what}");
        }
    }

    /// `struct file_handle` of fcntl.h, with room for the longest.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }

    #[test]
    fn a_handle_is_opened_for_reading_alone() {
        let file = tempfile::NamedTempFile::new().expect("make a file");
        let directory = std::fs::File::open(file.path().parent().expect("a directory"))
            .expect("open its directory");
        let name =
            std::ffi::CString::new(file.path().as_os_str().as_encoded_bytes()).expect("a path");
        let mut handle = Handle {
            bytes: 128,
            kind: 0,
            data: [0; 128],
        };
        let mut mount = 0_i32;
        // SAFETY: the name is a C string, and the kernel writes at most `bytes` into the handle and one number.
        let made = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                name.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                0,
            )
        };
        if made != 0 || !rustix::process::geteuid().is_root() {
            println!("skipped: opening handles needs root and a file system that has them");
            return;
        }
        let answers = filtered(move || {
            [
                libc::O_RDONLY,
                libc::O_WRONLY,
                libc::O_RDWR,
                libc::O_RDONLY | libc::O_TRUNC,
            ]
            .map(|flags| {
                let arguments = [
                    c_long::from(directory.as_raw_fd()),
                    &raw const handle as c_long,
                    c_long::from(flags),
                ];
                call(libc::SYS_open_by_handle_at, arguments)
            })
        });
        let no = Some(libc::ENOSYS);
        assert_eq!(answers, [None, no, no, no]);
    }

    #[test]
    fn no_call_is_both_let_through_and_deadly() {
        let allowed = allowed().expect("rules");
        assert!(DEADLY.iter().all(|call| !allowed.contains_key(call)));
    }

    #[test]
    fn both_architectures_are_known() {
        for name in ["x86_64", "aarch64"] {
            assert!(TargetArch::try_from(name).is_ok(), "{name}");
        }
    }
}
