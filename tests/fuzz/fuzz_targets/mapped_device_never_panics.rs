//! What device-mapper says of a device: targets within the answer, and a root hash only of what a verity target writes.
#![no_main]

use driftmark_kernel::mapped::{self, Verity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let count = u32::from(data.first().copied().unwrap_or(0));
    if let Some(targets) = mapped::targets(data, count) {
        assert_eq!(targets.len(), count as usize);
        let lines: usize = targets.iter().map(|target| target.line.len()).sum();
        assert!(lines <= data.len(), "each byte is of one line");
    }
    let (table, status) = data.split_at(data.len() - data.len().min(2));
    if let Some(verity) = Verity::parse(table, status) {
        assert!((1..=64).contains(&verity.root_hash.len()));
        assert!(!verity.algorithm.is_empty() && verity.algorithm.is_ascii());
    }
});
