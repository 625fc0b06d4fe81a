//! What a change of a file system makes the kernel say: where, and who.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use rustix::fs::{CWD, FallocateFlags, FileType, IFlags, Mode, XattrFlags};

use super::*;

/// What has to be seen: the path below the top, and with a rename the one before.
enum Expected {
    At(Mask, &'static str),
    Renamed(&'static str, &'static str),
    Nothing,
}
use Expected::{At, Nothing, Renamed};

type Mutation = (&'static str, fn(&Path), Expected);

/// `base/file` and `base/alias/link` are one file, `base/old` and `base/full` (with `inside`) are there as well.
fn lay_ground(root: &Path) {
    fs::create_dir_all(root.join("base/alias")).expect("create directories");
    fs::create_dir(root.join("base/full")).expect("create a directory");
    for name in ["file", "old", "full/inside"] {
        fs::write(root.join("base").join(name), [b'x'; 8192]).expect("write a file");
    }
    fs::hard_link(root.join("base/file"), root.join("base/alias/link")).expect("link");
    fs::copy("/bin/true", root.join("base/program")).expect("copy a program");
}

fn writable(path: &Path) -> File {
    File::options()
        .write(true)
        .read(true)
        .open(path)
        .expect("open for writing")
}

const MUTATIONS: &[Mutation] = &[
    (
        "written in place",
        |root| {
            writable(&root.join("base/file"))
                .write_all_at(b"changed", 0)
                .expect("write");
        },
        At(Mask::MODIFY.and(Mask::CLOSE_WRITE), "base/file"),
    ),
    (
        "cut short",
        |root| {
            writable(&root.join("base/file"))
                .set_len(100)
                .expect("truncate");
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "room made for it",
        |root| {
            rustix::fs::fallocate(
                writable(&root.join("base/file")),
                FallocateFlags::empty(),
                0,
                65536,
            )
            .expect("fallocate");
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "copied into by the kernel",
        |root| {
            let (from, to) = (
                writable(&root.join("base/old")),
                writable(&root.join("base/file")),
            );
            rustix::fs::copy_file_range(&from, None, &to, None, 512).expect("copy_file_range");
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "sent into",
        |root| {
            let (from, to) = (
                writable(&root.join("base/old")),
                writable(&root.join("base/file")),
            );
            rustix::fs::sendfile(&to, &from, None, 512).expect("sendfile");
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "written through a hard link elsewhere",
        |root| {
            fs::write(root.join("base/alias/link"), b"changed").expect("write");
        },
        At(Mask::MODIFY, "base/alias/link"),
    ),
    (
        "written by another process through a descriptor that it inherited",
        |root| {
            let file = writable(&root.join("base/file"));
            let status = Command::new("echo")
                .arg("changed")
                .stdout(file)
                .status()
                .expect("run echo");
            assert!(status.success());
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "written through /proc",
        |root| {
            let process = format!("/proc/thread-self/root{}", root.join("base/file").display());
            fs::write(process, b"changed").expect("write");
        },
        At(Mask::MODIFY, "base/file"),
    ),
    (
        "mode",
        |root| {
            fs::set_permissions(root.join("base/file"), fs::Permissions::from_mode(0o6755))
                .expect("chmod");
        },
        At(Mask::ATTRIB, "base/file"),
    ),
    (
        "mode of a directory",
        |root| {
            fs::set_permissions(root.join("base/full"), fs::Permissions::from_mode(0o700))
                .expect("chmod");
        },
        At(Mask::ATTRIB.and(Mask::ON_DIRECTORY), "base/full"),
    ),
    (
        "owner",
        |root| {
            std::os::unix::fs::chown(root.join("base/file"), Some(12345), None).expect("chown");
        },
        At(Mask::ATTRIB, "base/file"),
    ),
    (
        "times",
        |root| {
            let times = fs::FileTimes::new()
                .set_accessed(SystemTime::UNIX_EPOCH)
                .set_modified(SystemTime::UNIX_EPOCH);
            writable(&root.join("base/file"))
                .set_times(times)
                .expect("utime");
        },
        At(Mask::ATTRIB, "base/file"),
    ),
    (
        "time of the last change alone",
        |root| {
            let times = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
            writable(&root.join("base/old"))
                .set_times(times)
                .expect("utime");
        },
        At(Mask::MODIFY, "base/old"),
    ),
    (
        "attribute set",
        |root| {
            let path = root.join("base/old");
            rustix::fs::setxattr(path, c"trusted.driftmark", b"x", XattrFlags::empty())
                .expect("setxattr");
        },
        At(Mask::ATTRIB, "base/old"),
    ),
    (
        "attribute removed",
        |root| {
            rustix::fs::removexattr(root.join("base/old"), c"trusted.driftmark")
                .expect("removexattr");
        },
        At(Mask::ATTRIB, "base/old"),
    ),
    (
        "capability",
        |root| {
            let mut capability = [0_u8; 20];
            capability[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
            capability[4] = 1;
            let path = root.join("base/program");
            rustix::fs::setxattr(
                path,
                c"security.capability",
                &capability,
                XattrFlags::empty(),
            )
            .expect("setcap");
        },
        At(Mask::ATTRIB, "base/program"),
    ),
    (
        "file made",
        |root| {
            fs::write(root.join("base/new"), b"").expect("create");
        },
        At(Mask::CREATE, "base/new"),
    ),
    (
        "name made",
        |root| {
            fs::hard_link(root.join("base/old"), root.join("base/second")).expect("link");
        },
        At(Mask::CREATE, "base/second"),
    ),
    (
        "link made",
        |root| {
            symlink("nowhere", root.join("base/symlink")).expect("symlink");
        },
        At(Mask::CREATE, "base/symlink"),
    ),
    (
        "fifo made",
        |root| {
            rustix::fs::mknodat(CWD, root.join("base/fifo"), FileType::Fifo, Mode::RUSR, 0)
                .expect("mkfifo");
        },
        At(Mask::CREATE, "base/fifo"),
    ),
    (
        "device made",
        |root| {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(
                CWD,
                root.join("base/null"),
                FileType::CharacterDevice,
                Mode::RUSR,
                null,
            )
            .expect("mknod");
        },
        At(Mask::CREATE, "base/null"),
    ),
    (
        "directory made",
        |root| {
            fs::create_dir(root.join("base/directory")).expect("mkdir");
        },
        At(Mask::CREATE.and(Mask::ON_DIRECTORY), "base/directory"),
    ),
    (
        "file made in a directory that has just been made",
        |root| {
            fs::create_dir(root.join("base/just")).expect("mkdir");
            fs::write(root.join("base/just/made"), b"x").expect("create");
        },
        At(Mask::CREATE, "base/just/made"),
    ),
    (
        "file removed",
        |root| {
            fs::remove_file(root.join("base/new")).expect("unlink");
        },
        At(Mask::DELETE, "base/new"),
    ),
    (
        "directory removed",
        |root| {
            fs::remove_dir(root.join("base/directory")).expect("rmdir");
        },
        At(Mask::DELETE.and(Mask::ON_DIRECTORY), "base/directory"),
    ),
    (
        "renamed",
        |root| {
            fs::rename(root.join("base/second"), root.join("base/alias/third")).expect("rename");
        },
        Renamed("base/second", "base/alias/third"),
    ),
    (
        "renamed over another",
        |root| {
            fs::rename(root.join("base/alias/third"), root.join("base/alias/link"))
                .expect("rename");
        },
        Renamed("base/alias/third", "base/alias/link"),
    ),
    (
        "directory moved with what is in it",
        |root| {
            fs::rename(root.join("base/full"), root.join("base/alias/moved")).expect("rename");
        },
        Renamed("base/full", "base/alias/moved"),
    ),
    (
        "run",
        |root| {
            assert!(
                Command::new(root.join("base/program"))
                    .status()
                    .expect("run")
                    .success()
            );
        },
        At(Mask::OPEN_EXEC, "base/program"),
    ),
    (
        "a name that is no text",
        |root| {
            fs::write(root.join("base/\n\u{1b}[31m"), b"").expect("create");
        },
        At(Mask::CREATE, "base/\n\u{1b}[31m"),
    ),
    (
        "the longest name",
        |root| {
            fs::write(root.join("base").join(LONGEST), b"").expect("create");
        },
        At(Mask::CREATE, concat!("base/", longest!())),
    ),
    (
        "the top itself",
        |root| {
            fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("chmod");
        },
        At(Mask::ATTRIB.and(Mask::ON_DIRECTORY), "."),
    ),
    (
        "file flags",
        |root| {
            let file = File::open(root.join("base/old")).expect("open");
            let flags = rustix::fs::ioctl_getflags(&file).expect("get flags");
            rustix::fs::ioctl_setflags(&file, flags | IFlags::NODUMP).expect("chattr");
        },
        Nothing,
    ),
    (
        "another file system mounted over a directory, and written in",
        |root| {
            lab::mount_tmpfs(&root.join("base/alias"));
            fs::write(root.join("base/alias/hidden"), b"x").expect("write");
        },
        Nothing,
    ),
    (
        "only read",
        |root| {
            let read = fs::read(root.join("base/old")).expect("read");
            assert_eq!(read.len(), 8192);
            assert!(fs::read_dir(root.join("base")).expect("list").count() > 3);
        },
        Nothing,
    ),
];

macro_rules! longest {
    () => {
        "llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll"
    };
}
use longest;
const LONGEST: &str = longest!();

#[test]
fn each_change_is_seen_where_it_happened_and_with_who_did_it() {
    let wrong = Mutex::new(Vec::new());
    in_each(|kind, root| {
        lay_ground(root);
        let before = pidfds();
        let mut world = World::around(root, Shows::All);
        for (label, mutate, expected) in MUTATIONS {
            mutate(&world.root);
            let seen = world.seen();
            let open = seen.iter().filter(|event| event.pidfd.is_ok()).count();
            let is_right = is_as(expected, &seen) && seen.iter().all(is_by_us_or_our_child);
            if !is_right || pidfds() - before != open {
                let mut wrong = wrong.lock().expect("the list");
                wrong.push(format!("{kind}, {label}: {seen:#?}"));
            }
        }
        drop(world);
        assert_eq!(pidfds(), before, "{kind}: no descriptor is left");
    });
    let wrong = wrong.into_inner().expect("the list");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_as(expected: &Expected, seen: &[Seen]) -> bool {
    match expected {
        At(what, path) => seen
            .iter()
            .any(|event| event.what.has(*what) && event.path.as_deref() == Some(path)),
        Renamed(from, to) => seen.iter().any(|event| {
            let names = (event.from.as_deref(), event.to.as_deref());
            event.what.has(Mask::RENAME) && names == (Some(from), Some(to))
        }),
        Nothing => seen.is_empty(),
    }
}

fn is_by_us_or_our_child(event: &Seen) -> bool {
    let is_childs = event.what.has_any(Mask::OPEN_EXEC.and(Mask::MODIFY));
    event.pid == std::process::id() && event.pidfd.is_ok() || event.pid > 0 && is_childs
}

#[test]
fn a_store_through_a_mapping_is_seen_when_the_mapping_goes_and_not_before() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
    in_each(|kind, root| {
        lay_ground(root);
        let mut world = World::around(root, Shows::All);
        let file = writable(&root.join("base/old"));
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses where, and nobody else has the file.
        let mapped =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, flags, &file, 0) };
        let mapped = mapped.expect("map");
        drop(file);
        world.seen();
        // SAFETY: the mapping is writable, of this length, and stays until it is unmapped below.
        unsafe { mapped.cast::<u8>().write_volatile(b'!') };
        // SAFETY: as above.
        unsafe { rustix::mm::msync(mapped, 4096, MsyncFlags::SYNC) }.expect("msync");
        assert_eq!(fs::read(root.join("base/old")).expect("read")[0], b'!');
        let seen = world.seen();
        assert!(seen.is_empty(), "{kind}: {seen:#?}");
        // SAFETY: nothing points into it any more.
        unsafe { rustix::mm::munmap(mapped, 4096) }.expect("unmap");
        let seen = world.seen();
        let closed = seen.iter().find(|event| event.what.has(Mask::CLOSE_WRITE));
        let path = closed.and_then(|event| event.path.as_deref());
        // What is mapped there is the file of the layer, and that one's end is never told.
        let expected = (kind != "overlay").then_some("base/old");
        assert_eq!(path, expected, "{kind}: {seen:#?}");
        assert!(!seen.iter().any(|event| event.what.has(Mask::MODIFY)));
    });
}

#[test]
fn a_write_to_the_disk_beneath_is_not_seen() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        if let Err(what) = lab::mount_ext4(place) {
            return lab::skip(what);
        }
        lay_ground(place);
        let mut world = World::around(place, Shows::All);
        let text = fs::read("/proc/thread-self/mountinfo").expect("own mounts");
        let mounts = crate::mounts::parse(&text).expect("the kernel's own text");
        use std::os::unix::ffi::OsStrExt as _;
        let here = mounts
            .iter()
            .find(|mount| mount.point == place.as_os_str().as_bytes());
        let device = std::ffi::OsStr::from_bytes(&here.expect("the mount").source).to_owned();
        match File::options().read(true).write(true).open(device) {
            Ok(disk) => {
                let mut last = [0; 512];
                let end = (16 << 20) - 512;
                disk.read_exact_at(&mut last, end).expect("read the disk");
                disk.write_all_at(&last, end).expect("write the disk");
                disk.sync_all().expect("sync the disk");
                assert!(world.seen().is_empty());
            }
            Err(error) => lab::skip(&format!("write to a mounted disk: {error}")),
        }
    });
}

#[test]
fn a_program_that_runs_from_memory_is_not_seen() {
    let _alone = alone();
    lab::with_own_mounts(|place| {
        lab::mount_tmpfs(place);
        let mut world = World::around(place, Shows::All);
        let memory =
            rustix::fs::memfd_create(c"program", rustix::fs::MemfdFlags::empty()).expect("memfd");
        let mut memory = File::from(memory);
        std::io::copy(&mut File::open("/bin/true").expect("open"), &mut memory).expect("copy");
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        // Open for writing is busy text: it is opened anew for reading.
        let readable = File::open(&path).expect("open anew");
        let path = format!("/proc/{}/fd/{}", std::process::id(), readable.as_raw_fd());
        drop(memory);
        assert!(Command::new(path).status().expect("run").success());
        assert!(world.seen().is_empty());
        assert!(readable.as_fd().try_clone_to_owned().is_ok());
    });
}
