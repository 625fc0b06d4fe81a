//! The rows of the mutation table: what is done in shell, what undoes it, and what must be told in between.

use super::Mutation;
use crate::base::{LONG_NAME, ODD_NAMES};
use crate::ground::DEPTH;

/// Name, what is done, what undoes it, what must be told.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// The rows that are written out below.
pub(super) fn written() -> Vec<Mutation> {
    let tables = [
        METADATA,
        CONTENT,
        XATTRS,
        LINKS,
        COMING_AND_GOING,
        KINDS,
        COVERS,
        NO_DRIFT,
    ];
    let row = |&(name, make, undo, drifts): &Row| Mutation {
        name: name.to_owned(),
        make: make.to_owned(),
        undo: undo.to_owned(),
        drifts: drifts.iter().map(|&drift| drift.to_owned()).collect(),
    };
    tables.into_iter().flatten().map(row).collect()
}

/// Those that are made for each flag, kind and odd name, and deep down.
pub(super) fn made() -> Vec<Mutation> {
    let rows = flags().into_iter().chain(kinds()).chain(odd_names());
    rows.chain(deep()).collect()
}

fn mutation(name: &str, make: String, undo: String, drifts: &[String]) -> Mutation {
    Mutation {
        name: name.to_owned(),
        make,
        undo,
        drifts: drifts.to_vec(),
    }
}

const METADATA: &[Row] = &[
    (
        "setuid",
        "chmod u+s bin/tool",
        "chmod u-s bin/tool",
        &["changed /bin/tool mode"],
    ),
    (
        "setgid",
        "chmod g+s bin/tool",
        "chmod g-s bin/tool",
        &["changed /bin/tool mode"],
    ),
    (
        "sticky file",
        "chmod +t bin/tool",
        "chmod -t bin/tool",
        &["changed /bin/tool mode"],
    ),
    (
        "setuid gone",
        "chmod u-s bin/setuid",
        "chmod u+s bin/setuid",
        &["changed /bin/setuid mode"],
    ),
    (
        "no mode at all",
        "chmod 0 etc/shadow",
        "chmod 640 etc/shadow",
        &["changed /etc/shadow mode"],
    ),
    (
        "mode of a directory",
        "chmod 777 etc",
        "chmod 755 etc",
        &["changed /etc mode"],
    ),
    (
        "sticky gone",
        "chmod -t opt/sticky",
        "chmod +t opt/sticky",
        &["changed /opt/sticky mode"],
    ),
    (
        "setgid of a directory",
        "chmod g-s opt/setgid",
        "chmod g+s opt/setgid",
        &["changed /opt/setgid mode"],
    ),
    (
        "mode of the root",
        "chmod 700 .",
        "chmod 755 .",
        &["changed / mode"],
    ),
    (
        "mode of a device",
        "chmod 600 dev/null",
        "chmod 666 dev/null",
        &["changed /dev/null mode"],
    ),
    (
        "mode of a FIFO",
        "chmod 666 run/pipe",
        "chmod 644 run/pipe",
        &["changed /run/pipe mode"],
    ),
    (
        "mode of a socket",
        "chmod 600 run/socket",
        "chmod 755 run/socket",
        &["changed /run/socket mode"],
    ),
    (
        "owner",
        "chown 1 data/plain",
        "chown 0 data/plain",
        &["changed /data/plain uid"],
    ),
    (
        "group",
        "chgrp 1 data/plain",
        "chgrp 0 data/plain",
        &["changed /data/plain gid"],
    ),
    (
        "owner and group",
        "chown 0:0 data/owned",
        "chown 1000:1000 data/owned",
        &["changed /data/owned uid gid"],
    ),
    (
        "largest owner",
        "chown 4294967294 data/plain",
        "chown 0 data/plain",
        &["changed /data/plain uid"],
    ),
    (
        "owner of a directory",
        "chown 7 opt/empty",
        "chown 0 opt/empty",
        &["changed /opt/empty uid"],
    ),
    (
        "owner of a link",
        "chown -h 7:8 lib/dangling",
        "chown -h 0:0 lib/dangling",
        &["changed /lib/dangling uid gid"],
    ),
    (
        "owner of a device",
        "chown 7 dev/disk",
        "chown 0 dev/disk",
        &["changed /dev/disk uid"],
    ),
    (
        "owner of a socket",
        "chgrp 7 run/socket",
        "chgrp 0 run/socket",
        &["changed /run/socket gid"],
    ),
];

