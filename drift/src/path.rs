//! Paths as the kernel spells them: bytes, relative to the scanned root, in manifest order.
//!
//! Nothing here can leave the root, and nothing here prints a control byte.

mod trail;

use std::cmp::Ordering;
use std::fmt::{self, Display, Write as _};

use serde::{Deserialize, Serialize};

pub(crate) use trail::Trail;

/// A path below the scanned root, exactly as the kernel spells it.
///
/// Bytes, not text: a name that is not UTF-8 is still a name. Never absolute, never `..`,
/// so joining one to a directory descriptor cannot leave that directory. The root itself is
/// the empty path; it is shown as `/`, and every other path is shown with a leading `/`.
///
/// Ordered component by component: a directory comes directly before what is in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// The longest path that is held, in bytes. Far above `PATH_MAX` (4096), because a tree can be
    /// built deeper than one system call can name; what lies deeper still is a gap in the coverage.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The root of the tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path with or without its leading `/`.
    ///
    /// # Errors
    /// An empty component, `.`, `..`, a NUL byte, or more than [`TreePath::MAX_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, BadPath> {
        let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
        if relative.is_empty() {
            return Ok(Self::root());
        }
        if relative.len() > Self::MAX_BYTES {
            return Err(BadPath::TooLong);
        }
        for name in relative.split(|&b| b == b'/') {
            check_name(name)?;
        }
        Ok(Self(relative.into()))
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// The same as [`TreePath::new`]; a `/` in `name` is refused too.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        let length = self.joined_length(name)?;
        let mut joined = Vec::with_capacity(length);
        joined.extend_from_slice(&self.0);
        if !self.is_root() {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Ok(Self(joined.into()))
    }

    /// Whether [`TreePath::join`] gives a path.
    pub fn can_join(&self, name: &[u8]) -> bool {
        self.joined_length(name).is_ok()
    }

    fn joined_length(&self, name: &[u8]) -> Result<usize, BadPath> {
        check_name(name)?;
        let length = self.0.len() + usize::from(!self.is_root()) + name.len();
        if length > Self::MAX_BYTES {
            return Err(BadPath::TooLong);
        }
        Ok(length)
    }

    /// Whether this is the path of `name` in a directory: [`TreePath::join`] without making it.
    pub fn is_joined_of(&self, directory: &TreePath, name: &[u8]) -> bool {
        let rest = self.0.strip_suffix(name);
        rest.is_some_and(|rest| match directory.is_root() {
            true => rest.is_empty(),
            false => rest.strip_suffix(b"/") == Some(directory.as_bytes()),
        })
    }

    /// The bytes, without a leading `/`; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that this path is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The names from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &TreePath) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(&*ancestor.0)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// The absolute form, `/` first, as bytes.
    pub fn to_absolute(&self) -> Vec<u8> {
        [b"/", &*self.0].concat()
    }

    /// The absolute form with every byte that is not UTF-8 replaced: for text that has `path_bytes` beside it.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.to_absolute()).into_owned()
    }

    /// Whether [`TreePath::to_text`] loses nothing.
    pub fn is_utf8(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_bytes(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Safe to print anywhere: control bytes, backslashes and bytes that are not UTF-8 are escaped.
impl Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.to_absolute()))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreePath({self})")
    }
}

/// In JSON a path is its text where that is exact, else `{"bytes": BASE64}`.
impl Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(_) => serializer.serialize_str(&self.to_text()),
            Err(_) => PathBytes {
                bytes: crate::base64(&self.to_absolute()),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Text(String),
            Bytes(PathBytes),
        }
        let bytes = match Spelling::deserialize(deserializer)? {
            Spelling::Text(text) => text.into_bytes(),
            Spelling::Bytes(PathBytes { bytes }) => {
                crate::from_base64(&bytes).map_err(serde::de::Error::custom)?
            }
        };
        TreePath::new(&bytes).map_err(serde::de::Error::custom)
    }
}

/// Why bytes are not a path below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// An empty component, `.`, `..`, or a `/` inside a name.
    #[error("path has an empty, `.` or `..` component")]
    Component,
    /// A NUL byte, which no kernel path can hold.
    #[error("path has a NUL byte")]
    Nul,
    /// Longer than [`TreePath::MAX_BYTES`].
    #[error("path is longer than {} bytes", TreePath::MAX_BYTES)]
    TooLong,
}

