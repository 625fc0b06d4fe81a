//! A small tree with every kind and feature.

use drift::Blake3;
use drift::entry::{Device, Entry, FileFlags, Links, Measurement, Node, Xattrs};
use drift::manifest::Package;
use drift::rules::{RuleFile, Rules};

use super::{file, path, plain};

/// One of everything.
pub(crate) fn tree() -> Vec<(Entry, Option<Package>)> {
    let directories = [
        &b""[..],
        b"dev",
        b"etc",
        b"usr",
        b"usr/bin",
        b"usr/lib",
        b"usr/lib/driftmark",
        b"var",
    ];
    let directories = directories.map(|at| plain(at, Node::Directory));
    let package = || {
        Some(Package {
            name: "coreutils:amd64".to_owned(),
            version: "9.7-3".to_owned(),
        })
    };
    let capability = Xattrs::held([(
        b"security.capability".to_vec(),
        vec![1, 0, 0, 2, 0, 4, 0, 0],
    )]);
    let labelled = Xattrs::held([
        (
            b"security.selinux".to_vec(),
            b"system_u:object_r:etc_t:s0\0".to_vec(),
        ),
        (b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]),
        (b"user.empty".to_vec(), Vec::new()),
    ]);
    let links = |outside| {
        Some(Links {
            least: path(b"usr/bin/gunzip"),
            outside,
        })
    };
    let mut tree: Vec<(Entry, Option<Package>)> = directories.map(|entry| (entry, None)).into();
    tree.extend([
        (
            Entry {
                mode: 0o666,
                ..plain(b"dev/null", Node::CharDevice(Device { major: 1, minor: 3 }))
            },
            None,
        ),
        (
            Entry {
                gid: 6,
                ..plain(
                    b"dev/sda",
                    Node::BlockDevice(Device {
                        major: 8,
                        minor: 0xf_ffff,
                    }),
                )
            },
            None,
        ),
        (plain(b"dev/initctl", Node::Fifo), None),
        (plain(b"dev/log", Node::Socket), None),
        (
            plain(
                b"bin",
                Node::Symlink {
                    target: (*b"usr/bin").into(),
                },
            ),
            None,
        ),
        (
            Entry {
                mode: 0o4755,
                ..file(b"usr/bin/su", b"\x7fELF su")
            },
            package(),
        ),
        (
            Entry {
                xattrs: capability.clone(),
                ..file(b"usr/bin/ping", b"\x7fELF ping")
            },
            package(),
        ),
        (
            Entry {
                links: links(1),
                ..file(b"usr/bin/gunzip", b"#!/bin/sh")
            },
            package(),
        ),
        (
            Entry {
                links: links(1),
                ..file(b"usr/bin/uncompress", b"#!/bin/sh")
            },
            package(),
        ),
        (
            Entry {
                xattrs: labelled.clone(),
                mode: 0o644,
                ..file(b"etc/passwd", b"root:x:0:0")
            },
            None,
        ),
        (
            Entry {
                xattrs: labelled,
                mode: 0o640,
                gid: 42,
                ..file(b"etc/shadow", b"root:*")
            },
            None,
        ),
        (
            Entry {
                uid: 1000,
                gid: u32::MAX,
                ..file(b"etc/line\nend \xff", b"")
            },
            None,
        ),
        (
            Entry {
                flags: FileFlags::from_raw(0x30),
                ..file(b"etc/resolv.conf", b"nameserver 9.9.9.9\n")
            },
            None,
        ),
        (
            plain(b"usr/lib/driftmark/image.manifest", Node::SelfFile),
            None,
        ),
        (file(&[b"var/", &[b'n'; 255][..]].concat(), b"long"), None),
    ]);
    tree
}

pub(crate) fn rules() -> Rules {
    let text = r#"
        [[rule]]
        type = "volatile"
        paths = ["/tmp", "/var/log/**.gz"]
        [[rule]]
        type = "shape"
        shape = "machine-id"
        path = "/etc/machine-id"
        [[rule]]
        type = "append-only"
        path = "/var/log/*"
    "#;
    Rules::build(vec![RuleFile::parse("golden", text).unwrap()], Vec::new())
        .unwrap()
        .rules
}

/// Two files with fs-verity and a measurement, one with the flag alone.
pub(crate) fn measured() -> Vec<Entry> {
    let verity = FileFlags::from_raw(0x0010_0000);
    let measured = |at: &[u8], measurement| Entry {
        flags: verity,
        ..plain(
            at,
            Node::File {
                size: 4,
                content: Blake3::of(b"libc"),
                verity: Some(Box::new(measurement)),
            },
        )
    };
    let without = Entry {
        flags: verity,
        ..file(b"c", b"libc")
    };
    vec![
        plain(b"", Node::Directory),
        measured(b"a", Measurement::Sha256([0xab; 32])),
        measured(b"b", Measurement::Sha512([0xcd; 64])),
        without,
    ]
}
