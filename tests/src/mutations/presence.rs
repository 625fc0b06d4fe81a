//! Rows about what comes, goes, becomes another kind, or is mounted over; and what is no drift at all.

use super::Row;

/// Names more and names less.
pub(super) const COMING_AND_GOING: &[Row] = &[
    (
        "a file more",
        "echo '* * * * * root x' > etc/conf.d/evil",
        "rm etc/conf.d/evil",
        &["added /etc/conf.d/evil"],
    ),
    (
        "a file more at the root",
        "echo x > zzz",
        "rm zzz",
        &["added /zzz"],
    ),
    (
        "an empty file more before all",
        "touch '!'",
        "rm '!'",
        &["added /!"],
    ),
    (
        "a setuid program more",
        "cp /bin/true bin/sh; chmod 4755 bin/sh",
        "rm bin/sh",
        &["added /bin/sh"],
    ),
    (
        "a link more",
        "ln -s /etc/shadow etc/link",
        "rm etc/link",
        &["added /etc/link"],
    ),
    (
        "a device more",
        "mknod dev/kmem c 1 2",
        "rm dev/kmem",
        &["added /dev/kmem"],
    ),
    (
        "a FIFO more",
        "mkfifo run/pipe-2",
        "rm run/pipe-2",
        &["added /run/pipe-2"],
    ),
    (
        "a socket more",
        "socket run/socket-2",
        "rm run/socket-2",
        &["added /run/socket-2"],
    ),
    (
        "an empty directory more",
        "mkdir opt/empty/new",
        "rmdir opt/empty/new",
        &["added /opt/empty/new"],
    ),
    (
        "a directory more",
        "mkdir -p new/below; touch new/a new/below/b; mkfifo new/c",
        "rm -r new",
        &[
            "added /new",
            "added /new/a",
            "added /new/below",
            "added /new/below/b",
            "added /new/c",
        ],
    ),
    (
        "a file gone",
        "keep etc/hosts",
        "back etc/hosts",
        &["removed /etc/hosts"],
    ),
    (
        "a setuid file gone",
        "keep bin/setuid",
        "back bin/setuid",
        &["removed /bin/setuid"],
    ),
    (
        "a link gone",
        "keep lib/dangling",
        "back lib/dangling",
        &["removed /lib/dangling"],
    ),
    (
        "a device gone",
        "keep dev/null",
        "back dev/null",
        &["removed /dev/null"],
    ),
    (
        "a FIFO gone",
        "keep run/pipe",
        "back run/pipe",
        &["removed /run/pipe"],
    ),
    (
        "a socket gone",
        "keep run/socket",
        "back run/socket",
        &["removed /run/socket"],
    ),
    (
        "an empty directory gone",
        "keep opt/empty",
        "back opt/empty",
        &["removed /opt/empty"],
    ),
    (
        "the first and the last gone",
        "keep bin; keep trash/\u{1f980}\u{e9}/below",
        "back bin; back trash/\u{1f980}\u{e9}/below",
        &[
            "removed /bin",
            "removed /bin/capable",
            "removed /bin/labelled",
            "removed /bin/program",
            "removed /bin/setuid",
            "removed /bin/tool",
            "removed /trash/\u{1f980}\u{e9}/below",
        ],
    ),
    (
        "a file renamed",
        "mv etc/hosts etc/hosts.bak",
        "mv etc/hosts.bak etc/hosts",
        &["removed /etc/hosts", "added /etc/hosts.bak"],
    ),
    (
        "a directory renamed",
        "mv opt/full opt/FULL",
        "mv opt/FULL opt/full",
        &[
            "removed /opt/full",
            "removed /opt/full/a",
            "removed /opt/full/below",
            "removed /opt/full/below/b",
            "added /opt/FULL",
            "added /opt/FULL/a",
            "added /opt/FULL/below",
            "added /opt/FULL/below/b",
        ],
    ),
    (
        "two files swapped",
        "mv etc/passwd new; mv etc/hosts etc/passwd; mv new etc/hosts",
        "mv etc/passwd new; mv etc/hosts etc/passwd; mv new etc/hosts",
        &[
            "changed /etc/hosts size content",
            "changed /etc/passwd size content",
        ],
    ),
    (
        "between neighbours in path order",
        "touch order/a/y 'order/a c' order/a-c order/a.d/y",
        "rm order/a/y 'order/a c' order/a-c order/a.d/y",
        &[
            "added /order/a/y",
            "added /order/a c",
            "added /order/a-c",
            "added /order/a.d/y",
        ],
    ),
    (
        "neighbours in path order gone",
        "keep order/a.d; keep 'order/a b'; keep order/a",
        "back order/a.d; back 'order/a b'; back order/a",
        &[
            "removed /order/a",
            "removed /order/a/x",
            "removed /order/a b",
            "removed /order/a.d",
            "removed /order/a.d/x",
        ],
    ),
    (
        "one of many in an indexed directory",
        "keep data/indexed/200; touch data/indexed/200.5",
        "back data/indexed/200; rm data/indexed/200.5",
        &["removed /data/indexed/200", "added /data/indexed/200.5"],
    ),
];

