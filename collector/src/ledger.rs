//! Receives every decision and refusal, and hands on a chain that shows whether any was altered, removed or reordered.
//!
//! ```text
//! entry 1 ──▶ hash 1 = H(zeros  ‖ entry 1)
//!                │
//! entry 2 ──▶ hash 2 = H(hash 1 ‖ entry 2)
//!                │
//! entry 3 ──▶ hash 3 = H(hash 2 ‖ entry 3)   the head: whoever noted it can prove what came before
//! ```
//!
//! H is BLAKE3 with a context of its own. An entry is hashed as canonical JSON: keys sorted, no white space, with its
//! sequence and time inside, so an entry can neither be moved nor dated anew. The database keeps the very text that was
//! hashed and refuses to update or delete a row; the chain is for those who go around the database.
//!
//! A chain alone cannot show that its end was cut off: that is what a head noted elsewhere is for.

mod canonical;
mod chain;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use canonical::canonical_json;
pub use chain::{Broken, BrokenLink, Chain, Link, Walked};
pub use drift::Blake3 as Hash;

pub use crate::store::ledger::append;

/// One decision or refusal, as whoever made it writes it down.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What happened, as a stable word such as `token-created` or `order-verified`.
    pub kind: &'static str,
    /// The fleet that it concerns; operators see the entries of their fleets.
    pub fleet: Option<String>,
    /// What it is about: an instance, order, key, image or token.
    pub subject: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// What else is to be remembered of it.
    pub detail: Value,
    /// Who decided: an operator token's name, an instance's id, or `collector`.
    pub actor: String,
}

/// An entry in its place, as the chain holds it and the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recorded {
    /// Its place, from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970, by the collector's clock.
    pub at_ms: i64,
    /// [`Entry::kind`].
    pub kind: String,
    /// [`Entry::fleet`].
    pub fleet: Option<String>,
    /// [`Entry::subject`].
    pub subject: Option<String>,
    /// [`Entry::reason`].
    pub reason: String,
    /// [`Entry::detail`].
    pub detail: Value,
    /// [`Entry::actor`].
    pub actor: String,
}

impl Entry {
    /// The entry in its place.
    pub fn recorded(&self, sequence: u64, at_ms: i64) -> Recorded {
        Recorded {
            sequence,
            at_ms,
            kind: self.kind.to_owned(),
            fleet: self.fleet.clone(),
            subject: self.subject.clone(),
            reason: self.reason.clone(),
            detail: self.detail.clone(),
            actor: self.actor.clone(),
        }
    }
}

impl Recorded {
    /// The text that is hashed and kept.
    pub fn to_canonical(&self) -> String {
        canonical_json(&serde_json::to_value(self).expect("a struct of plain JSON values"))
    }
}

/// The most entries that one page of `ledger list` shows: a page is held in memory whole.
pub const MAX_PAGE: u32 = 1_000;
