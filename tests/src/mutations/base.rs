//! The tree that the rows are about: something of every kind in it, with every attribute and odd name.

/// A name as bash spells it and as it is shown.
#[derive(Debug)]
pub struct OddName {
    /// For a line of shell.
    pub bash: &'static str,
    /// Escaped.
    pub shown: &'static str,
}

/// Names that programs have stumbled over.
pub const ODD_NAMES: [OddName; 14] = [
    OddName {
        bash: r"$'\xff\xfe'",
        shown: r"\xff\xfe",
    },
    OddName {
        bash: r"$'\xc3'",
        shown: r"\xc3",
    },
    OddName {
        bash: r"$'a\nb'",
        shown: r"a\nb",
    },
    OddName {
        bash: r"$'\e[31mred\e[0m'",
        shown: r"\x1b[31mred\x1b[0m",
    },
    OddName {
        bash: r"$'\e]0;title\a'",
        shown: r"\x1b]0;title\x07",
    },
    OddName {
        bash: r"$'\xc2\x9b31m'",
        shown: r"\xc2\x9b31m",
    },
    OddName {
        bash: r"$'\xe2\x80\xaetxt.exe'",
        shown: r"\xe2\x80\xaetxt.exe",
    },
    OddName {
        bash: r"$'\x7f\x01\x1f'",
        shown: r"\x7f\x01\x1f",
    },
    OddName {
        bash: r"'back\slash'",
        shown: r"back\\slash",
    },
    OddName {
        bash: r"' leading and trailing '",
        shown: " leading and trailing ",
    },
    OddName {
        bash: r"'-rf'",
        shown: "-rf",
    },
    OddName {
        bash: r"'*?[a]{b}'",
        shown: "*?[a]{b}",
    },
    OddName {
        bash: r"'...'",
        shown: "...",
    },
    OddName {
        bash: "'\u{1f980}\u{e9}'",
        shown: "\u{1f980}\u{e9}",
    },
];

/// The longest name that there is.
pub const LONG_NAME: &str = r#""$(printf 'n%.0s' {1..255})""#;

/// Everything but what the odd names add.
const SCRIPT: &str = r#"
mkdir -p bin etc/conf.d lib opt/empty opt/sticky opt/setgid opt/full/below dev run names data trash
printf '#!/bin/sh\necho tool\n' > bin/tool; chmod 755 bin/tool
cp /bin/true bin/program
cp /bin/true bin/setuid; chmod 4755 bin/setuid
cp /bin/true bin/capable; setcap cap_net_raw+ep bin/capable
cp bin/tool bin/labelled; setfattr -n security.selinux -v system_u:object_r:bin_t:s0 bin/labelled
echo root:x:0:0:root:/root:/bin/sh > etc/passwd
echo 127.0.0.1 localhost > etc/hosts
echo 'root:*:19000::::::' > etc/shadow; chown 0:42 etc/shadow; chmod 640 etc/shadow
echo one > etc/conf.d/10-one.conf; echo two > etc/conf.d/20-two.conf
echo acl > etc/acl; setfacl -m u:1000:rw etc/acl
mkdir etc/acl.d; setfacl -m d:g:1000:rx etc/acl.d
seq 20000 > lib/library; ln -s library lib/link; ln -s $'../no\nwhere\xff' lib/dangling
echo group > lib/hard-a; ln lib/hard-a lib/hard-b
echo other > lib/pair-a; ln lib/pair-a lib/pair-b
echo three > lib/many-1; ln lib/many-1 lib/many-2; ln lib/many-1 lib/many-3
echo outside > lib/outside; ln lib/outside "$KEEP/outside"
ln -s target lib/linked-link; ln lib/linked-link lib/linked-link-2
chmod 1777 opt/sticky; chmod 2775 opt/setgid; chown 0:50 opt/setgid
echo a > opt/full/a; echo b > opt/full/below/b
mknod -m 666 dev/null c 1 3; mknod -m 660 dev/disk b 7 200; mknod -m 600 dev/large c 4095 1048575
mkfifo run/pipe; socket run/socket
truncate -s 4M data/sparse; printf x | dd of=data/sparse bs=1 seek=2M conv=notrunc status=none
: > data/empty; seq 1000 > data/plain; chmod 644 data/plain
seq 1000 > data/owned; chown 1000:1000 data/owned
seq 100 > data/flagged; chattr +dA data/flagged
echo locked > data/locked; chattr +i data/locked
mkdir data/indexed; touch data/indexed/{1..400}
echo noted > data/noted
setfattr -n user.note -v text data/noted; setfattr -n user.empty data/noted
setfattr -n user.bytes -v 0x00ff0a1b data/noted; setfattr -n trusted.note -v secret data/noted
setfattr -n user.large -v "$(printf 'v%.0s' {1..3000})" data/plain
setfattr -n user.note -v text opt/full; setfattr -n trusted.note -v secret opt/full
setfattr -h -n trusted.note -v secret lib/link
setfattr -n trusted.note -v secret dev/disk
mkdir -p order/a order/a.d order/a-b; touch order/a/x order/a.d/x order/a-b/x 'order/a b' 'order/a!b' order/a0 order/A
perl -e 'for (1..$ARGV[0]) { mkdir "d" x 200 or die $!; chdir "d" x 200 or die $! }' "$DEPTH"
deep 'open F, ">leaf"; print F "deep\n"'
echo long > names/"$(printf 'n%.0s' {1..255})"
"#;

/// Lines of shell that fill an empty tree.
pub fn script() -> String {
    let mut script = SCRIPT.to_owned();
    for OddName { bash, .. } in &ODD_NAMES {
        script += &format!(
            "echo odd > names/{bash}; mkdir trash/{bash}; echo below > trash/{bash}/below\n"
        );
    }
    script + "ln -s $'\\xff\\e[31m' names/link\n"
}
