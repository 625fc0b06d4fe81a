//! Host keys of `sshd`, private and public.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::ShapeError;

/// The longest: an RSA key of 16,384 bits takes 13 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// Owner, and the group `ssh_keys` that some distributions let read it (0640).
const PRIVATE_MODE: u16 = 0o640;
/// Anyone may read it.
const PUBLIC_MODE: u16 = 0o644;
const BEGIN: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &[u8] = b"-----END OPENSSH PRIVATE KEY-----";
/// `PROTOCOL.key` of OpenSSH.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Whether this is a host key with a mode that keeps it: private (OpenSSH's own form, or PEM with PKCS#8, RSA or EC;
/// at most 0640) or the line of a `.pub` file (at most 0644).
///
/// # Errors
/// [`ShapeError::TooLong`], [`ShapeError::Mode`], [`ShapeError::PrivateKey`] and [`ShapeError::PublicKey`].
pub fn host_key(content: &[u8], mode: u16) -> Result<(), ShapeError> {
    if content.len() > MAX_BYTES {
        return Err(ShapeError::TooLong(MAX_BYTES));
    }
    let is_private = content.starts_with(b"-----BEGIN ");
    let allowed = if is_private {
        PRIVATE_MODE
    } else {
        PUBLIC_MODE
    };
    if mode & !allowed != 0 {
        return Err(ShapeError::Mode(mode));
    }
    if !is_private {
        return public_line(content).map_err(ShapeError::PublicKey);
    }
    let checked = match content.strip_prefix(BEGIN) {
        Some(body) => openssh_key(body),
        None => pem_key(content),
    };
    checked.map_err(ShapeError::PrivateKey)
}

fn openssh_key(body: &[u8]) -> Result<(), &'static str> {
    let body = body
        .trim_ascii_end()
        .strip_suffix(END)
        .ok_or("it has no end")?;
    let text: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bytes = STANDARD.decode(text).map_err(|_| "it is not base64")?;
    let mut rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it is not openssh-key-v1")?;
    let cut = "it is cut short";
    let cipher = string(&mut rest).ok_or(cut)?;
    let derivation = string(&mut rest).ok_or(cut)?;
    let _options = string(&mut rest).ok_or(cut)?;
    if (cipher == b"none") != (derivation == b"none") {
        return Err("its cipher and key derivation do not go together");
    }
    let (count, mut rest) = rest.split_first_chunk().ok_or(cut)?;
    if u32::from_be_bytes(*count) != 1 {
        return Err("it does not hold one key");
    }
    let mut public = string(&mut rest).ok_or(cut)?;
    let private = string(&mut rest).ok_or(cut)?;
    let kind = string(&mut public).ok_or(cut)?;
    if !is_key_type(kind) || private.is_empty() || private.len() % 8 != 0 {
        return Err("it is not a key of a known kind");
    }
    // Encrypted keys may have an authentication tag after the private part.
    if !rest.is_empty() && cipher == b"none" {
        Err("there are bytes after it")
    } else {
        Ok(())
    }
}

fn pem_key(content: &[u8]) -> Result<(), &'static str> {
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(content);
    let (kind, der) = sections
        .next()
        .ok_or("it is not PEM")?
        .map_err(|_| "it is not PEM")?;
    let is_private = matches!(
        kind,
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
    );
    if !is_private || sections.next().is_some() {
        return Err("it is not one private key");
    }
    if is_whole_sequence(&der) {
        Ok(())
    } else {
        Err("it is not DER")
    }
}

/// One DER sequence and nothing after it.
fn is_whole_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, length @ 0..=0x7f, body @ ..] => body.len() == usize::from(*length),
        [0x30, 0x81, length, body @ ..] => body.len() == usize::from(*length),
        [0x30, 0x82, high, low, body @ ..] => {
            body.len() == usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

fn public_line(content: &[u8]) -> Result<(), &'static str> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    if line.iter().any(u8::is_ascii_control) {
        return Err("it is not one line");
    }
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (kind, text) = words
        .next()
        .zip(words.next())
        .ok_or("it is not a kind and a key")?;
    let bytes = STANDARD.decode(text).map_err(|_| "it is not base64")?;
    let mut rest = &bytes[..];
    let inner = string(&mut rest).ok_or("it is cut short")?;
    if !is_key_type(kind) || inner != kind || rest.is_empty() {
        return Err("it is not of the kind that it says");
    }
    Ok(())
}

fn is_key_type(kind: &[u8]) -> bool {
    [&b"ssh-"[..], b"ecdsa-sha2-", b"sk-"]
        .iter()
        .any(|prefix| kind.starts_with(prefix))
        && kind
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.@".contains(byte))
}

/// A string of the SSH protocol: its length in four bytes, then itself (RFC 4251 §5).
fn string<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (string, rest) =
        rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(string)
}
