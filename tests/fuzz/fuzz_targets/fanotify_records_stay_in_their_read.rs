//! What a read of fanotify brings: whatever the bytes are, all that is told lies within its own record, in order.
#![no_main]

use driftmark_kernel::fanotify::{Handle, Info, Place, records};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut begun = data.as_ptr();
    let end = data.as_ptr_range().end;
    let mut count = 0;
    for record in records(data).flatten() {
        count += 1;
        for info in record.infos().flatten() {
            let (handle, name) = match info {
                Info::Object(handle) | Info::Directory(handle) => (handle, None),
                Info::Place(Place { directory, name })
                | Info::From(Place { directory, name })
                | Info::To(Place { directory, name }) => (directory, Some(name)),
                Info::Pidfd(_) | Info::Mount(_) | Info::Fault(_) | Info::Unknown(_) => continue,
            };
            assert!(handle.bytes.len() <= Handle::MAX_BYTES);
            for told in [Some(handle.bytes), name].into_iter().flatten() {
                let range = told.as_ptr_range();
                assert!(range.start >= begun && range.end <= end, "outside, or out of order");
                begun = range.end;
            }
            if let Some(name) = name {
                assert!(!name.is_empty() && !name.contains(&0) && !name.contains(&b'/'));
            }
        }
    }
    assert!(count * 24 <= data.len());
});
