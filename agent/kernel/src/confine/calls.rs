//! Which system calls the daemon may make.
//!
//! Two filters. The first ends the process at once where a call can only be an intruder's: running a program, entering
//! or changing a namespace, a mount, another process or the kernel. systemd starts the agent anew, and the journal and
//! the collector (which sees another run) tell of it. The second lets through what the daemon does, and lets all else
//! appear not to exist (`ENOSYS`): a library of tomorrow that meets a call which is not on the list then takes its older
//! way. With `EPERM` it would fail, and with death a harmless update would silence a whole fleet at once.
//!
//! An x86-64 process that calls by the 32-bit table is ended as well (seccompiler checks the architecture).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

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

/// What only an intruder would call.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
];

const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_memfd_create,
];

const THREADS: &[c_long] = &[
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_prctl,
];

const READING: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    SYS_FACCESSAT2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    SYS_GETXATTRAT,
    SYS_LISTXATTRAT,
    SYS_FILE_GETATTR,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    SYS_CACHESTAT,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_name_to_handle_at,
];

/// The live watch.
const WATCHING: &[c_long] = &[
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_pidfd_open,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

/// Its state: the unit leaves it nothing else to write.
const WRITING: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
];

const SPEAKING: &[c_long] = &[
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    SYS_EPOLL_PWAIT2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
];

const TIME: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
];

/// What it may know of itself.
const OWN: &[c_long] = &[
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_capget,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcpu,
];

/// The same by the names that they had before: aarch64 came too late to have them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

// System calls have had the same number on all architectures that Driftmark is built for since 424; libc does not have
// all of these for both C libraries.
const SYS_FACCESSAT2: c_long = 439;
const SYS_EPOLL_PWAIT2: c_long = 441;
const SYS_CACHESTAT: c_long = 451;
const SYS_STATMOUNT: c_long = 457;
const SYS_LISTMOUNT: c_long = 458;
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;
const SYS_FILE_GETATTR: c_long = 468;

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
