//! Rows about what is in files, links and devices, and about the names of one file.

use super::Row;

/// What is in files, where links point, which devices.
pub(super) const CONTENT: &[Row] = &[
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

/// Names of one file.
pub(super) const LINKS: &[Row] = &[
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