const CONTENT: &[Row] = &[
    (
        "a line more",
        "echo toor:x:0:0::/: >> etc/passwd",
        "sed -i '$d' etc/passwd",
        &["changed /etc/passwd size content"],
    ),
    (
        "same size, time put back",
        "poke etc/passwd 0 R",
        "poke etc/passwd 0 r",
        &["changed /etc/passwd content"],
    ),
    (
        "one bit of a program",
        r"b=$(dd if=bin/program bs=1 skip=4096 count=1 status=none | od -An -tu1); poke bin/program 4096 '\'$(printf %03o $((b ^ 1)))",
        r"b=$(dd if=bin/program bs=1 skip=4096 count=1 status=none | od -An -tu1); poke bin/program 4096 '\'$(printf %03o $((b ^ 1)))",
        &["changed /bin/program content"],
    ),
    (
        "emptied",
        "cp -a data/plain $KEEP/plain; : > data/plain",
        "cat $KEEP/plain > data/plain",
        &["changed /data/plain size content"],
    ),
    (
        "no longer empty",
        "printf x > data/empty",
        ": > data/empty",
        &["changed /data/empty size content"],
    ),
    (
        "longer by a hole",
        "truncate -s +4096 data/plain",
        "truncate -s -4096 data/plain",
        &["changed /data/plain size content"],
    ),
    (
        "a byte in a hole",
        "poke data/sparse 1000000 x",
        r"poke data/sparse 1000000 '\0'",
        &["changed /data/sparse content"],
    ),
    (
        "data made a hole",
        "fallocate -p -o 2M -l 4096 data/sparse",
        "poke data/sparse 2097152 x",
        &["changed /data/sparse content"],
    ),
    (
        "a mapped store",
        r"perl -e 'open F,q(+<),q(lib/library); seek F,9,0; print F q(Z)'",
        "seq 20000 > lib/library",
        &["changed /lib/library content"],
    ),
    (
        "another file moved over it",
        "cp -p data/plain $KEEP/plain; echo evil > new; mv new data/plain",
        "cat $KEEP/plain > data/plain; setfattr -n user.large -v \"$(printf 'v%.0s' {1..3000})\" data/plain",
        &["changed /data/plain size content xattr"],
    ),
    (
        "through its other name outside the tree",
        "echo evil > $KEEP/outside",
        "echo outside > $KEEP/outside",
        &["changed /lib/outside size content"],
    ),
    (
        "through one name of two",
        "echo GROUP > lib/hard-b",
        "echo group > lib/hard-b",
        &["changed /lib/hard-a content", "changed /lib/hard-b content"],
    ),
    (
        "target",
        "ln -sfn hard-ax lib/link; setfattr -h -n trusted.note -v secret lib/link",
        "ln -sfn library lib/link; setfattr -h -n trusted.note -v secret lib/link",
        &["changed /lib/link target"],
    ),
    (
        "target by a slash",
        "ln -sfn ./library lib/link; setfattr -h -n trusted.note -v secret lib/link",
        "ln -sfn library lib/link; setfattr -h -n trusted.note -v secret lib/link",
        &["changed /lib/link target"],
    ),
    (
        "target that is not UTF-8",
        r"ln -sfn $'../no\nwhere\xfe' lib/dangling",
        r"ln -sfn $'../no\nwhere\xff' lib/dangling",
        &["changed /lib/dangling target"],
    ),
    (
        "major number",
        "rm dev/null; mknod -m 666 dev/null c 2 3",
        "rm dev/null; mknod -m 666 dev/null c 1 3",
        &["changed /dev/null device"],
    ),
    (
        "minor number",
        "rm dev/large; mknod -m 600 dev/large c 4095 1048574",
        "rm dev/large; mknod -m 600 dev/large c 4095 1048575",
        &["changed /dev/large device"],
    ),
    (
        "number of a block device",
        "rm dev/disk; mknod -m 660 dev/disk b 7 201; setfattr -n trusted.note -v secret dev/disk",
        "rm dev/disk; mknod -m 660 dev/disk b 7 200; setfattr -n trusted.note -v secret dev/disk",
        &["changed /dev/disk device"],
    ),
];

