//! Receives nothing; hands on the mutation table: a tree, what is done to it in shell, what undoes it, and what must be told
//! in between.

mod attributes;
pub mod base;
mod content;
mod made;
mod presence;

use attributes::{METADATA, XATTRS};
use content::{CONTENT, LINKS};
pub use made::made;
use presence::{COMING_AND_GOING, COVERS, KINDS, NO_DRIFT};

/// One change of the tree and what must be said of it.
#[derive(Debug)]
pub struct Mutation {
    /// What it is, for people.
    pub name: String,
    /// Makes it: lines of bash in the tree, after [`PRELUDE`].
    pub make: String,
    /// Undoes it.
    pub undo: String,
    /// `KIND PATH ATTRIBUTE...`, the path below the tree and escaped.
    pub drifts: Vec<String>,
}

/// What the lines of shell of a story can say, besides all that is installed, where `KEEP` is a directory beside the tree
/// and `DEPTH` is [`DEPTH`].
///
/// `socket PATH` binds a socket, `deep CODE` runs perl at the bottom of the deep directories, `poke FILE OFFSET BYTE`
/// writes one byte over another and puts the modification time back, `keep PATH` moves something out of the tree, and
/// `back PATH` moves it back.
pub const PRELUDE: &str = r#"
export LC_ALL=C
umask 022
socket() { perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un($ARGV[0])) or die $!' "$1"; }
deep() { perl -e 'for (1..$ARGV[0]) { chdir "d" x 200 or die $! } eval $ARGV[1]; die $@ if $@' "$DEPTH" "$1"; }
poke() { touch -r "$1" "$KEEP/time"; printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; touch -r "$KEEP/time" "$1"; }
keep() { mv -T -- "$1" "$KEEP/kept-$(basename -- "$1")"; }
back() { mv -T -- "$KEEP/kept-$(basename -- "$1")" "$1"; }
"#;

/// How many directories of 200 bytes the deep path has: more than a system call can name (`PATH_MAX`).
pub const DEPTH: usize = 24;

/// Name, what is done, what undoes it, what must be told.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// The rows that are written out below.
pub fn written() -> Vec<Mutation> {
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
