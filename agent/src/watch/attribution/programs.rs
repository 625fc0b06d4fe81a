//! Which program a process has started last: for those that end before they are looked at.

use std::collections::{HashMap, VecDeque};

use drift::attribution::{Attribution, Executable, Origin};

use super::shown;

/// The programs of the processes that ran one last.
#[derive(Debug, Default)]
pub(super) struct Programs {
    by_process: HashMap<u32, Last>,
    /// Oldest first; a process that ran another since is in it twice, and counts by its number.
    order: VecDeque<(u32, u64)>,
    count: u64,
}

#[derive(Debug)]
struct Last {
    number: u64,
    started: Option<u64>,
    program: Executable,
}

impl Programs {
    /// As many processes as start within the second that a reader may be late, on a machine that does nothing else: half
    /// a megabyte with paths as they are, and less than three if each is as long as it may be
    /// ([`Attribution::MAX_TEXT_BYTES`]).
    const MOST: usize = 2048;

    /// `started` asks when the process started, which is asked of no loader.
    pub(super) fn ran(
        &mut self,
        pid: u32,
        started: impl FnOnce() -> Option<u64>,
        path: &[u8],
        origin: Origin,
    ) {
        // The kernel opens it behind the program, and it is not what `/proc/PID/exe` says then. Only the image's: anybody
        // may call a program that.
        if origin == Origin::Image && is_loader(path) {
            return;
        }
        self.count += 1;
        let last = Last {
            number: self.count,
            started: started(),
            program: Executable {
                path: shown(path, Attribution::MAX_TEXT_BYTES),
                origin,
            },
        };
        self.by_process.insert(pid, last);
        self.order.push_back((pid, self.count));
        while self.order.len() > Programs::MOST {
            let Some((pid, number)) = self.order.pop_front() else {
                break;
            };
            if self
                .by_process
                .get(&pid)
                .is_some_and(|last| last.number == number)
            {
                self.by_process.remove(&pid);
            }
        }
    }

    /// What it ran. Where it is known when the process in question started, only what is known to be of just that one;
    /// where it is not, whatever had the number last.
    pub(super) fn of(&self, pid: u32, started: Option<u64>) -> Option<&Executable> {
        let last = self.by_process.get(&pid)?;
        let is_its = match (last.started, started) {
            (Some(then), Some(now)) => then == now,
            (None, Some(_)) => false,
            _ => true,
        };
        is_its.then_some(&last.program)
    }
}

/// Whether it is called as loaders are: `ld-linux-x86-64.so.2`, `ld-musl-x86_64.so.1`, `ld.so`.
pub(crate) fn is_loader(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    let rest = name.strip_prefix("ld");
    rest.is_some_and(|rest| rest.starts_with(['-', '.', '6']) && rest.contains(".so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_program_counts_and_its_loader_does_not() {
        let mut programs = Programs::default();
        for path in [
            "/bin/sh",
            "/usr/bin/tee",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-musl-x86_64.so.1",
        ] {
            programs.ran(7, || Some(1), path.as_bytes(), Origin::Image);
        }
        let path = |found: Option<&Executable>| found.map(|program| program.path.clone());
        assert_eq!(path(programs.of(7, Some(1))), Some("/usr/bin/tee".into()));
        assert_eq!(path(programs.of(7, None)), Some("/usr/bin/tee".into()));
        assert_eq!(
            path(programs.of(7, Some(2))),
            None,
            "another process has the number"
        );
        assert_eq!(path(programs.of(8, None)), None);
        programs.ran(9, || None, b"/bin/sh", Origin::Image);
        assert_eq!(path(programs.of(9, None)), Some("/bin/sh".into()));
        assert_eq!(path(programs.of(9, Some(1))), None, "it may be another's");
        assert!(!is_loader(b"/usr/bin/ldd") && !is_loader(b"/usr/bin/ld"));
    }

    #[test]
    fn only_the_images_loaders_are_passed_over() {
        let mut programs = Programs::default();
        let foreign = "/tmp/ld-evil.so";
        for origin in [Origin::Foreign, Origin::Unknown, Origin::Image] {
            programs.ran(7, || Some(1), b"/bin/sh", Origin::Image);
            programs.ran(7, || Some(1), foreign.as_bytes(), origin);
            let found = programs.of(7, Some(1)).map(|program| &*program.path);
            let is_told = found == Some(foreign);
            assert_eq!(is_told, origin != Origin::Image, "{origin:?}");
        }
    }

    #[test]
    fn it_remembers_no_more_than_it_may() {
        let mut programs = Programs::default();
        for pid in 0..3 * Programs::MOST as u32 {
            programs.ran(pid % 5000, || Some(1), b"/bin/true", Origin::Foreign);
            assert!(programs.order.len() <= Programs::MOST);
            assert!(programs.by_process.len() <= Programs::MOST);
        }
        for _ in 0..2 * Programs::MOST {
            programs.ran(1, || Some(1), b"/bin/true", Origin::Foreign);
        }
        assert_eq!(programs.by_process.len(), 1);
    }
}