/// One kind replaced by another.
pub(super) const KINDS: &[Row] = &[
    (
        "a full directory replaced by a file",
        "keep opt/full; touch opt/full; chmod 755 opt/full",
        "rm opt/full; back opt/full",
        &[
            "changed /opt/full kind xattr",
            "removed /opt/full/a",
            "removed /opt/full/below",
            "removed /opt/full/below/b",
        ],
    ),
    (
        "a directory replaced by a link to it",
        "keep etc/conf.d; ln -s $KEEP/kept-conf.d etc/conf.d",
        "rm etc/conf.d; back etc/conf.d",
        &[
            "changed /etc/conf.d kind mode",
            "removed /etc/conf.d/10-one.conf",
            "removed /etc/conf.d/20-two.conf",
        ],
    ),
    (
        "a file replaced by a full directory",
        "keep etc/hosts; mkdir -m 644 etc/hosts; touch etc/hosts/x",
        "rm -r etc/hosts; back etc/hosts",
        &["changed /etc/hosts kind", "added /etc/hosts/x"],
    ),
    (
        "a link replaced by what it points to",
        "keep lib/link; cp lib/library lib/link",
        "rm lib/link; back lib/link",
        &["changed /lib/link kind mode xattr"],
    ),
    (
        "a character device made a block device",
        "rm dev/null; mknod -m 666 dev/null b 1 3",
        "rm dev/null; mknod -m 666 dev/null c 1 3",
        &["changed /dev/null kind"],
    ),
    (
        "a socket replaced by a FIFO",
        "keep run/socket; mkfifo -m 755 run/socket",
        "rm run/socket; back run/socket",
        &["changed /run/socket kind"],
    ),
    (
        "a FIFO replaced by a file",
        "keep run/pipe; touch run/pipe",
        "rm run/pipe; back run/pipe",
        &["changed /run/pipe kind"],
    ),
];

