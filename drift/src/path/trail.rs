//! A path that goes on to the next one in order: what both have in common stays where it is.

use super::{TreePath, check_name, compare_bytes, weight};
use std::cmp::Ordering;

/// Where a list of paths in order has come to.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    path: Vec<u8>,
    has_begun: bool,
}

impl Trail {
    /// Goes on to the path that has its first `shared` bytes in common with this one, and then `rest`; the first path has
    /// nothing before it. None if that is no path, does not come after this one, or has more in common with it.
    pub(crate) fn go_on(&mut self, shared: usize, rest: &[u8]) -> Option<()> {
        if shared > self.path.len() || shared + rest.len() > TreePath::MAX_BYTES {
            return None;
        }
        let (left, next) = (self.path.get(shared), rest.first());
        if self.has_begun && left.map(weight) >= next.map(weight) {
            return None;
        }
        self.has_begun = true;
        self.path.truncate(shared);
        // The name in which the two begin to differ; those before it were seen to be names already.
        let slash = self.path.iter().rposition(|&byte| byte == b'/');
        let name = slash.map_or(0, |slash| slash + 1);
        self.path.extend_from_slice(rest);
        let mut names = self.path[name..].split(|&byte| byte == b'/');
        (self.path.is_empty() || names.all(|name| check_name(name).is_ok())).then_some(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> TreePath {
        TreePath(self.path.as_slice().into())
    }

    /// The order of this path and another.
    pub(crate) fn compare(&self, other: &TreePath) -> Ordering {
        compare_bytes(&self.path, other.as_bytes())
    }

    /// Whether the path is this one.
    pub(crate) fn is_at(&self, other: &TreePath) -> bool {
        self.path == other.as_bytes()
    }

    /// Begins again, before the first path.
    pub(crate) fn restart(&mut self) {
        self.path.clear();
        self.has_begun = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared_prefix;
    use super::*;
    use proptest::prelude::*;

    /// Names that begin alike, and what is none.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(&b"aab..//\x00-"[..]), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn it_goes_where_a_path_that_comes_after_would(before in bytes(), next in bytes(), less in 0usize..3) {
            let canonical = |bytes: &[u8]| match bytes {
                [b'/', ..] => None,
                bytes => TreePath::new(bytes).ok(),
            };
            let mut trail = Trail::default();
            prop_assert_eq!(trail.go_on(0, &before).map(|()| trail.path()), canonical(&before));
            let Some(before) = canonical(&before) else { return Ok(()) };
            let shared = shared_prefix(before.as_bytes(), &next);
            let told = shared.saturating_sub(less);
            let gone = trail.go_on(told, &next[told..]).map(|()| trail.path());
            let expected = canonical(&next).filter(|next| before < *next && told == shared);
            prop_assert_eq!(gone, expected);
        }
    }
}
