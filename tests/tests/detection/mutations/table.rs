//! The rows of the mutation table: what is done in shell, what undoes it, and what must be told in between.

mod attributes;
mod content;
mod made;
mod presence;

use super::Mutation;
use attributes::{METADATA, XATTRS};
use content::{CONTENT, LINKS};
pub(super) use made::made;
use presence::{COMING_AND_GOING, COVERS, KINDS, NO_DRIFT};

/// Name, what is done, what undoes it, what must be told.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// The rows that are written out below.
pub(super) fn written() -> Vec<Mutation> {
    let tables = [
        METADATA,
        CONTENT,
        XATTRS,
        LINKS,
        COMING_AND_GOING,
        KINDS,
        COVERS,
        NO_DRIFT,
    ];
    let row = |&(name, make, undo, drifts): &Row| Mutation {
        name: name.to_owned(),
        make: make.to_owned(),
        undo: undo.to_owned(),
        drifts: drifts.iter().map(|&drift| drift.to_owned()).collect(),
    };
    tables.into_iter().flatten().map(row).collect()
}
