//! Nothing in; how long this thread waited for a processor out: time in which it did not work, though it wanted to.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

thread_local! {
    static FILE: OnceCell<Option<File>> = const { OnceCell::new() };
    static SEEN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// From now on.
pub(super) fn forget() {
    SEEN.set(total());
}

/// Since this thread last forgot. Nothing where the kernel does not tell (`CONFIG_SCHED_INFO`).
pub(super) fn since() -> Duration {
    total().saturating_sub(SEEN.get())
}

/// The second number of `/proc/thread-self/schedstat`, nanoseconds: `1234 567 8`.
fn total() -> Duration {
    FILE.with(|file| {
        let file = file.get_or_init(|| File::open("/proc/thread-self/schedstat").ok());
        let mut bytes = [0; 64];
        let count = file.as_ref()?.read_at(&mut bytes, 0).ok()?;
        let text = str::from_utf8(&bytes[..count]).ok()?;
        let waited = text.split(' ').nth(1)?.parse().ok()?;
        Some(Duration::from_nanos(waited))
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_shares_a_processor_waits_for_it_and_who_sleeps_does_not() {
        forget();
        std::thread::park_timeout(Duration::from_millis(100));
        assert!(since() < Duration::from_millis(50), "{:?}", since());
        let cores = std::thread::available_parallelism().unwrap().get();
        let ends = Instant::now() + Duration::from_millis(300);
        let spin = || {
            forget();
            while Instant::now() < ends {}
            since()
        };
        let waited: Duration = std::thread::scope(|scope| {
            let spinning: Vec<_> = (0..2 * cores).map(|_| scope.spawn(spin)).collect();
            spinning.into_iter().map(|one| one.join().unwrap()).sum()
        });
        if !std::path::Path::new("/proc/thread-self/schedstat").exists() {
            return println!("skipped: this kernel does not tell");
        }
        assert!(waited > Duration::from_millis(100), "{waited:?}");
    }
}
