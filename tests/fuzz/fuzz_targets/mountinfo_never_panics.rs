//! `/proc/PID/mountinfo`: every line is understood or the whole is refused.
#![no_main]

use driftmark_kernel::mounts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(mounts) = mounts::parse(data) {
        let lines = data
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
        assert_eq!(mounts.len(), lines, "no mount is left out");
        let _ = mounts::topmost_below(&mounts, b"/");
        if let Some(mount) = mounts.first() {
            let _ = mounts::topmost_below(&mounts, &mount.point);
        }
    }
});
