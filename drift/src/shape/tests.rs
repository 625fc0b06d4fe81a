//! Receives contents good and hostile; holds the shape checks to them.

use proptest::prelude::*;

use super::*;
use crate::TreePath;

#[test]
fn a_machine_id_is_32_lower_case_digits() {
    for good in ["", "uninitialized\n", "0123456789abcdef0123456789abcdef\n"] {
        assert_eq!(machine_id(good.as_bytes()), Ok(()), "{good:?}");
    }
    for bad in [
        "0123456789abcdef0123456789abcdef",
        "0123456789ABCDEF0123456789abcdef\n",
        "0123456789abcdef0123456789abcde\n",
        "00000000000000000000000000000000\n",
        "0123456789abcdef0123456789abcdef\n\n",
        "uninitialized",
    ] {
        assert_eq!(
            machine_id(bad.as_bytes()),
            Err(ShapeError::MachineId),
            "{bad:?}"
        );
    }
}

fn ssh_string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn public_blob(kind: &str) -> Vec<u8> {
    [ssh_string(kind.as_bytes()), ssh_string(&[7; 32])].concat()
}

fn openssh_private(private: &[u8], after: &[u8]) -> Vec<u8> {
    let none = ssh_string(b"none");
    let key = [
        b"openssh-key-v1\0".to_vec(),
        none.clone(),
        none,
        ssh_string(b""),
        1u32.to_be_bytes().to_vec(),
        ssh_string(&public_blob("ssh-ed25519")),
        ssh_string(private),
        after.to_vec(),
    ]
    .concat();
    let body = crate::base64(&key);
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
        .into_bytes()
}

#[test]
fn a_host_key_is_a_key_that_others_cannot_read() {
    let key = openssh_private(&[1; 16], b"");
    assert_eq!(host_key(&key, 0o600), Ok(()));
    assert_eq!(
        host_key(&key, 0o640),
        Ok(()),
        "the group ssh_keys may read it"
    );
    assert_eq!(host_key(&key, 0o644), Err(ShapeError::Mode(0o644)));
    assert_eq!(host_key(&key, 0o4600), Err(ShapeError::Mode(0o4600)));
    let cases = [
        openssh_private(&[1; 15], b""),
        openssh_private(&[1; 16], b"x"),
        key[..key.len() / 2].to_vec(),
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec(),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(),
    ];
    for bad in cases {
        assert!(
            matches!(host_key(&bad, 0o600), Err(ShapeError::PrivateKey(_))),
            "{}",
            crate::escape(&bad)
        );
    }
    let pkcs8 = b"-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
    assert_eq!(host_key(pkcs8, 0o600), Ok(()));
}

#[test]
fn a_public_host_key_is_of_the_kind_that_it_says() {
    let line = format!(
        "ssh-ed25519 {} root@host\n",
        crate::base64(&public_blob("ssh-ed25519"))
    );
    assert_eq!(host_key(line.as_bytes(), 0o644), Ok(()));
    assert_eq!(
        host_key(line.as_bytes(), 0o666),
        Err(ShapeError::Mode(0o666))
    );
    let bad = [
        line.replace("ssh-ed25519 ", "ssh-rsa "),
        line.replace("ssh-ed25519 ", "command=\"x\" ssh-ed25519 "),
        line.clone() + &line,
        "ssh-ed25519 AAAA\n".to_owned(),
        "ssh-ed25519\n".to_owned(),
        String::new(),
    ];
    for text in bad {
        assert!(
            matches!(
                host_key(text.as_bytes(), 0o644),
                Err(ShapeError::PublicKey(_))
            ),
            "{text:?}"
        );
    }
}

/// A cache in the new format, as ldconfig lays it out.
fn cache(libraries: &[(&str, &str)]) -> Vec<u8> {
    let start = 48 + 24 * libraries.len();
    let (mut entries, mut strings) = (Vec::new(), Vec::new());
    for (key, value) in libraries {
        entries.extend_from_slice(&0x0303u32.to_le_bytes());
        for text in [key, value] {
            entries.extend_from_slice(&((start + strings.len()) as u32).to_le_bytes());
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
        }
        entries.extend_from_slice(&[0; 12]);
    }
    let mut cache = b"glibc-ld.so.cache1.1".to_vec();
    cache.extend_from_slice(&(libraries.len() as u32).to_le_bytes());
    cache.extend_from_slice(&(strings.len() as u32).to_le_bytes());
    cache.push(2);
    cache.resize(48, 0);
    [cache, entries, strings].concat()
}

fn in_image(path: &TreePath) -> bool {
    path.as_bytes().starts_with(b"usr/lib") && !path.as_bytes().ends_with(b"missing.so")
}

#[test]
fn each_entry_of_the_loaders_cache_is_a_library_of_the_image() {
    let good = cache(&[
        ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
        (
            "libz.so.1",
            "/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libz.so.1",
        ),
        ("liba.so", "/usr/lib/liba.so"),
    ]);
    assert_eq!(ld_so_cache(&good, in_image), Ok(()));
    let mut combined = b"ld.so-1.7.0\0\x01\0\0\0".to_vec();
    combined.extend_from_slice(&[0; 12 + 4]);
    combined.extend_from_slice(&good);
    assert_eq!(ld_so_cache(&combined, in_image), Ok(()));
    for path in [
        "/tmp/libc.so.6",
        "/usr/lib/../../tmp/libc.so.6",
        "lib/libc.so.6",
        "/lib/a/b/c/libc.so.6",
        "/lib",
    ] {
        let refused = ld_so_cache(&cache(&[("libc.so.6", path)]), |_| true);
        assert!(matches!(refused, Err(ShapeError::Untrusted(_))), "{path}");
    }
    let unknown = ld_so_cache(&cache(&[("missing.so", "/usr/lib/missing.so")]), in_image);
    assert_eq!(
        unknown,
        Err(ShapeError::Unknown("/usr/lib/missing.so".to_owned()))
    );
}

#[test]
fn a_cache_that_lies_about_its_lengths_is_refused() {
    let good = cache(&[("liba.so", "/usr/lib/liba.so")]);
    for cut in 0..good.len() {
        assert!(ld_so_cache(&good[..cut], |_| true).is_err(), "{cut}");
    }
    for at in [20, 24, 52, 56] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&[0xff; 4]);
        assert!(
            matches!(ld_so_cache(&bad, |_| true), Err(ShapeError::LoaderCache(_))),
            "{at}"
        );
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the real thing, where it is")]
fn this_machines_own_cache_is_a_cache() {
    let Ok(content) = std::fs::read("/etc/ld.so.cache") else {
        return;
    };
    assert_eq!(ld_so_cache(&content, |_| true), Ok(()));
}

proptest! {
    #[test]
    fn hostile_content_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..200, byte: u8) {
        let _ = machine_id(&bytes);
        let _ = host_key(&bytes, 0o600);
        let _ = ld_so_cache(&[&b"glibc-ld.so.cache1.1"[..], &bytes].concat(), |_| true);
        let _ = ld_so_cache(&[&b"ld.so-1.7.0\0"[..], &bytes].concat(), |_| true);
        let mut flipped = cache(&[("liba.so", "/usr/lib/liba.so"), ("libb.so", "/usr/lib/libb.so")]);
        let at = at % flipped.len();
        flipped[at] ^= byte;
        let _ = ld_so_cache(&flipped, |_| true);
        let mut key = openssh_private(&[1; 16], b"");
        let at = at % key.len();
        key[at] ^= byte;
        let _ = host_key(&key, 0o600);
    }
}
