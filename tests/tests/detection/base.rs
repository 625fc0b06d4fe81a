//! Receives an empty tree; hands on the one that the mutation table is about.

use anyhow::Result;
pub(crate) use driftmark_tests::mutations::base::ODD_NAMES;
use driftmark_tests::mutations::base::script;

use crate::ground::Ground;

/// Fills a tree.
pub(crate) fn make(ground: &Ground, tree: &str) -> Result<()> {
    ground.shell("", &format!("mkdir {tree}"))?;
    ground.shell(tree, &script()).map(drop)
}
