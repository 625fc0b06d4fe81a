//! The records of a tar's extensions in; what they say of the member that follows out (POSIX pax(1), and the names that
//! GNU tar, star and bsdtar use).

use super::reader::Header;

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// What pax records say that is not in a header.
#[derive(Default)]
pub(super) struct Pax {
    /// Bytes that the archive holds of the member.
    pub(super) stored: u64,
    /// Length of a sparse file.
    pub(super) real_size: Option<u64>,
    /// Which form of sparse file.
    pub(super) major: Option<u64>,
    /// Where the stored bytes belong: start and length.
    pub(super) map: Option<Vec<(u64, u64)>>,
}

impl Pax {
    /// Takes in one record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(
        &mut self,
        header: &mut Header,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("a pax record whose number is none");
        let narrow =
            || u32::try_from(number()?).map_err(|_| "a pax record with too large a number");
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            header.xattrs.retain(|(known, _)| known != name);
            header.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" | b"GNU.sparse.name" => header.path = value.to_vec(),
            b"linkpath" => header.link = value.to_vec(),
            b"uid" => header.uid = narrow()?,
            b"gid" => header.gid = narrow()?,
            b"size" => self.stored = number()?,
            b"mtime" => header.modified = time(value).ok_or("a pax record whose time is none")?,
            b"SCHILY.devmajor" => header.device.0 = narrow()?,
            b"SCHILY.devminor" => header.device.1 = narrow()?,
            b"RHT.security.selinux" => {
                header
                    .xattrs
                    .push((b"security.selinux".to_vec(), value.to_vec()));
            }
            b"SCHILY.acl.access" | b"SCHILY.acl.default" | b"SCHILY.acl.ace" => {
                header.has_text_acl |= !value.is_empty();
            }
            b"GNU.sparse.major" => self.major = Some(number()?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let numbers: Option<Vec<u64>> = numbers.collect();
                let numbers = numbers.ok_or("a sparse file whose map is not numbers")?;
                self.map = Some(
                    numbers
                        .chunks_exact(2)
                        .map(|pair| (pair[0], pair[1]))
                        .collect(),
                );
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                return Err(
                    "a sparse file in the form of pax 0.0, which is not read: make the tar without --sparse",
                );
            }
            _ => {}
        }
        Ok(())
    }
}

/// `LENGTH KEY=VALUE\n`, and what follows.
pub(super) fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds, with a fraction to nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits = fraction.get(..fraction.len().min(9))?;
    let nanoseconds: u32 = format!("{digits:0<9}").parse().ok()?;
    if seconds.starts_with('-') && nanoseconds > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((whole, nanoseconds))
}
