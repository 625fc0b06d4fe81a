//! Shape checks: content that differs on every instance, and still must be what it claims to be.
//!
//! Takes bytes and hands on yes or the reason why not; nothing is run, followed or looked up.

mod host_key;
mod loader_cache;

pub use host_key::host_key;
pub use loader_cache::ld_so_cache;

/// Why content does not have the shape that its rule asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Longer than anything of that shape.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Not a machine id.
    #[error("not a machine id: 32 lower-case hexadecimal digits and a line end")]
    MachineId,
    /// Others may read a private key, or write a public one.
    #[error("a host key of mode {0:04o}")]
    Mode(u16),
    /// Not a private key.
    #[error("not a private key: {0}")]
    PrivateKey(&'static str),
    /// Not a public key of OpenSSH.
    #[error("not a public key: {0}")]
    PublicKey(&'static str),
    /// Not a cache of the loader.
    #[error("not a cache of the loader: {0}")]
    LoaderCache(&'static str),
    /// The loader's cache names something outside the trusted directories.
    #[error("the loader's cache names {0}, which is in no trusted directory")]
    Untrusted(String),
    /// The loader's cache names something that the image does not have.
    #[error("the loader's cache names {0}, which is no file of the image")]
    Unknown(String),
}

/// The digits of a machine id (`machine-id(5)`).
const MACHINE_ID_DIGITS: usize = 32;

/// Whether this is the content of `/etc/machine-id`: 32 lower-case hexadecimal digits, not all 0, and a line end.
///
/// Empty, and the word `uninitialized`, are how images carry it before their first boot.
///
/// # Errors
/// [`ShapeError::MachineId`].
pub fn machine_id(content: &[u8]) -> Result<(), ShapeError> {
    if content.is_empty() || content == b"uninitialized\n" {
        return Ok(());
    }
    let digits = content.strip_suffix(b"\n").ok_or(ShapeError::MachineId)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let fits = digits.len() == MACHINE_ID_DIGITS
        && digits.iter().all(is_digit)
        && digits.iter().any(|&d| d != b'0');
    if fits {
        Ok(())
    } else {
        Err(ShapeError::MachineId)
    }
}

#[cfg(test)]
mod tests;
