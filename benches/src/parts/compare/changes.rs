//! What is done, each in a directory of its own that has a `file` of 2000 lines, a small `other` with a second name outside,
//! a `program`, and a `dir` with something in it.

/// Something that is done to the tree.
pub(super) struct Change {
    /// Its directory.
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// Of a shell in that directory. Processes that go on are named in `$PIDS`.
    pub(super) script: &'static str,
}

const fn change(name: &'static str, what: &'static str, script: &'static str) -> Change {
    Change { name, what, script }
}

pub(super) const CHANGES: [Change; 26] = [
    change("append", "a line is added", "echo more >> file"),
    change("chmod", "`chmod 4755`", "chmod 4755 program"),
    change("chown", "`chown`", "chown 1:1 file"),
    change(
        "xattr",
        "an extended attribute",
        "setfattr -n user.it -v is file",
    ),
    change("truncate", "`truncate`", "truncate -s 10 file"),
    change("remove", "a file is removed", "rm file"),
    change("rename", "a file is renamed", "mv file moved"),
    change(
        "replace",
        "another is renamed over it",
        "echo new > .new; mv .new file",
    ),
    change(
        "mkdir",
        "directories, and at once a file in them",
        "mkdir -p new/in/it; echo x > new/in/it/file",
    ),
    change("movein", "a tree is moved in", "mv $OUT/$NAME/tree tree"),
    change(
        "link",
        "written through a hard link elsewhere",
        "echo more >> $OUT/$NAME/link",
    ),
    change(
        "bind",
        "written through a bind mount elsewhere",
        "mkdir $OUT/$NAME/bound; mount --bind dir $OUT/$NAME/bound; echo more >> $OUT/$NAME/bound/inner; umount $OUT/$NAME/bound",
    ),
    change(
        "procroot",
        "written through `/proc/PID/root` of another mount namespace",
        "unshare --mount sleep 1000 & echo $! >> $PIDS; pid=$!; until [ \"$(readlink /proc/$pid/exe)\" = \"$(command -v sleep)\" ]; do :; done; \
         echo more >> /proc/$pid/root$PWD/file",
    ),
    change(
        "putback",
        "changed, and put back at once",
        "cp file $OUT/$NAME/kept; echo more >> file; cat $OUT/$NAME/kept > file",
    ),
    change(
        "rewrite",
        "written with what it had (no difference)",
        "cp file $OUT/$NAME/kept; cat $OUT/$NAME/kept > file",
    ),
    change(
        "touch",
        "a modification time is set (not held)",
        "touch -d 2001-01-01 file",
    ),
    change("uring", "written by io_uring", "$WAYS io_uring file other"),
    change(
        "range",
        "written by `copy_file_range`",
        "$WAYS copy_file_range file other",
    ),
    change(
        "mmap",
        "written through a mapping that is gone",
        "$WAYS mmap-closed file other",
    ),
    change(
        "mapped",
        "written through a mapping that stays",
        "$WAYS mapped file other & echo $! >> $PIDS",
    ),
    change("chattr", "`chattr +i`", "chattr +i file"),
    change(
        "raw",
        "its block on the disk is written",
        "sync; block=$(filefrag -v -b4096 file | sed -n 's/^ *0: *0\\.\\. *[0-9]*: *\\([0-9]*\\)\\.\\..*/\\1/p'); \
         dd if=/dev/zero of=$DISK bs=4096 seek=$block count=1 conv=notrunc,fsync status=none",
    ),
    change(
        "mount",
        "something is mounted over it",
        "mount -t tmpfs none dir",
    ),
    change(
        "private",
        "something is mounted over it in one process's namespace",
        "unshare --mount sh -c 'mount --bind other file; exec sleep 1000' & echo $! >> $PIDS",
    ),
    change(
        "stranger",
        "a program that the image does not contain is started",
        "cp program stranger; ./stranger",
    ),
    change(
        "memfd",
        "a program that is in no file is started",
        "$WAYS memfd program other",
    ),
];
