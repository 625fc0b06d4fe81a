//! An open descriptor, or a name in a directory, in; all its extended attributes out.
//!
//! Everything that this process may see, unfiltered: what is held is the language's decision.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::sys;

/// Names and values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of an open file or directory; empty where the file system has none.
///
/// # Errors
/// Those of `flistxattr` and `fgetxattr`; `E2BIG` for a list above the kernel's own limit of 64 KiB; `EAGAIN` if
/// attributes came and went all the while.
pub fn of(fd: &impl AsFd) -> io::Result<Xattrs> {
    Ok(read(&Open(fd.as_fd()))?)
}

/// The extended attributes of the one component `name` in `dir`, which is not opened.
pub(crate) fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Xattrs> {
    match read(&Named(dir, name)) {
        // Unknown before Linux 6.13; EPERM is what older seccomp filters answer to system calls they do not know.
        Err(Errno::NOSYS | Errno::PERM) => Ok(read(&ThroughProc::new(dir, name))?),
        outcome => Ok(outcome?),
    }
}

/// Where attributes are read from. Both calls fill `buffer` and say how much of it, or `ERANGE`.
trait Source {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize>;
    fn value(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize>;
}

struct Open<'a>(BorrowedFd<'a>);

impl Source for Open<'_> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::fs::flistxattr(self.0, buffer)
    }

    fn value(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::fs::fgetxattr(self.0, name, buffer)
    }
}

struct Named<'a>(BorrowedFd<'a>, &'a CStr);

impl Source for Named<'_> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        sys::listxattrat(self.0, self.1, buffer)
    }

    fn value(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        sys::getxattrat(self.0, self.1, name, buffer)
    }
}

/// The one path that names a component below a descriptor: `thread-self`, as a thread may have descriptors of its own.
struct ThroughProc(Vec<u8>);

impl ThroughProc {
    fn new(dir: BorrowedFd<'_>, name: &CStr) -> ThroughProc {
        let mut path = format!("/proc/thread-self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        ThroughProc(path)
    }
}

impl Source for ThroughProc {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::fs::llistxattr(&self.0, buffer)
    }

    fn value(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::fs::lgetxattr(&self.0, name, buffer)
    }
}

fn read(source: &impl Source) -> rustix::io::Result<Xattrs> {
    for _ in 0..ATTEMPTS {
        let names = match filled(|buffer| source.list(buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            outcome => outcome?,
        };
        match values(source, &names) {
            // Listed, then gone: the list was of a moment that has passed.
            Err(Errno::NODATA) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

fn values(source: &impl Source, names: &[u8]) -> rustix::io::Result<Xattrs> {
    let mut found = Xattrs::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::IO)?;
        let value = filled(|buffer| source.value(name, buffer))?;
        found.push((name.to_bytes().to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls once with room for what is usual, and once more with room for all that the kernel ever returns; a size asked
/// for beforehand could be outgrown.
fn filled(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut usual = [0; USUAL_BYTES];
    match call(&mut usual) {
        Err(Errno::RANGE) => {
            let mut most = vec![0; MOST_BYTES];
            let length = call(&mut most)?;
            most.truncate(length);
            most.shrink_to_fit();
            Ok(most)
        }
        outcome => outcome.map(|length| usual[..length].to_vec()),
    }
}

/// A list of SELinux, IMA, capability and ACL names, or any one of their values.
const USUAL_BYTES: usize = 1024;

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`: the kernel returns no more, of either.
const MOST_BYTES: usize = 64 * 1024;

/// A removal between list and value is rare; one in every attempt is somebody's doing, and is reported.
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::path::Path;

    use rustix::fs::XattrFlags;

    use super::*;
    use crate::lab;

    fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
    }

    fn pair(name: &str, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (name.as_bytes().to_vec(), value.to_vec())
    }

    #[test]
    fn files_and_directories_give_all_sorted_by_name() {
        let place = lab::place();
        let path = place.path().join("file");
        let file = File::create_new(&path).expect("create file");
        assert_eq!(of(&file).expect("none yet"), []);
        let large = vec![b'v'; 2000];
        if let Err(error) = set(&path, "user.z", b"a\0b\xff") {
            return println!("skipped: no user attributes here: {error}");
        }
        set(&path, "user.empty", b"").expect("set");
        set(&path, "user.large", &large).expect("set");
        let expected = [
            pair("user.empty", b""),
            pair("user.large", &large),
            pair("user.z", b"a\0b\xff"),
        ];
        assert_eq!(of(&file).expect("all"), expected);
        set(place.path(), "user.dir", b"1").expect("set");
        let dir = File::open(place.path()).expect("open directory");
        assert_eq!(of(&dir).expect("all"), [pair("user.dir", b"1")]);
        assert_eq!(at(dir.as_fd(), c"file").expect("all"), expected);
    }

    #[test]
    fn a_list_longer_than_usual_is_read_whole() {
        lab::with_own_mounts(|place| {
            lab::mount_tmpfs(place);
            let path = place.join("file");
            let file = File::create_new(&path).expect("create file");
            for number in 0..100 {
                set(&path, &format!("trusted.{number:0>200}"), b"v").expect("set");
            }
            assert_eq!(of(&file).expect("all").len(), 100);
        });
    }

    #[test]
    fn what_is_never_opened_gives_its_own_by_either_way() {
        let place = lab::place();
        lab::one_of_each(place.path());
        let dir = File::open(place.path()).expect("open directory");
        for name in [
            c"symlink",
            c"fifo",
            c"socket",
            c"char-device",
            c"block-device",
        ] {
            let path = place.path().join(name.to_str().expect("plain name"));
            if let Err(error) = set(&path, "trusted.mark", name.to_bytes()) {
                println!("skipped: {name:?}: no trusted attributes here: {error}");
                continue;
            }
            let found = at(dir.as_fd(), name).expect("by name");
            assert!(found.contains(&pair("trusted.mark", name.to_bytes())));
            let through_proc = read(&ThroughProc::new(dir.as_fd(), name)).expect("through /proc");
            assert_eq!(found, through_proc);
            match read(&Named(dir.as_fd(), name)) {
                Err(Errno::NOSYS) => {
                    println!("skipped: listxattrat is not known before Linux 6.13")
                }
                by_name => assert_eq!(by_name, Ok(found)),
            }
        }
        assert_eq!(at(dir.as_fd(), c"file").expect("the link's target"), []);
    }

    #[test]
    fn a_file_system_without_attributes_gives_none() {
        let status = File::open("/proc/self/status").expect("open status");
        assert_eq!(of(&status).expect("no support is no error"), []);
    }

    #[test]
    fn an_attribute_that_goes_between_list_and_value_is_tried_again() {
        let flickering = Flickering {
            for_calls: 1,
            calls: Cell::new(0),
        };
        assert_eq!(read(&flickering), Ok(vec![pair("user.a", b"v")]));
        let never_there = Flickering {
            for_calls: usize::MAX,
            calls: Cell::new(0),
        };
        assert_eq!(read(&never_there), Err(Errno::AGAIN));
        assert_eq!(never_there.calls.get(), ATTEMPTS);
    }

    /// The race itself cannot be timed; this is its answer.
    struct Flickering {
        for_calls: usize,
        calls: Cell<usize>,
    }

    impl Source for Flickering {
        fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
            buffer[..7].copy_from_slice(b"user.a\0");
            Ok(7)
        }

        fn value(&self, _: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() <= self.for_calls {
                return Err(Errno::NODATA);
            }
            buffer[0] = b'v';
            Ok(1)
        }
    }
}