const XATTRS: &[Row] = &[
    (
        "ACL of a file",
        "setfacl -n -m u:1000:r etc/acl",
        "setfacl -n -m u:1000:rw etc/acl",
        &["changed /etc/acl xattr"],
    ),
    (
        "ACL and mask",
        "setfacl -m u:1001:rwx etc/acl",
        "setfacl -x u:1001 etc/acl",
        &["changed /etc/acl mode xattr"],
    ),
    (
        "ACL where none was",
        "setfacl -m u:1000:r etc/hosts",
        "setfacl -b etc/hosts",
        &["changed /etc/hosts xattr"],
    ),
    (
        "ACL gone",
        "setfacl -b etc/acl; chmod 664 etc/acl",
        "chmod 644 etc/acl; setfacl -m u:1000:rw etc/acl",
        &["changed /etc/acl xattr"],
    ),
    (
        "default ACL",
        "setfacl -m d:g:1000:rwx etc/acl.d",
        "setfacl -m d:g:1000:rx etc/acl.d",
        &["changed /etc/acl.d xattr"],
    ),
    (
        "default ACL where none was",
        "setfacl -m d:u:1:rwx opt/empty",
        "setfacl -b opt/empty",
        &["changed /opt/empty xattr"],
    ),
    (
        "a capability more",
        "setcap cap_net_raw,cap_sys_admin+ep bin/capable",
        "setcap cap_net_raw+ep bin/capable",
        &["changed /bin/capable xattr"],
    ),
    (
        "a capability where none was",
        "setcap cap_setuid+ep bin/program",
        "setcap -r bin/program",
        &["changed /bin/program xattr"],
    ),
    (
        "a capability gone",
        "setcap -r bin/capable",
        "setcap cap_net_raw+ep bin/capable",
        &["changed /bin/capable xattr"],
    ),
    (
        "label",
        "setfattr -n security.selinux -v system_u:object_r:etc_t:s0 bin/labelled",
        "setfattr -n security.selinux -v system_u:object_r:bin_t:s0 bin/labelled",
        &["changed /bin/labelled xattr"],
    ),
    (
        "label gone",
        "setfattr -x security.selinux bin/labelled",
        "setfattr -n security.selinux -v system_u:object_r:bin_t:s0 bin/labelled",
        &["changed /bin/labelled xattr"],
    ),
    (
        "label where none was",
        "setfattr -n security.selinux -v x bin/tool",
        "setfattr -x security.selinux bin/tool",
        &["changed /bin/tool xattr"],
    ),
    (
        "another security attribute",
        "setfattr -n security.note -v x bin/tool",
        "setfattr -x security.note bin/tool",
        &["changed /bin/tool xattr"],
    ),
    (
        "user attribute",
        "setfattr -n user.note -v TEXT data/noted",
        "setfattr -n user.note -v text data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "user attribute with a byte more",
        "setfattr -n user.bytes -v 0x00ff0a1b00 data/noted",
        "setfattr -n user.bytes -v 0x00ff0a1b data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "user attribute emptied",
        "setfattr -n user.note data/noted",
        "setfattr -n user.note -v text data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "empty user attribute gone",
        "setfattr -x user.empty data/noted",
        "setfattr -n user.empty data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "user attribute renamed",
        "setfattr -x user.note data/noted; setfattr -n user.Note -v text data/noted",
        "setfattr -x user.Note data/noted; setfattr -n user.note -v text data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "one byte of a large attribute",
        "setfattr -n user.large -v \"$(printf 'v%.0s' {1..2999})w\" data/plain",
        "setfattr -n user.large -v \"$(printf 'v%.0s' {1..3000})\" data/plain",
        &["changed /data/plain xattr"],
    ),
    (
        "trusted attribute",
        "setfattr -n trusted.note -v Secret data/noted",
        "setfattr -n trusted.note -v secret data/noted",
        &["changed /data/noted xattr"],
    ),
    (
        "attribute of a directory",
        "setfattr -n user.note -v other opt/full",
        "setfattr -n user.note -v text opt/full",
        &["changed /opt/full xattr"],
    ),
    (
        "trusted attribute of a directory",
        "setfattr -x trusted.note opt/full",
        "setfattr -n trusted.note -v secret opt/full",
        &["changed /opt/full xattr"],
    ),
    (
        "attribute of the root",
        "setfattr -n user.note -v x .",
        "setfattr -x user.note .",
        &["changed / xattr"],
    ),
    (
        "attribute of a link",
        "setfattr -h -n trusted.note -v other lib/link",
        "setfattr -h -n trusted.note -v secret lib/link",
        &["changed /lib/link xattr"],
    ),
    (
        "attribute of a device",
        "setfattr -x trusted.note dev/disk",
        "setfattr -n trusted.note -v secret dev/disk",
        &["changed /dev/disk xattr"],
    ),
    (
        "attribute of a FIFO",
        "setfattr -n trusted.note -v x run/pipe",
        "setfattr -x trusted.note run/pipe",
        &["changed /run/pipe xattr"],
    ),
    (
        "attribute of a socket",
        "setfattr -n trusted.note -v x run/socket",
        "setfattr -x trusted.note run/socket",
        &["changed /run/socket xattr"],
    ),
];