/// Mounts over the tree.
pub(super) const COVERS: &[Row] = &[
    (
        "a tmpfs over a directory",
        "mount -t tmpfs none etc",
        "umount etc",
        &["covered /etc"],
    ),
    (
        "a change beneath a tmpfs",
        "poke etc/passwd 0 R; mount -t tmpfs none etc; echo fine > etc/passwd",
        "umount etc; poke etc/passwd 0 r",
        &["covered /etc", "changed /etc/passwd content"],
    ),
    (
        "a directory bound over another",
        "mount --bind opt/full etc/conf.d",
        "umount etc/conf.d",
        &["covered /etc/conf.d"],
    ),
    (
        "a directory bound over itself",
        "mount --bind etc etc",
        "umount etc",
        &["covered /etc"],
    ),
    (
        "a file bound over a file",
        "mount --bind etc/hosts etc/passwd",
        "umount etc/passwd",
        &["covered /etc/passwd"],
    ),
    (
        "a device bound over a file",
        "mount --bind /dev/null etc/shadow",
        "umount etc/shadow",
        &["covered /etc/shadow"],
    ),
    (
        "two mounts on one path",
        "mount -t tmpfs none opt; mount -t tmpfs none opt",
        "umount opt; umount opt",
        &["covered /opt"],
    ),
    (
        "a mount within a mount",
        "mount -t tmpfs none opt; mkdir opt/in; mount -t tmpfs none opt/in",
        "umount opt/in; umount opt",
        &["covered /opt"],
    ),
    (
        "mounts beside each other",
        "mount -t tmpfs none opt/empty; mount -t tmpfs none opt/full/below",
        "umount opt/empty opt/full/below",
        &["covered /opt/empty", "covered /opt/full/below"],
    ),
    (
        "a mount on a new directory",
        "mkdir opt/new; mount -t tmpfs none opt/new",
        "umount opt/new; rmdir opt/new",
        &["added /opt/new", "covered /opt/new"],
    ),
    (
        "another kernel file system",
        "mount -t proc none opt/empty",
        "umount opt/empty",
        &["covered /opt/empty"],
    ),
    (
        "a mount on an odd name",
        r"mount -t tmpfs none trash/$'a\nb'",
        r"umount trash/$'a\nb'",
        &[r"covered /trash/a\nb"],
    ),
    (
        "a mount on a name with a space",
        "mount -t tmpfs none 'trash/ leading and trailing '",
        "umount 'trash/ leading and trailing '",
        &["covered /trash/ leading and trailing "],
    ),
    (
        "a mount on a name that is not UTF-8",
        r"mount -t tmpfs none trash/$'\xff\xfe'",
        r"umount trash/$'\xff\xfe'",
        &[r"covered /trash/\xff\xfe"],
    ),
];

/// What looks like a change and is none: exit code 0.
pub(super) const NO_DRIFT: &[Row] = &[
    (
        "times",
        "touch -d 2001-01-01 etc/passwd etc lib/library; touch -h -d 2001-01-01 lib/link",
        ":",
        &[],
    ),
    (
        "the same bytes written again",
        "cp data/plain $KEEP/p; cat $KEEP/p > data/plain",
        ":",
        &[],
    ),
    (
        "the same file anew",
        "cp -a etc/passwd new; mv new etc/passwd",
        ":",
        &[],
    ),
    (
        "a hole filled with zeros",
        "dd if=/dev/zero of=data/sparse bs=4096 seek=100 count=1 conv=notrunc status=none",
        ":",
        &[],
    ),
    ("zeros made a hole", "fallocate -d data/sparse", ":", &[]),
    (
        "a socket bound again",
        "rm run/socket; socket run/socket",
        ":",
        &[],
    ),
    (
        "a FIFO made again",
        "rm run/pipe; mkfifo run/pipe",
        ":",
        &[],
    ),
    (
        "a file come and gone",
        "touch opt/empty/x; rm opt/empty/x",
        ":",
        &[],
    ),
    (
        "a directory that grew",
        "mkdir grown; mv grown $KEEP; touch opt/empty/{1..300}; rm opt/empty/*; rmdir $KEEP/grown",
        ":",
        &[],
    ),
    (
        "a label with its NUL",
        "setfattr -n security.selinux -v 0x73797374656d5f753a6f626a6563745f723a62696e5f743a733000 bin/labelled",
        "setfattr -n security.selinux -v system_u:object_r:bin_t:s0 bin/labelled",
        &[],
    ),
    (
        "an overlay's own attributes",
        "setfattr -n trusted.overlay.opaque -v y opt/full",
        "setfattr -x trusted.overlay.opaque opt/full",
        &[],
    ),
    (
        "a name outside the tree renamed",
        "mv $KEEP/outside $KEEP/renamed",
        "mv $KEEP/renamed $KEEP/outside",
        &[],
    ),
    (
        "a flag that is not held",
        "chattr +s data/plain",
        "chattr -s data/plain",
        &[],
    ),
    (
        "a mount beside the tree",
        "mkdir $KEEP/m; mount -t tmpfs none $KEEP/m",
        "umount $KEEP/m; rmdir $KEEP/m",
        &[],
    ),
];
