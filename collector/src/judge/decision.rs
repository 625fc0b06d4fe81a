//! What is to be done: each decision says why, in a sentence that the ledger keeps.

use drift::report::ImageRef;
use serde::{Deserialize, Serialize};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// The instance is to be replaced; or what is said of an open mark has changed.
    Mark {
        /// The fleet.
        fleet: String,
        /// The instance.
        instance: String,
        /// Why it is marked, and what would become of it.
        reason: String,
        /// The image to replace it with, if there is one.
        image: Option<ImageRef>,
    },
    /// The instance is no longer to be replaced.
    Unmark {
        /// The fleet.
        fleet: String,
        /// The instance.
        instance: String,
        /// Why not.
        reason: String,
    },
    /// A new order, in state `planned`, or `blocked` where there is no image to replace with.
    Plan {
        /// The fleet.
        fleet: String,
        /// The instance.
        instance: String,
        /// The image to replace it with.
        image: Option<ImageRef>,
        /// Why it is planned, or what blocks it.
        why: String,
    },
    /// An order goes from one state to the next, or what it waits for has changed. It does nothing to an order that is
    /// of another generation or no longer in that state.
    Move {
        /// The fleet.
        fleet: String,
        /// The order.
        order: String,
        /// Its generation.
        generation: u64,
        /// The instance that it replaces.
        instance: String,
        /// Where it is.
        from: OrderState,
        /// Where it goes.
        to: OrderState,
        /// Why.
        why: String,
    },
}

/// Where an order is; see the drawing at [`crate::judge`].
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// It exists.
    Planned,
    /// It waits until the fleet's grace is over and, in mode `approve`, for an approver.
    InGrace,
    /// It may execute as soon as there is a slot.
    Approved,
    /// A breaker holds it.
    Blocked,
    /// The replacer is at work.
    Executing,
    /// The replacement is named and the old instance is out.
    Replaced,
    /// The replacement enrolled with proof, on the image, and is clean.
    Verified,
    /// It was not verified in time, or the replacer failed; it is in flight until an operator resolves it.
    Failed,
    /// It is over without a replacement.
    Cancelled,
}

impl OrderState {
    /// All of them.
    pub const ALL: [OrderState; 9] = [
        OrderState::Planned,
        OrderState::InGrace,
        OrderState::Approved,
        OrderState::Blocked,
        OrderState::Executing,
        OrderState::Replaced,
        OrderState::Verified,
        OrderState::Failed,
        OrderState::Cancelled,
    ];

    /// The word for it in JSON and on screen.
    pub fn word(self) -> &'static str {
        match self {
            OrderState::Planned => "planned",
            OrderState::InGrace => "in-grace",
            OrderState::Approved => "approved",
            OrderState::Blocked => "blocked",
            OrderState::Executing => "executing",
            OrderState::Replaced => "replaced",
            OrderState::Verified => "verified",
            OrderState::Failed => "failed",
            OrderState::Cancelled => "cancelled",
        }
    }

    /// The state of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing was done about it yet.
    pub fn is_waiting(self) -> bool {
        matches!(
            self,
            OrderState::Planned | OrderState::InGrace | OrderState::Approved | OrderState::Blocked
        )
    }

    /// Whether it takes a slot and counts as unhealthy.
    pub fn in_flight(self) -> bool {
        matches!(
            self,
            OrderState::Executing | OrderState::Replaced | OrderState::Failed
        )
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        matches!(self, OrderState::Verified | OrderState::Cancelled)
    }

    /// Whether the drawing has an arrow from here to there.
    pub fn may_become(self, next: OrderState) -> bool {
        match next {
            OrderState::Planned => self == OrderState::Blocked,
            OrderState::InGrace => matches!(self, OrderState::Planned | OrderState::Blocked),
            OrderState::Approved => matches!(
                self,
                OrderState::InGrace | OrderState::Planned | OrderState::Blocked
            ),
            OrderState::Blocked => self.is_waiting() && self != OrderState::Blocked,
            OrderState::Executing => self == OrderState::Approved,
            OrderState::Replaced => self == OrderState::Executing,
            OrderState::Verified => self == OrderState::Replaced,
            OrderState::Failed => matches!(self, OrderState::Executing | OrderState::Replaced),
            OrderState::Cancelled => self.is_waiting() || self == OrderState::Failed,
        }
    }
}