const LINKS: &[Row] = &[
    (
        "another name in the tree",
        "ln data/plain data/plainer",
        "rm data/plainer",
        &["changed /data/plain links", "added /data/plainer"],
    ),
    (
        "another name outside the tree",
        "ln data/plain $KEEP/plainer",
        "rm $KEEP/plainer",
        &["changed /data/plain links"],
    ),
    (
        "one more name outside the tree",
        "ln lib/outside $KEEP/outside-2",
        "rm $KEEP/outside-2",
        &["changed /lib/outside links"],
    ),
    (
        "the name outside the tree gone",
        "mv $KEEP/outside $KEEP/o; ln $KEEP/o $KEEP/o2; cp -a $KEEP/o $KEEP/o3; rm $KEEP/o $KEEP/o2",
        "ln lib/outside $KEEP/outside; rm $KEEP/o3",
        &["changed /lib/outside links"],
    ),
    (
        "a pair broken by a copy",
        "cp -a lib/hard-b new; mv -f new lib/hard-b",
        "ln -f lib/hard-a lib/hard-b",
        &["changed /lib/hard-a links", "changed /lib/hard-b links"],
    ),
    (
        "one of three broken by a copy",
        "cp -a lib/many-2 new; mv -f new lib/many-2",
        "ln -f lib/many-1 lib/many-2",
        &["changed /lib/many-2 links"],
    ),
    (
        "the least of three broken by a copy",
        "cp -a lib/many-1 new; mv -f new lib/many-1",
        "ln -f lib/many-2 lib/many-1",
        &[
            "changed /lib/many-1 links",
            "changed /lib/many-2 links",
            "changed /lib/many-3 links",
        ],
    ),
    (
        "one name of two gone",
        "rm lib/hard-b",
        "ln lib/hard-a lib/hard-b",
        &["changed /lib/hard-a links", "removed /lib/hard-b"],
    ),
    (
        "one name of three gone",
        "rm lib/many-3",
        "ln lib/many-1 lib/many-3",
        &["removed /lib/many-3"],
    ),
    (
        "a third name",
        "ln lib/hard-a lib/hard-c",
        "rm lib/hard-c",
        &["added /lib/hard-c"],
    ),
    (
        "a lesser name",
        "ln lib/hard-a bin/hard",
        "rm bin/hard",
        &[
            "added /bin/hard",
            "changed /lib/hard-a links",
            "changed /lib/hard-b links",
        ],
    ),
    (
        "two files made one",
        "ln -f etc/conf.d/10-one.conf etc/conf.d/20-two.conf",
        "rm etc/conf.d/20-two.conf; echo two > etc/conf.d/20-two.conf",
        &[
            "changed /etc/conf.d/10-one.conf links",
            "changed /etc/conf.d/20-two.conf content links",
        ],
    ),
    (
        "names of two groups swapped",
        "mv lib/hard-b new; mv lib/pair-b lib/hard-b; mv new lib/pair-b",
        "mv lib/hard-b new; mv lib/pair-b lib/hard-b; mv new lib/pair-b",
        &[
            "changed /lib/hard-b content links",
            "changed /lib/pair-a links",
            "changed /lib/pair-b content links",
        ],
    ),
    (
        "a link broken by a copy",
        "cp -a lib/linked-link-2 new; mv -f new lib/linked-link-2",
        "ln -f lib/linked-link lib/linked-link-2",
        &[
            "changed /lib/linked-link links",
            "changed /lib/linked-link-2 links",
        ],
    ),
];

