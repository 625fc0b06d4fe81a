//! Nothing in; what others felt during a rest out: the kernel's pressure files (Linux 4.20) and its list of who runs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::controller::Felt;

/// The files that tell, open.
#[derive(Debug)]
pub struct Pressure {
    /// Of processors, disks and memory; none where the kernel has none, or was told to have none.
    stalls: [Option<File>; 3],
    load: Option<File>,
    begun: Option<(Instant, [u64; 3])>,
}

/// `some`: at least one task waited.
const STALLS: [&str; 3] = [
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
];
/// Both are a line or two.
const LINE_BYTES: usize = 256;

impl Pressure {
    /// Opens what there is.
    pub fn open() -> Self {
        Pressure {
            stalls: STALLS.map(|path| File::open(path).ok().filter(|file| total(file).is_some())),
            load: File::open("/proc/loadavg").ok(),
            begun: None,
        }
    }

    /// Whether the kernel tells how long anybody waits.
    pub fn is_told(&self) -> bool {
        self.stalls.iter().all(Option::is_some)
    }

    pub(super) fn rest_begins(&mut self) {
        self.begun = Some((Instant::now(), self.totals()));
    }

    pub(super) fn rest_ends(&mut self) -> Felt {
        let Some((began, before)) = self.begun.take() else {
            return Felt::default();
        };
        let rested = began.elapsed().as_micros().max(1) as f64;
        let waited = self.totals().into_iter().zip(before);
        let waited = waited.map(|(after, before)| after.saturating_sub(before));
        Felt {
            waited: waited.max().unwrap_or_default() as f64 / rested,
            // One of those that run reads this.
            is_busy: self.load.as_ref().and_then(running).is_some_and(|n| n > 1),
        }
    }

    fn totals(&self) -> [u64; 3] {
        self.stalls
            .each_ref()
            .map(|file| file.as_ref().and_then(total).unwrap_or_default())
    }
}

/// Microseconds since boot in which somebody waited: `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`.
fn total(file: &File) -> Option<u64> {
    let mut bytes = [0; LINE_BYTES];
    let line = first_line(file, &mut bytes)?;
    line.strip_prefix("some ")?
        .rsplit_once("total=")?
        .1
        .parse()
        .ok()
}

/// How many tasks run or could: `0.20 0.18 0.12 1/80 11206`.
fn running(file: &File) -> Option<u64> {
    let mut bytes = [0; LINE_BYTES];
    let line = first_line(file, &mut bytes)?;
    line.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

fn first_line<'b>(file: &File, bytes: &'b mut [u8; LINE_BYTES]) -> Option<&'b str> {
    let count = file.read_at(bytes, 0).ok()?;
    str::from_utf8(&bytes[..count]).ok()?.lines().next()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them_and_no_others() {
        let line = "some avg10=0.07 avg60=0.15 avg300=0.53 total=8548878\nfull avg10=0.06 avg60=0.04 avg300=0.31 total=6\n";
        assert_eq!(total(&of(line)), Some(8_548_878));
        assert_eq!(running(&of("0.20 0.18 0.12 3/80 11206\n")), Some(3));
        for odd in ["", "some", "full total=1", "some total=", "\u{e9}"] {
            assert_eq!((total(&of(odd)), running(&of(odd))), (None, None), "{odd}");
        }
    }

    #[test]
    fn where_nothing_is_told_nobody_waits_and_who_runs_is_still_seen() {
        let mut pressure = Pressure {
            stalls: [None, None, None],
            load: Some(of("0.20 0.18 0.12 3/80 11206\n")),
            begun: None,
        };
        assert!(!pressure.is_told());
        pressure.rest_begins();
        let felt = pressure.rest_ends();
        assert_eq!((felt.waited, felt.is_busy), (0.0, true));
    }

    #[test]
    fn the_wait_for_a_processor_that_two_share_is_told() {
        let mut pressure = Pressure::open();
        if !pressure.is_told() {
            return println!("skipped: this kernel tells no pressure");
        }
        let cores = std::thread::available_parallelism().unwrap().get();
        let ends = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            for _ in 0..cores + 1 {
                scope.spawn(|| while Instant::now() < ends {});
            }
            pressure.rest_begins();
            std::thread::park_timeout(Duration::from_millis(250));
            let felt = pressure.rest_ends();
            assert!(felt.waited > 0.1 && felt.is_busy, "{felt:?}");
        });
    }
}
