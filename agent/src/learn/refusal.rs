//! Receives one sight; hands on why no rule is proposed for it, if so.
//!
//! What a first boot does not do, or what nobody would notice again once it is allowed: programs, libraries, what starts
//! by itself, who may log in, what boots, the sentinel. Judged by path and attributes alone.

use drift::class::{Class, Classification, Severity, classify};
use drift::entry::{Attribute, Device, Entry, FileFlags, Kind, Node, Shown, Xattrs};
use drift::finding::DriftKind;
use drift::{Blake3, escape};

use super::observed::Sight;

/// Where a running system writes; everywhere else only a build does.
const WRITABLE: [&str; 11] = [
    "dev", "etc", "home", "media", "mnt", "proc", "root", "run", "srv", "tmp", "var",
];
/// Where a file system may be mounted by a first boot without hiding what programs or configuration are read from.
const MOUNTABLE: [&str; 8] = ["dev", "media", "mnt", "proc", "run", "srv", "tmp", "var"];
/// A package database: what changes it has installed something.
const DATABASES: [&[u8]; 5] = [
    b"var/lib/dpkg",
    b"var/lib/rpm",
    b"lib/apk",
    b"var/lib/pacman",
    b"var/lib/apt/extended_states",
];
/// What the cloud says on every first boot although it is worth a page on any other.
const NAMED_BY_THE_CLOUD: [&[u8]; 2] = [b"etc/hosts", b"etc/resolv.conf"];
/// Longer paths are nobody's.
const MAX_PATH_BYTES: usize = 1024;

/// What the sight means, by what is known here and not by what the observation says.
pub(super) fn meaning(sight: &Sight) -> Classification {
    let found = sight
        .found
        .as_ref()
        .and_then(|found| entry_of(sight, found));
    classify(&sight.path, &sight.kind, sight.changed, found.as_ref())
}

/// Why nothing can be proposed for a path, whatever was seen there.
pub(super) fn by_name(sight: &Sight) -> Option<&'static str> {
    let bytes = sight.path.as_bytes();
    let first = sight.path.components().next().unwrap_or_default();
    let is_plain = sight.path.is_utf8() && !bytes.iter().any(u8::is_ascii_control);
    // Whatever is escaped for people, but for a backslash, is no name that people can judge.
    let shows = || escape(bytes).replace("\\\\", "\\").as_bytes() == bytes;
    if !is_plain || !shows() {
        return Some("its name cannot be read by people");
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Some("its name is too long");
    }
    let is_in = |place: &str| place.as_bytes() == first && bytes.len() > first.len();
    if !WRITABLE.iter().any(|place| is_in(place)) {
        return Some("only the build of the image writes there");
    }
    let below = |place: &[u8]| bytes.starts_with(place);
    if DATABASES.iter().any(|place| below(place)) {
        return Some("a package was installed: install it in the image");
    }
    None
}

/// Why no rule is proposed for what was seen.
pub(super) fn by_meaning(sight: &Sight) -> Option<&'static str> {
    let meaning = meaning(sight);
    match sight.kind {
        DriftKind::Added | DriftKind::Changed | DriftKind::Removed => {}
        DriftKind::Covered => return covered(sight),
        DriftKind::Executed | DriftKind::Baseline | DriftKind::Unknown(_) => {
            return Some("no rule can allow this");
        }
    }
    if sight.detail.is_some() {
        return Some("a rule speaks of it already, and what it asks for is not so");
    }
    if let Some(why) = sight
        .found
        .as_ref()
        .and_then(|found| dangerous(sight, found))
    {
        return Some(why);
    }
    let by_class = match meaning.class {
        Class::Program => "a program",
        Class::Library => "a library, or what loads one",
        Class::Authentication => "it says who may log in, or as whom: put it into the image",
        Class::Persistence => "it starts something: put it into the image",
        Class::Boot => "it boots the machine: put it into the image",
        Class::Sentinel => "it is the sentinel's own",
        Class::Unknown(_) => "its class is not known",
        _ if NAMED_BY_THE_CLOUD.contains(&sight.path.as_bytes()) => return None,
        _ if meaning.severity >= Severity::High => "it is worth a page on any other day",
        _ => return None,
    };
    Some(by_class)
}

/// What its attributes say.
fn dangerous(sight: &Sight, found: &Shown) -> Option<&'static str> {
    const SETUID_OR_SETGID: u16 = 0o6000;
    const EXECUTABLE: u16 = 0o111;
    const WORLD_WRITABLE: u16 = 0o002;
    const STICKY: u16 = 0o1000;
    let now = found.mode.bits();
    let is_file = found.kind == Kind::File.word();
    let is_link = found.kind == Kind::Symlink.word();
    let was = sight.expected.as_ref().map_or(0, |was| was.mode.bits());
    match &*found.kind {
        "char-device" | "block-device" => return Some("a device"),
        _ if found.xattr.contains_key("security.capability") => {
            return Some("a file with capabilities");
        }
        _ if sight.changed.contains(Attribute::Flags) => return Some("its file flags changed"),
        _ => {}
    }
    if is_file && now & SETUID_OR_SETGID != 0 {
        return Some("a setuid or setgid file");
    }
    if is_file && now & EXECUTABLE != 0 {
        return Some("a program");
    }
    let is_shared = now & STICKY != 0 && !is_file;
    if !is_link && now & WORLD_WRITABLE & !was != 0 && !is_shared {
        return Some("everyone may write it");
    }
    None
}

fn covered(sight: &Sight) -> Option<&'static str> {
    let first = sight.path.components().next().unwrap_or_default();
    let may_be = MOUNTABLE.iter().any(|place| place.as_bytes() == first);
    let is_all_of_var = sight.path.as_bytes() == b"var";
    (!may_be || is_all_of_var)
        .then_some("a mount there hides what the image has: put it into the image's fstab, or write the rule yourself")
}

/// What was shown, as far as its class depends on it.
fn entry_of(sight: &Sight, found: &Shown) -> Option<Entry> {
    let device = Device { major: 0, minor: 0 };
    let node = match &*found.kind {
        "file" => Node::file(
            found.size.unwrap_or(0),
            found.content.unwrap_or_else(|| Blake3::of(b"")),
        ),
        "directory" => Node::Directory,
        "symlink" => Node::Symlink {
            target: Box::default(),
        },
        "fifo" => Node::Fifo,
        "socket" => Node::Socket,
        "char-device" => Node::CharDevice(device),
        _ => Node::BlockDevice(device),
    };
    let capability = found.xattr.contains_key("security.capability");
    let xattrs = capability.then(|| (b"security.capability".to_vec(), b"?".to_vec()));
    Some(Entry {
        path: sight.path.clone(),
        mode: found.mode.bits(),
        uid: found.uid,
        gid: found.gid,
        node,
        xattrs: Xattrs::held(xattrs),
        flags: FileFlags::NONE,
        links: None,
    })
}