const COMING_AND_GOING: &[Row] = &[
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

const KINDS: &[Row] = &[
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

const COVERS: &[Row] = &[
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
const NO_DRIFT: &[Row] = &[
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

/// Each flag that ext4 takes, set where it was not and taken from where it was.
fn flags() -> Vec<Mutation> {
    let set = [
        ("i", "data/plain"),
        ("a", "data/plain"),
        ("d", "data/plain"),
        ("A", "data/plain"),
        ("S", "data/plain"),
        ("c", "data/plain"),
        ("i", "opt/empty"),
        ("a", "opt/empty"),
        ("D", "opt/empty"),
        ("S", "opt/empty"),
        ("P", "opt/empty"),
        ("i", "."),
    ];
    let gone = [
        ("d", "data/flagged"),
        ("A", "data/flagged"),
        ("i", "data/locked"),
    ];
    let row = |first: char, then: char, letter: &str, path: &str| {
        let shown = path.trim_start_matches('.');
        mutation(
            &format!("chattr {first}{letter} {path}"),
            format!("chattr {first}{letter} {path}"),
            format!("chattr {then}{letter} {path}"),
            &[format!("changed /{shown} flags")],
        )
    };
    let set = set
        .into_iter()
        .map(|(letter, path)| row('+', '-', letter, path));
    set.chain(
        gone.into_iter()
            .map(|(letter, path)| row('-', '+', letter, path)),
    )
    .collect()
}

/// A file replaced by every other kind, with the same mode where the kind has one.
fn kinds() -> Vec<Mutation> {
    let kinds = [
        ("FIFO", "mkfifo -m 644 etc/hosts", "kind"),
        ("socket", "socket etc/hosts; chmod 644 etc/hosts", "kind"),
        ("link", "ln -s passwd etc/hosts", "kind mode"),
        (
            "link to the file itself",
            "ln -s $KEEP/kept-hosts etc/hosts",
            "kind mode",
        ),
        ("directory", "mkdir -m 644 etc/hosts", "kind"),
        ("character device", "mknod -m 644 etc/hosts c 1 5", "kind"),
        ("block device", "mknod -m 644 etc/hosts b 7 0", "kind"),
    ];
    let row = |(kind, make, changed): (&str, &str, &str)| {
        let undo = "rm -rf etc/hosts; back etc/hosts".to_owned();
        mutation(
            &format!("a file replaced by a {kind}"),
            format!("keep etc/hosts; {make}"),
            undo,
            &[format!("changed /etc/hosts {changed}")],
        )
    };
    kinds.into_iter().map(row).collect()
}

/// Each odd name: changed, gone, and new.
fn odd_names() -> Vec<Mutation> {
    let mut rows = Vec::new();
    let long = "n".repeat(255);
    let names = ODD_NAMES
        .iter()
        .map(|name| (name.bash, name.shown))
        .chain([(LONG_NAME, &*long)]);
    for (bash, shown) in names {
        let file = format!("names/{bash}");
        let named = |what: &str| format!("{what} {shown}");
        rows.push(mutation(
            &named("mode of"),
            format!("chmod 600 {file}"),
            format!("chmod 644 {file}"),
            &[format!("changed /names/{shown} mode")],
        ));
        rows.push(mutation(
            &named("content of"),
            format!("poke {file} 0 O"),
            format!("poke {file} 0 {}", if shown == long { "l" } else { "o" }),
            &[format!("changed /names/{shown} content")],
        ));
        rows.push(mutation(
            &named("gone:"),
            format!("mv {file} $KEEP/odd"),
            format!("mv $KEEP/odd {file}"),
            &[format!("removed /names/{shown}")],
        ));
        let new = format!("opt/empty/{bash}");
        rows.push(mutation(
            &named("new:"),
            format!("mkdir {new}; touch {new}/{bash}"),
            format!("rm -r {new}"),
            &[
                format!("added /opt/empty/{shown}"),
                format!("added /opt/empty/{shown}/{shown}"),
            ],
        ));
    }
    rows
}

/// Deeper than a system call can name.
fn deep() -> Vec<Mutation> {
    let directory = format!("/{}", "d".repeat(200)).repeat(DEPTH);
    let row = |name: &str, make: &str, undo: &str, drift: &str| {
        mutation(
            name,
            format!("deep '{make}'"),
            format!("deep '{undo}'"),
            &[drift.replace("DEEP", &directory)],
        )
    };
    vec![
        row(
            "content, deep",
            "open F, q(>>leaf); print F q(x)",
            "truncate q(leaf), 5 or die",
            "changed DEEP/leaf size content",
        ),
        row(
            "mode, deep",
            "chmod 0600, q(leaf) or die",
            "chmod 0644, q(leaf) or die",
            "changed DEEP/leaf mode",
        ),
        row(
            "new, deep",
            "mkdir q(new) or die",
            "rmdir q(new) or die",
            "added DEEP/new",
        ),
        row(
            "mode of a directory, deep",
            "chmod 0700, q(.) or die",
            "chmod 0755, q(.) or die",
            "changed DEEP mode",
        ),
    ]
}
