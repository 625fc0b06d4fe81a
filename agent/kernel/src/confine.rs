//! Nothing in; hands back a process that can do no more than it needs: capabilities given up, system calls filtered.
//!
//! No Landlock here: any Landlock domain makes the programs of other processes unreadable (`/proc/PID/exe`), and the
//! daemon is to say who did what.

mod calls;

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

pub use calls::{CallsError, filter_calls};

/// What the daemon does that others may not: clone mounts and watch whole file systems; read what modes forbid; say
/// which program another user's process runs.
pub const NEEDED: [(&str, CapabilitySet); 3] = [
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
];

/// Gives up every capability but [`NEEDED`], in all five sets, and every way to get one back.
///
/// Capabilities are a thread's own: call it before a second one is started. Where `CAP_SETPCAP` is missing the bounding
/// set stays as it is: under the unit, which takes that capability away, it holds these three as well, and no program is
/// ever executed ([`filter_calls`]).
///
/// # Errors
/// The kernel refuses to take capabilities away, which it never should.
pub fn give_up_capabilities() -> io::Result<()> {
    let needed = NEEDED
        .iter()
        .fold(CapabilitySet::empty(), |set, (_, one)| set | *one);
    rustix::thread::set_no_new_privs(true)?;
    // Unknown to Linux before 4.3, which has no such set to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !needed.contains(one) && rustix::thread::capability_is_in_bounding_set(one) == Ok(true) {
            let _ = rustix::thread::remove_capability_from_bounding_set(one);
        }
    }
    let kept = rustix::thread::capabilities(None)?.permitted & needed;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// The names of the capabilities that this thread could use; those beyond [`NEEDED`] by their numbers.
///
/// # Errors
/// The kernel has no capabilities.
pub fn held_capabilities() -> io::Result<Vec<String>> {
    let held = rustix::thread::capabilities(None)?.permitted;
    let numbers = (0..u64::BITS).filter(|number| held.bits() & (1 << number) != 0);
    let name = |number: u32| {
        let known = NEEDED.iter().find(|(_, one)| one.bits() == 1 << number);
        known.map_or_else(
            || format!("capability {number}"),
            |(name, _)| (*name).to_owned(),
        )
    };
    Ok(numbers.map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_given_up_for_good() {
        // Capabilities are a thread's own; the test process keeps its.
        std::thread::spawn(|| {
            give_up_capabilities().expect("give up");
            let sets = rustix::thread::capabilities(None).expect("read");
            for (name, set) in [("effective", sets.effective), ("permitted", sets.permitted)] {
                let extra = NEEDED.iter().fold(set, |set, (_, one)| set - *one);
                assert!(extra.is_empty(), "{name}: {extra:?}");
            }
            assert!(sets.inheritable.is_empty());
            let again = CapabilitySets {
                effective: sets.effective | CapabilitySet::DAC_OVERRIDE,
                permitted: sets.permitted | CapabilitySet::DAC_OVERRIDE,
                inheritable: CapabilitySet::empty(),
            };
            assert!(rustix::thread::set_capabilities(None, again).is_err());
            assert!(rustix::thread::no_new_privs().expect("read"));
            let held = held_capabilities().expect("read");
            assert!(held.iter().all(|name| name.starts_with("CAP_")), "{held:?}");
            if rustix::process::geteuid().is_root() {
                assert_eq!(sets.permitted.bits().count_ones(), 3);
            }
        })
        .join()
        .expect("the thread");
    }
}
