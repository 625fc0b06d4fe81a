//! Nothing in, which boot this is and what its clocks say out.

use std::fs::File;
use std::io::{self, Read as _};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The random id of this boot, as the kernel spells it: a UUID in lower case.
///
/// As process 1 sees it where that can be asked: a container has an id of its own mounted there, which the sandbox of
/// a unit (`ProtectKernelTunables=`) hides from its processes.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = read(&format!("/proc/1/root{PATH}")).or_else(|_| read(PATH))?;
    Ok(text.trim_end().to_owned())
}

/// What lies there in process 1's view is whatever that has put there.
fn read(path: &str) -> io::Result<String> {
    const ID_BYTES: u64 = 64;
    let mut text = String::new();
    File::open(path)?.take(ID_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Nanoseconds since boot, sleep included: never set, never back.
pub fn boottime_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0)
}

/// Nanoseconds since 1970 as the machine believes; may jump either way. Reaches to the year 2262.
pub fn realtime_ns() -> i64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(time: Timespec) -> i64 {
    #[allow(
        clippy::useless_conversion,
        reason = "narrower where the C long is 32 bits"
    )]
    let fraction = i64::from(time.tv_nsec);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_a_uuid_and_stays() {
        let id = boot_id().expect("boot id");
        assert_eq!(id.len(), 36);
        assert!(
            id.bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
        );
        assert_eq!(boot_id().expect("boot id"), id);
    }

    #[test]
    fn the_boot_clock_goes_forward_and_the_real_one_is_of_this_century() {
        let earlier = boottime_ns();
        assert!(earlier > 0);
        assert!(boottime_ns() >= earlier);
        assert!(realtime_ns() > 1_000_000_000_000_000_000);
    }
}
