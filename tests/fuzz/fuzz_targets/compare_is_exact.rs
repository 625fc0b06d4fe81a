//! A tree and some mischief: the merge finds what a comparison without a merge finds.
#![no_main]

#[path = "../../../drift/tests/trees/mod.rs"]
mod trees;

use libfuzzer_sys::fuzz_target;
use trees::{Choices, Tree, model, mutate};

fuzz_target!(|data: &[u8]| {
    let (tree, mischief) = data.split_at(data.len() / 2);
    let tree = Tree::grow(&mut Choices::Bytes(tree), 24);
    let observations = mutate::observe(&mut Choices::Bytes(mischief), &tree);
    assert_eq!(
        model::found_by_compare(&tree, &observations),
        model::expected(&tree, &observations)
    );
});
