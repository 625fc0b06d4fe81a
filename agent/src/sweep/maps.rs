//! The text of `/proc/PID/maps` in; of each mapping of a file what it lets the process do, out.
//!
//! A line at a time: a process may have tens of thousands of mappings, and names are its own to choose.

use std::io::{self, Read};

/// A mapping of a file, or of something that the kernel calls by a path (proc_pid_maps(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping<'l> {
    /// From where to where, as `map_files` calls it.
    pub(super) range: &'l str,
    /// Whether it can be run.
    pub(super) runs: bool,
    /// Whether it can be written now.
    pub(super) writes: bool,
    /// Whether what is written there is written to the file.
    pub(super) is_shared: bool,
    /// Its inode number, as the mapping tells it.
    pub(super) inode: u64,
    /// Its path, with what the kernel says of it behind.
    pub(super) path: &'l [u8],
}

/// A line with the longest path there is, each byte of it escaped, is shorter.
const MOST_LINE_BYTES: usize = 32 * 1024;

/// Gives `each` every mapping that can be run or is shared, and has a path.
///
/// # Errors
/// It cannot be read, or is not understood (`InvalidData`).
pub(super) fn read(
    mut text: impl Read,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(Mapping<'_>),
) -> io::Result<()> {
    buffer.resize(MOST_LINE_BYTES, 0);
    let mut filled = 0;
    loop {
        let read = text.read(&mut buffer[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        let Some(end) = buffer[..filled].iter().rposition(|byte| *byte == b'\n') else {
            if filled == buffer.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            continue;
        };
        for line in buffer[..end].split(|byte| *byte == b'\n') {
            // Most are neither.
            if !is_run_or_shared(line).ok_or(io::ErrorKind::InvalidData)? {
                continue;
            }
            let mapping = parse(line).ok_or(io::ErrorKind::InvalidData)?;
            if mapping.path.starts_with(b"/") {
                each(mapping);
            }
        }
        buffer.copy_within(end + 1..filled, 0);
        filled -= end + 1;
    }
    match filled {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn is_run_or_shared(line: &[u8]) -> Option<bool> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let rights = line.get(space + 1..space + 6)?.strip_suffix(b" ")?;
    Some(rights[2] == b'x' || rights[3] == b's')
}

/// `00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon`.
fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = str::from_utf8(fields.next()?).ok()?;
    let rights = fields.next()?;
    let [_, writes, runs, shared] = rights else {
        return None;
    };
    let (_offset, _device) = (fields.next()?, fields.next()?);
    let inode = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    Some(Mapping {
        range,
        runs: *runs == b'x',
        writes: *writes == b'w',
        is_shared: *shared == b's',
        inode,
        path: fields.next().unwrap_or_default().trim_ascii_start(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives no more than a few bytes at a time.
    struct Slowly<'t>(&'t [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = self.0.len().min(self.1).min(buffer.len());
            buffer[..some].copy_from_slice(&self.0[..some]);
            self.0 = &self.0[some..];
            Ok(some)
        }
    }

    fn paths(text: &[u8], at_a_time: usize) -> io::Result<Vec<(Vec<u8>, u64)>> {
        let mut paths = Vec::new();
        read(Slowly(text, at_a_time), &mut Vec::new(), |mapping| {
            paths.push((mapping.path.to_vec(), mapping.inode));
        })?;
        Ok(paths)
    }

    const TEXT: &[u8] =
        b"55d0-55d1 r-xp 00000000 08:02 173521                     /usr/bin/a b (deleted)\n\
        7f00-7f01 rw-p 00000000 00:00 0 \n\
        7f02-7f03 rw-p 00000000 00:00 0                          [heap]\n\
        7f04-7f05 rw-s 00001000 00:01 7                          /memfd:x (deleted)\n";

    #[test]
    fn mappings_with_paths_are_told_however_they_come() {
        for at_a_time in [1, 7, 4096] {
            let told = paths(TEXT, at_a_time).unwrap();
            let expected = [
                (b"/usr/bin/a b (deleted)".to_vec(), 173_521),
                (b"/memfd:x (deleted)".to_vec(), 7),
            ];
            assert_eq!(told, expected);
        }
        let mut rights = Vec::new();
        read(TEXT, &mut Vec::new(), |mapping| {
            rights.push((mapping.runs, mapping.writes, mapping.is_shared));
        })
        .unwrap();
        assert_eq!(rights, [(true, false, false), (false, true, true)]);
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_no_end() {
        let long = [b"1-2 r-xp 0 0:0 1 /".as_slice(), &[b'a'; MOST_LINE_BYTES]].concat();
        let bad: [&[u8]; 7] = [
            b"\n",
            b"1-2\n",
            b"1-2 r-xp 0 0:0 x /a\n",
            b"1-2 r-x 0 0:0 1 /a\n",
            b"\xff-2 r-xp 0 0:0 1 /a\n",
            b"1-2 r-xp 0 0:0 1 /cut",
            &long,
        ];
        for bad in bad {
            let text = [TEXT, bad].concat();
            assert!(paths(&text, 4096).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // A generator of its own: the same bytes each time.
        let mut state = 7_u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                b"0 -rwxps/\n\xff"[(state >> 33) as usize % 11]
            })
            .take(60)
            .collect();
            let _ = paths(&bytes, 13);
        }
    }
}
