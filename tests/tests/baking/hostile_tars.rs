//! Tars that mean harm, or are none: a clear error, nothing written.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use driftmark_tests::sandbox::possible;

use crate::studio::Studio;

/// One member: path, type, link, content.
type Member<'a> = (&'a str, u8, &'a str, &'a [u8]);

/// What it has after a directory `a`, and what the refusal says.
const TARS: [(&[Member<'_>], &str); 20] = [
    (&[("a/../../etc/x", b'0', "", b"x")], "not a path below"),
    (&[("..", b'5', "", b"")], "not a path below"),
    (&[("/etc/x", b'0', "", b"x")], "not a path below"),
    (&[("", b'0', "", b"x")], "not a path below"),
    (&[("./", b'2', "/etc", b"")], "the root"),
    (&[("a/x", b'1', "a/none", b"")], "a hard link to /a/none"),
    (&[("a/x", b'1', "a", b"")], "a hard link to /a"),
    (
        &[("a/x", b'1', "../../etc/passwd", b"")],
        "not a path below",
    ),
    (
        &[("out", b'2', "/etc", b""), ("out/x", b'0', "", b"x")],
        "/out/x is in no directory",
    ),
    (
        &[("late/x", b'0', "", b"x"), ("late", b'2', "/etc", b"")],
        "/late/x is in no directory",
    ),
    (&[("none/x", b'0', "", b"x")], "/none/x is in no directory"),
    (
        &[("a/x", b'0', "", b"x"), ("a", b'2', "/etc", b"")],
        "later something else",
    ),
    (&[("a/x", b'Z', "", b"")], "type 'Z'"),
    (
        &[("x", b'x', "", b"999 path=a\n"), ("a/x", b'0', "", b"")],
        "a pax record that is none",
    ),
    (
        &[
            ("x", b'x', "", b"16 path=/etc/xy\n"),
            ("a/x", b'0', "", b""),
        ],
        "not a path below",
    ),
    (
        &[
            ("x", b'x', "", b"24 GNU.sparse.map=9,9,0\n"),
            ("a/x", b'0', "", b"123456789"),
        ],
        "a sparse file",
    ),
    (
        &[
            (
                "x",
                b'x',
                "",
                b"22 GNU.sparse.map=0,0\n39 GNU.sparse.size=9000000000000000000\n",
            ),
            ("a/x", b'0', "", b""),
        ],
        "a file that is longer than any",
    ),
    (
        &[
            ("x", b'x', "", b"29 size=99999999999999999999\n"),
            ("a/x", b'0', "", b""),
        ],
        "whose number is none",
    ),
    (
        &[
            ("x", b'x', "", b"19 size=9999999999\n"),
            ("a/x", b'0', "", b""),
        ],
        "cut short",
    ),
    (&[("a/x", b'L', "", &[b'x'; 70_000])], "longer than any"),
];

/// What is written by other means than its members.
const FILES: [(&str, &str); 6] = [
    (": > FILE", "cut short"),
    ("echo hello > FILE", "cut short"),
    ("head -c 4096 /dev/urandom > FILE", "unpacked first"),
    ("head -c 1024 /dev/zero > FILE", "no members"),
    (
        "mkdir -p d; tar -czf FILE d; truncate -s 1024 FILE",
        "unpacked first",
    ),
    (
        "mkdir -p d; truncate -s 1M d/x; tar -cf FILE d; truncate -s 500K FILE",
        "cut short",
    ),
];

#[test]
fn a_tar_that_is_none_or_means_harm_is_refused() -> Result<()> {
    if !possible("tars that are refused") {
        return Ok(());
    }
    let studio = Studio::new()?;
    let file = studio.path("tar");
    let refuses = |what: &str, says: &str| -> Result<()> {
        let refused = studio.bake("out", &["--tar", &file, "--rules", "none"])?;
        ensure!(
            refused.code == 65 && refused.err.contains(says),
            "{what} is to be refused with {says:?}: {refused:?}"
        );
        ensure!(!Path::new(&studio.path("out")).exists(), "{what}");
        Ok(())
    };
    for (members, says) in TARS {
        let mut tar = header("a", b'5', "", 0);
        for (path, flag, link, content) in members {
            tar.extend(header(path, *flag, link, content.len()));
            tar.extend(*content);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        fs::write(&file, tar)?;
        refuses(&format!("{:?}", members[0].0), says)?;
    }
    for (make, says) in FILES {
        studio.shell(&make.replace("FILE", "tar"))?;
        refuses(make, says)?;
    }
    let asked = studio.bake(
        "out",
        &["--tar", &file, "--filesystem", "/boot", "--rules", "none"],
    )?;
    ensure!(
        asked.code != 0 && asked.err.contains("--filesystem has no meaning"),
        "{asked:?}"
    );
    Ok(())
}

/// A ustar header (POSIX pax(1)).
fn header(path: &str, flag: u8, link: &str, size: usize) -> Vec<u8> {
    let mut block = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(157, link);
    put(257, "ustar");
    put(263, "00");
    block[156] = flag;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.to_vec()
}
