//! Extended attributes: capabilities, ACLs, security labels and the rest.

use std::sync::Arc;

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name with its namespace, such as `security.capability`; at most 255 bytes.
    pub name: Box<[u8]>,
    /// The value; at most 64 KiB.
    pub value: Box<[u8]>,
}

/// What a file system shows of its own business, by the beginnings of the names.
const NOT_HELD: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"trusted.SGI_ACL_"];

/// The held extended attributes of an entry, sorted by name, each name once.
///
/// Shared: most files of an image have the same few sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xattrs(Option<Arc<[Xattr]>>);

impl Xattrs {
    /// The kernel's limit on a name (`XATTR_NAME_MAX`).
    pub const MAX_NAME_BYTES: usize = 255;
    /// The kernel's limit on a value (`XATTR_SIZE_MAX`).
    pub const MAX_VALUE_BYTES: usize = 64 * 1024;
    /// More attributes than the kernel's list of names (64 KiB) can hold.
    pub const MAX_COUNT: usize = 32 * 1024;

    /// No attributes.
    pub const NONE: Self = Self(None);

    /// Keeps what is held of the attributes that the kernel lists, in any order.
    ///
    /// XFS shows its own form of the ACLs that are held (`system.posix_acl_*`) as `trusted.SGI_ACL_*`. An overlay's own layers write `trusted.overlay.*` and `user.overlay.*`: these say how the image is mounted,
    /// not what is in it. SELinux labels lose their trailing NUL, which some tools store and some do not.
    pub fn held(listed: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut held: Vec<Xattr> = listed
            .into_iter()
            .filter(|(name, _)| !NOT_HELD.iter().any(|&prefix| name.starts_with(prefix)))
            .map(|(name, mut value)| {
                if name == b"security.selinux" && value.last() == Some(&0) {
                    value.pop();
                }
                Xattr {
                    name: name.into(),
                    value: value.into(),
                }
            })
            .collect();
        held.sort();
        held.dedup_by(|a, b| a.name == b.name);
        Self::from_sorted(held)
    }

    /// Takes attributes that are sorted by name already.
    pub(crate) fn from_sorted(sorted: Vec<Xattr>) -> Self {
        if sorted.is_empty() {
            Self::NONE
        } else {
            Self(Some(sorted.into()))
        }
    }

    /// Sorted by name.
    pub fn as_slice(&self) -> &[Xattr] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of one, by its full name.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.as_slice()
            .iter()
            .find(|xattr| &*xattr.name == name)
            .map(|xattr| &*xattr.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlays_own_attributes_are_not_held() {
        let xattrs = Xattrs::held([
            (b"user.b".to_vec(), b"2".to_vec()),
            (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
            (b"trusted.a".to_vec(), b"1".to_vec()),
        ]);
        let names: Vec<_> = xattrs.as_slice().iter().map(|xattr| &*xattr.name).collect();
        assert_eq!(names, [&b"trusted.a"[..], b"user.b"]);
    }

    #[test]
    fn the_acls_of_xfs_are_held_once() {
        let xfs = Xattrs::held([
            (b"system.posix_acl_access".to_vec(), b"acl".to_vec()),
            (b"trusted.SGI_ACL_FILE".to_vec(), b"the same".to_vec()),
        ]);
        let ext4 = Xattrs::held([(b"system.posix_acl_access".to_vec(), b"acl".to_vec())]);
        assert_eq!(xfs, ext4);
    }

    #[test]
    fn a_selinux_label_is_the_same_with_and_without_its_nul() {
        let label = |value: &[u8]| Xattrs::held([(b"security.selinux".to_vec(), value.to_vec())]);
        assert_eq!(
            label(b"system_u:object_r:bin_t:s0\0"),
            label(b"system_u:object_r:bin_t:s0")
        );
    }
}
