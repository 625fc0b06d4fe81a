//! A file that was read in, its clean pages out of the page cache.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::Advice;

/// Asks the kernel to drop the cached pages of `file` that are clean and unmapped.
///
/// For pages that only a scan brought in; those that others use would be read again from the disk.
///
/// # Errors
/// Those of `posix_fadvise`.
pub fn drop_file(file: &impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Write};

    use rustix::io::{Errno, ReadWriteFlags};

    use super::*;
    use crate::lab;

    #[test]
    fn a_dropped_file_is_no_longer_cached() {
        let place = lab::place();
        let path = place.path().join("file");
        let mut file = File::create_new(&path).expect("create file");
        file.write_all(&[7; 8192]).expect("fill file");
        file.sync_all().expect("pages are dropped only when clean");
        let file = File::open(&path).expect("open file");
        match cached(&file) {
            Err(Errno::OPNOTSUPP) => {
                return println!("skipped: no RWF_NOWAIT here to see the page cache with");
            }
            outcome => assert!(outcome.expect("read without waiting")),
        }
        drop_file(&file).expect("drop");
        assert!(!cached(&file).expect("read without waiting"));
    }

    fn cached(file: &File) -> rustix::io::Result<bool> {
        let mut byte = [0];
        let buffers = &mut [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, buffers, 0, ReadWriteFlags::NOWAIT) {
            Ok(length) => Ok(length == 1),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
