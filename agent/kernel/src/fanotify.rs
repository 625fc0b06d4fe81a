//! File systems in, what happens in them out, with who does it: fanotify(7).
//!
//! In the order of the way through:
//!
//! - [`Watch`]: a queue of events, and what puts them there: [`Watch::watch_filesystem`] takes the best mark that a file
//!   system allows and says which that was ([`Sight`]).
//! - [`records`]: the bytes of a read as records, in safe code.
//! - [`Event`]: a record whose descriptors are owned.
//! - [`Handle`], [`Holder`]: a directory as the kernel names it, and where it lies now.
//! - [`Gate`]: executions that wait for an answer.
//!
//! Invariants: every descriptor that a read brings is owned as soon as its record is decoded, and closed with it, whatever
//! is wrong with other records and with other information in its own; what the kernel could not tell (a full queue) is an
//! event like any other. But a wrong length leaves nothing to be found behind it: the descriptors of the records after a
//! record of a wrong version or length, and of the information after information of a wrong length, stay open.
//!
//! nix makes groups and marks. It reads no information record and lets pidfds leak, so reading is done here.

mod event;
mod gate;
mod handle;
mod mark;
mod mask;
mod record;
#[cfg(test)]
mod tests;
mod watch;

pub use event::{Actor, Event, Events, NoPidfd};
pub use gate::{Answer, Gate, Question, Questions};
pub use handle::{Holder, Located, Shows, called};
pub use mark::Sight;
pub use mask::Mask;
pub use record::{Fault, Handle, Info, Infos, Malformed, Place, Record, Records, records};
pub use watch::{Buffer, Watch};
