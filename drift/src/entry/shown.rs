//! An entry as people, JSON and the wire see it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Entry, FileFlags, Node, Permissions};
use crate::{Blake3, TreePath, escape};

/// What is shown of an entry: digests, sizes and attributes, never contents.
///
/// Only for showing and sending; what is trusted is decided on [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shown {
    /// The word of [`super::Kind`].
    pub kind: Cow<'static, str>,
    /// Permission bits.
    pub mode: Permissions,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// BLAKE3 of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Blake3>,
    /// What the kernel measured of a file with fs-verity when it was baked, as `fsverity measure` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Box<str>>,
    /// Where a symbolic link points; control bytes escaped, cut after [`Shown::MAX_TARGET_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<str>>,
    /// `MAJOR:MINOR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Box<str>>,
    /// Hard-link group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Box<ShownLinks>>,
    /// Name → base64 of the value, or `blake3:HEX` of a value longer than [`Shown::MAX_VALUE_BYTES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattr: BTreeMap<String, String>,
    /// Letters of `chattr(1)`.
    #[serde(default, skip_serializing_if = "FileFlags::is_none_ref")]
    pub flags: FileFlags,
}

/// A hard-link group as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownLinks {
    /// The first of its names in manifest order.
    pub least: TreePath,
    /// How many of its names are not entries.
    pub outside: u32,
}

impl Shown {
    /// A target longer than the kernel allows (`PATH_MAX`) is cut here.
    pub const MAX_TARGET_BYTES: usize = 4096;
    /// Longer values are shown by their digest: capabilities, ACLs and labels are far shorter.
    pub const MAX_VALUE_BYTES: usize = 512;
    /// At most this many attributes are shown, the first by name.
    pub const MAX_XATTRS: usize = 32;
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        let mut shown = Shown {
            kind: entry.node.kind().word().into(),
            mode: Permissions::of(entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            links: entry.links.as_ref().map(|links| {
                Box::new(ShownLinks {
                    least: links.least.clone(),
                    outside: links.outside,
                })
            }),
            flags: entry.flags,
            ..Shown::default()
        };
        match &entry.node {
            Node::File {
                size,
                content,
                verity,
            } => {
                shown.size = Some(*size);
                shown.content = Some(*content);
                shown.verity = verity.as_ref().map(|verity| verity.to_string().into());
            }
            Node::Symlink { target } => {
                shown.target =
                    Some(escape(&target[..target.len().min(Self::MAX_TARGET_BYTES)]).into());
            }
            Node::CharDevice(device) | Node::BlockDevice(device) => {
                shown.device = Some(format!("{}:{}", device.major, device.minor).into());
            }
            Node::SelfFile | Node::Directory | Node::Fifo | Node::Socket => {}
        }
        for xattr in entry.xattrs.as_slice().iter().take(Self::MAX_XATTRS) {
            let value = if xattr.value.len() <= Self::MAX_VALUE_BYTES {
                crate::base64(&xattr.value)
            } else {
                format!("blake3:{}", Blake3::of(&xattr.value))
            };
            shown.xattr.insert(escape(&xattr.name), value);
        }
        shown
    }
}

impl FileFlags {
    fn is_none_ref(&self) -> bool {
        self.is_none()
    }
}
