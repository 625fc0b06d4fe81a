//! What each type of rule allows over a real tree, exactly, and which rule files are refused.

mod refused;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::{possible, skip};

use crate::ground::{Ground, Pass};

/// Type and path of each rule, in order; a shape by its own name.
const RULES: &[(&str, &str)] = &[
    ("content", "/var/cache/held/*"),
    ("volatile", "/var/cache"),
    ("volatile", "/run/*.pid"),
    ("first-boot", "/etc/first*"),
    ("append-only", "/var/log/**"),
    ("absent", "/etc/app/gone.conf"),
    ("content", "/etc/app/*.conf"),
    ("absent", "/etc/app/**"),
    ("covered", "/mnt"),
    ("covered", "/tmp"),
    ("volatile", "/tmp"),
    ("machine-id", "/etc/machine-id"),
    ("host-key", "/etc/ssh/ssh_host_*"),
    ("ld-so-cache", "/etc/ld.so.cache"),
];

const TREE: &str = r#"
mkdir -p var/cache/held var/cache/dir var/cache/ldconfig var/log/app etc/app etc/ssh mnt tmp run bin usr/lib opt/lib
touch bin/{1..20}; chmod 755 bin/*
echo one > var/cache/held/one; echo old > var/cache/old
echo 1 > run/app.pid; echo 1 > run/other
echo first > etc/first
seq 100 > var/log/app/log; seq 10 > var/log/messages
echo app > etc/app/app.conf; echo gone > etc/app/gone.conf; echo else > etc/app/else
echo beneath > mnt/beneath
: > etc/machine-id
echo /usr/lib > etc/ld.so.conf
ldconfig -p | sed -n 's/.*=> //p' | grep -e 'lib[cm]\.so\.6' | while read -r library; do cp -nL "$library" usr/lib/; done
cp usr/lib/libm.so.6 opt/lib/
rebuild() { ldconfig -X -r "$PWD" 2> /dev/null; }
rebuild
"#;

/// What is done, what undoes it, what must be told.
const ROWS: &[(&str, &str, &[&str])] = &[
    // volatile
    (
        "echo x > var/cache/new; mkdir var/cache/d; keep var/cache/old; chmod 0 var/cache/dir",
        "rm var/cache/new; rmdir var/cache/d; back var/cache/old; chmod 755 var/cache/dir",
        &[],
    ),
    (
        "mount -t tmpfs none var/cache/dir",
        "umount var/cache/dir",
        &[],
    ),
    (
        "mount -t tmpfs none var/cache",
        "umount var/cache",
        &["covered /var/cache"],
    ),
    (
        "chmod 700 var/cache",
        "chmod 755 var/cache",
        &["changed /var/cache mode"],
    ),
    (
        "keep var/cache",
        "back var/cache",
        &["removed /var/cache", "removed /var/cache/held/one"],
    ),
    (
        "keep var/cache; touch var/cache; chmod 755 var/cache",
        "rm var/cache; back var/cache",
        &["changed /var/cache kind", "removed /var/cache/held/one"],
    ),
    (
        "echo 2222 > run/app.pid; echo 3 > run/b.pid",
        "echo 1 > run/app.pid; rm run/b.pid",
        &[],
    ),
    ("keep run/app.pid", "back run/app.pid", &[]),
    (
        "keep run/app.pid; mkfifo run/app.pid",
        "rm run/app.pid; back run/app.pid",
        &[],
    ),
    (
        "echo 2 > run/other",
        "echo 1 > run/other",
        &["changed /run/other content"],
    ),
    (
        "mkdir run/sub; touch run/sub/a.pid",
        "rm -r run/sub",
        &["added /run/sub", "added /run/sub/a.pid"],
    ),
    // an earlier rule beneath a volatile one
    (
        "echo other > var/cache/held/one",
        "echo one > var/cache/held/one",
        &[],
    ),
    (
        "chmod 600 var/cache/held/one",
        "chmod 644 var/cache/held/one",
        &["changed /var/cache/held/one mode"],
    ),
    (
        "keep var/cache/held/one",
        "back var/cache/held/one",
        &["removed /var/cache/held/one"],
    ),
    (
        "touch var/cache/held/two",
        "rm var/cache/held/two",
        &["added /var/cache/held/two"],
    ),
    // first-boot
    (
        "echo second > etc/first; chmod 600 etc/first; touch etc/first-2",
        "echo first > etc/first; chmod 644 etc/first; rm etc/first-2",
        &[],
    ),
    ("keep etc/first", "back etc/first", &[]),
    (
        "mount --bind etc/app/else etc/first",
        "umount etc/first",
        &["covered /etc/first"],
    ),
    // append-only
    (
        "echo more >> var/log/messages; touch var/log/new",
        "sed -i '$d' var/log/messages; rm var/log/new",
        &[],
    ),
    (
        ": > var/log/messages",
        "seq 10 > var/log/messages",
        &["changed /var/log/messages size content"],
    ),
    (
        "truncate -s -1 var/log/messages",
        "seq 10 > var/log/messages",
        &["changed /var/log/messages size content"],
    ),
    (
        "poke var/log/messages 0 X",
        "poke var/log/messages 0 1",
        &["changed /var/log/messages content"],
    ),
    (
        "poke var/log/messages 0 X; echo more >> var/log/messages",
        "seq 10 > var/log/messages",
        &["changed /var/log/messages size content"],
    ),
    (
        "echo more >> var/log/app/log; chmod 666 var/log/app/log",
        "sed -i '$d' var/log/app/log; chmod 644 var/log/app/log",
        &["changed /var/log/app/log mode"],
    ),
    (
        "keep var/log/messages",
        "back var/log/messages",
        &["removed /var/log/messages"],
    ),
    (
        "keep var/log/messages; mkfifo var/log/messages",
        "rm var/log/messages; back var/log/messages",
        &["changed /var/log/messages kind"],
    ),
    (
        "keep var/log/messages; ln -s /dev/null var/log/messages",
        "rm var/log/messages; back var/log/messages",
        &["changed /var/log/messages kind mode"],
    ),
    // content, and the first match
    (
        "echo other > etc/app/app.conf",
        "echo app > etc/app/app.conf",
        &[],
    ),
    (
        "chmod 600 etc/app/app.conf",
        "chmod 644 etc/app/app.conf",
        &["changed /etc/app/app.conf mode"],
    ),
    (
        "echo other > etc/app/app.conf; chown 1 etc/app/app.conf",
        "echo app > etc/app/app.conf; chown 0 etc/app/app.conf",
        &["changed /etc/app/app.conf uid"],
    ),
    (
        "setfattr -n user.note -v x etc/app/app.conf",
        "setfattr -x user.note etc/app/app.conf",
        &["changed /etc/app/app.conf xattr"],
    ),
    (
        "chattr +i etc/app/app.conf",
        "chattr -i etc/app/app.conf",
        &["changed /etc/app/app.conf flags"],
    ),
    (
        "ln etc/app/app.conf $KEEP/name",
        "rm $KEEP/name",
        &["changed /etc/app/app.conf links"],
    ),
    (
        "keep etc/app/app.conf",
        "back etc/app/app.conf",
        &["removed /etc/app/app.conf"],
    ),
    (
        "touch etc/app/new.conf",
        "rm etc/app/new.conf",
        &["added /etc/app/new.conf"],
    ),
    // absent
    (
        "keep etc/app/gone.conf; keep etc/app/else",
        "back etc/app/gone.conf; back etc/app/else",
        &[],
    ),
    (
        "echo x >> etc/app/gone.conf",
        "echo gone > etc/app/gone.conf",
        &["changed /etc/app/gone.conf size content"],
    ),
    (
        "chmod 600 etc/app/else",
        "chmod 644 etc/app/else",
        &["changed /etc/app/else mode"],
    ),
    // covered
    ("mount -t tmpfs none mnt", "umount mnt", &[]),
    (
        "echo x > mnt/beneath; mount -t tmpfs none mnt",
        "umount mnt; echo beneath > mnt/beneath",
        &["changed /mnt/beneath size content"],
    ),
    ("touch mnt/new", "rm mnt/new", &["added /mnt/new"]),
    ("mount -t tmpfs none tmp; touch tmp/x", "umount tmp", &[]),
    ("touch tmp/x", "rm tmp/x", &[]),
    ("chmod 777 tmp", "chmod 755 tmp", &["changed /tmp mode"]),
    // machine-id
    (
        "echo 0123456789abcdef0123456789abcdef > etc/machine-id",
        ": > etc/machine-id",
        &[],
    ),
    (
        "echo uninitialized > etc/machine-id",
        ": > etc/machine-id",
        &[],
    ),
    (
        "echo 0123456789ABCDEF0123456789abcdef > etc/machine-id",
        ": > etc/machine-id",
        &["changed /etc/machine-id size content"],
    ),
    (
        "echo 00000000000000000000000000000000 > etc/machine-id",
        ": > etc/machine-id",
        &["changed /etc/machine-id size content"],
    ),
    (
        "echo 0123456789abcdef0123456789abcdef > etc/machine-id; chmod 666 etc/machine-id",
        ": > etc/machine-id; chmod 644 etc/machine-id",
        &["changed /etc/machine-id mode"],
    ),
    (
        "keep etc/machine-id",
        "back etc/machine-id",
        &["removed /etc/machine-id"],
    ),
    (
        "keep etc/machine-id; ln -s ../var/cache/old etc/machine-id",
        "rm etc/machine-id; back etc/machine-id",
        &["changed /etc/machine-id kind mode"],
    ),
    // host keys
    (
        "openssl genpkey -algorithm ed25519 -out etc/ssh/ssh_host_key 2> /dev/null; chmod 600 etc/ssh/ssh_host_key",
        "rm etc/ssh/*",
        &[],
    ),
    (
        "openssl genpkey -algorithm ed25519 -out etc/ssh/ssh_host_key 2> /dev/null; chmod 644 etc/ssh/ssh_host_key",
        "rm etc/ssh/*",
        &["added /etc/ssh/ssh_host_key"],
    ),
    (
        "echo evil > etc/ssh/ssh_host_key; chmod 600 etc/ssh/ssh_host_key",
        "rm etc/ssh/*",
        &["added /etc/ssh/ssh_host_key"],
    ),
    (
        "mkfifo etc/ssh/ssh_host_key",
        "rm etc/ssh/*",
        &["added /etc/ssh/ssh_host_key"],
    ),
    (
        "echo 'Port 22' > etc/ssh/sshd_config",
        "rm etc/ssh/*",
        &["added /etc/ssh/sshd_config"],
    ),
    // the loader's cache
    (
        "mv usr/lib/libm.so.6 $KEEP/; rebuild; mv $KEEP/libm.so.6 usr/lib/",
        "rebuild",
        &[],
    ),
    (
        "sed 's/libm[.]so[.]6/libn.so.6/g' usr/lib/libm.so.6 > usr/lib/libn.so.6; chmod 755 usr/lib/libn.so.6; rebuild",
        "rm usr/lib/libn.so.6; rebuild",
        &[
            "added /usr/lib/libn.so.6",
            "changed /etc/ld.so.cache size content",
        ],
    ),
    (
        "echo /opt/lib > etc/ld.so.conf; rebuild; echo /usr/lib > etc/ld.so.conf",
        "rebuild",
        &["changed /etc/ld.so.cache size content"],
    ),
    (
        "echo evil > etc/ld.so.cache",
        "rebuild",
        &["changed /etc/ld.so.cache size content"],
    ),
];

#[test]
fn each_type_of_rule_allows_exactly_what_it_says() -> Result<()> {
    if !possible("what rules allow") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    ground.shell("", &format!("mkdir tree; cd tree\n{TREE}"))?;
    let rules: String = RULES
        .iter()
        .map(|(rule_type, path)| rule(rule_type, path))
        .collect();
    ground.bake_well("tree", "baked", Some(&rules))?;
    ground
        .check("tree", "baked", Pass::Full)?
        .is(&[], &[])
        .context("the tree as it was baked")?;
    let mut wrong = Vec::new();
    for (make, undo, drifts) in ROWS {
        let rebuild = r#"rebuild() { ldconfig -X -r "$PWD" 2> /dev/null; }"#;
        ground
            .shell("tree", &format!("{rebuild}\n{make}"))
            .context("make it")?;
        let told = ground.check("tree", "baked", Pass::Full)?.is(drifts, &[]);
        ground
            .shell("tree", &format!("{rebuild}\n{undo}"))
            .context("undo it")?;
        wrong.extend(told.err().map(|error| format!("{make}: {error:#}")));
        let again = ground.check("tree", "baked", Pass::Full)?.is(&[], &[]);
        again.with_context(|| format!("after {undo}; before that {wrong:?}"))?;
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        ROWS.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn a_host_key_of_ssh_keygen_is_one() -> Result<()> {
    if !possible("a host key") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc/ssh")?;
    ground.bake_well(
        "tree",
        "baked",
        Some(&rule("host-key", "/etc/ssh/ssh_host_*")),
    )?;
    if ground.shell("tree", "command -v ssh-keygen").is_err() {
        skip("ssh-keygen", "is not there (openssh-client)");
        return Ok(());
    }
    ground.shell("tree", "ssh-keygen -q -A -f .")?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])?;
    ground.shell("tree", "chmod 644 etc/ssh/ssh_host_ed25519_key")?;
    let checked = ground.check("tree", "baked", Pass::Full)?;
    checked.is(&["added /etc/ssh/ssh_host_ed25519_key"], &[])?;
    let line = checked.line("/etc/ssh/ssh_host_ed25519_key")?;
    ensure!(
        line["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("0644")),
        "it says why: {line}"
    );
    Ok(())
}

/// One rule as a file has it.
fn rule(rule_type: &str, path: &str) -> String {
    match rule_type {
        "machine-id" | "host-key" | "ld-so-cache" => {
            format!("[[rule]]\ntype = \"shape\"\nshape = \"{rule_type}\"\npath = \"{path}\"\n")
        }
        _ => format!("[[rule]]\ntype = \"{rule_type}\"\npath = \"{path}\"\n"),
    }
}
