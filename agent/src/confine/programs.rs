//! Looks at the machine's processes; hands on of how many the program can be named, as attribution will have to.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

/// More processes than this are not looked at for one question.
const MAX_PROCESSES: usize = 4_096;

/// How many programs of other processes can be named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// Processes whose program was read from `/proc/PID/exe`.
    pub named: u32,
    /// Processes that refused to say. Not one where the agent has the rights that it needs.
    pub refused: u32,
}

impl Programs {
    /// Of all processes but this one, whoever's they are, up to a limit.
    pub fn of_others() -> Self {
        let own = std::process::id();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let others = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|id| *id != own);
        Self::of(others.take(MAX_PROCESSES))
    }

    /// Of the processes with these ids. Kernel threads run no program, and a process may end meanwhile: these count as
    /// neither.
    fn of(ids: impl IntoIterator<Item = u32>) -> Self {
        let mut programs = Programs::default();
        for id in ids {
            match std::fs::read_link(format!("/proc/{id}/exe")) {
                Ok(_) => programs.named += 1,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => programs.refused += 1,
                Err(_) => {}
            }
        }
        programs
    }

    pub(super) fn for_people(&self) -> String {
        match self.refused {
            0 => format!("can name the programs of {} processes", self.named),
            refused => format!(
                "CANNOT name the programs of {refused} of {} processes",
                self.named + refused
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Writes, only_at};
    use super::*;

    #[test]
    fn a_program_is_named_until_a_landlock_domain_takes_that_away() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let ids = [child.id(), u32::MAX];
        let free = Programs::of(ids);
        // A thread of its own: Landlock is for good.
        let confined = std::thread::spawn(move || match only_at(&[]).unwrap() {
            Writes::Free => None,
            _ => Some(Programs::of(ids)),
        });
        let confined = confined.join().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let counts = |named, refused| Programs { named, refused };
        assert_eq!(free, counts(1, 0));
        match confined {
            Some(confined) => assert_eq!(confined, counts(0, 1)),
            None => {
                super::super::not_to_be_skipped(&Writes::Free.to_string());
                println!("skipped: {}", Writes::Free);
            }
        }
    }

    #[test]
    fn people_hear_of_what_is_refused() {
        let refused = Programs {
            named: 3,
            refused: 1,
        };
        assert_eq!(
            refused.for_people(),
            "CANNOT name the programs of 1 of 4 processes"
        );
    }
}
