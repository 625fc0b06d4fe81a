//! Rows about modes, owners and extended attributes.

use super::Row;

/// Modes and owners.
pub(super) const METADATA: &[Row] = &[
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

/// ACLs, capabilities, labels and the rest.
pub(super) const XATTRS: &[Row] = &[
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