/// Text for people: printable UTF-8 as it is, everything else as `\xHH`, `\n`, `\t`, `\r` or `\\`.
///
/// Bidirectional and other invisible format characters are escaped too: a name cannot rearrange a line.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() || is_invisible(c) => {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Path bytes in manifest order: `/` before every other byte, so that a directory's content follows it.
pub(crate) fn compare_bytes(a: &[u8], b: &[u8]) -> Ordering {
    let shared = shared_prefix(a, b);
    let (a, b) = (a.get(shared).map(weight), b.get(shared).map(weight));
    a.cmp(&b)
}

fn weight(byte: &u8) -> u8 {
    if *byte == b'/' { 0 } else { *byte }
}

/// How many bytes two paths have in common at their beginning: as a rule most of them, so they are compared in chunks.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (chunks_a, _) = a.as_chunks::<16>();
    let (chunks_b, _) = b.as_chunks::<16>();
    let chunks = chunks_a.iter().zip(chunks_b);
    let same = 16 * chunks.take_while(|(a, b)| a == b).count();
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

fn check_name(name: &[u8]) -> Result<(), BadPath> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(BadPath::Component);
    }
    // In one go, as a walk asks this of every name.
    match name.iter().find(|byte| matches!(byte, 0 | b'/')) {
        Some(0) => Err(BadPath::Nul),
        Some(_) => Err(BadPath::Component),
        None => Ok(()),
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[derive(Serialize, Deserialize)]
struct PathBytes {
    bytes: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_are_in_the_order_of_their_bytes_but_for_the_slash_however_long_they_are() {
        let weight = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        let mut random = 1_u64;
        let mut below = |limit: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % limit
        };
        for _ in 0..20_000 {
            let shared: Vec<u8> = (0..below(40)).map(|_| b"a/b"[below(3) as usize]).collect();
            let [a, b] = [(); 2].map(|()| {
                let rest = (0..below(20)).map(|_| b".a/z"[below(4) as usize]);
                shared.iter().copied().chain(rest).collect::<Vec<u8>>()
            });
            let naive = a.iter().map(weight).cmp(b.iter().map(weight));
            assert_eq!(compare_bytes(&a, &b), naive, "{a:?} {b:?}");
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            assert_eq!(shared_prefix(&a, &b), same, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_directory_comes_directly_before_its_content() {
        let mut paths: Vec<_> = ["/a-b", "/a/b", "/", "/a", "/a.d/x", "/a.d"]
            .map(path)
            .into();
        paths.sort();
        assert_eq!(
            paths,
            ["/", "/a", "/a/b", "/a-b", "/a.d", "/a.d/x"].map(path)
        );
    }

    #[test]
    fn a_path_is_that_of_its_name_in_its_directory_alone() {
        let directories = ["/", "/a", "/a/b", "/ab"].map(path);
        for directory in &directories {
            for name in [&b"a"[..], b"b", b"ab", b"a/b", b"", b".."] {
                let joined = directory.join(name);
                assert_eq!(directory.can_join(name), joined.is_ok(), "{joined:?}");
                for other in ["/a", "/b", "/ab", "/a/b", "/a/a", "/ab/b", "/a/b/b"].map(path) {
                    let is_joined = joined.as_ref() == Ok(&other);
                    assert!(
                        !is_joined || other.is_joined_of(directory, name),
                        "{other} {directory}"
                    );
                    assert!(
                        is_joined || joined.is_err() || !other.is_joined_of(directory, name),
                        "{other} {directory}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_could_leave_the_root_is_refused() {
        for bad in ["..", "/a/../b", "a//b", "./a", "a/", "//a", "a\0b"] {
            assert!(TreePath::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(TreePath::root().join(b"a/b").is_err());
        assert!(TreePath::new(&[b'x'; TreePath::MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn display_escapes_control_and_invisible_characters() {
        let hostile = TreePath::new(b"etc/a\n\x1b[31m\xff\\\xe2\x80\xae").unwrap();
        assert_eq!(
            hostile.to_string(),
            "/etc/a\\n\\x1b[31m\\xff\\\\\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn json_keeps_every_byte() {
        for bytes in [&b"etc/passwd"[..], b"", b"etc/\xff\n"] {
            let path = TreePath::new(bytes).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(
                serde_json::from_str::<TreePath>(&json).unwrap(),
                path,
                "{json}"
            );
        }
    }

    #[test]
    fn within_is_by_component() {
        assert!(path("/etc/a").is_within(&path("/etc")));
        assert!(path("/etc").is_within(&path("/etc")));
        assert!(!path("/etcetera").is_within(&path("/etc")));
        assert!(path("/x").is_within(&TreePath::root()));
    }
}
