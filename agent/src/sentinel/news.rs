//! Receives what opened and closed; says what of it is to be told, and when.
//!
//! A report says what all that is open comes to, so that whoever has much open takes long to make one, and is told of little
//! at a time: so long after each telling there is a rest in which news come together. Whatever else is reported meanwhile
//! is reported after them.

use std::collections::BTreeSet;
use std::time::Duration;

use drift::finding::DriftId;

use super::{Action, Sentinel, Whole};
use crate::clock::Now;

/// What is new since the last report. No id is in both sets.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) opened: BTreeSet<DriftId>,
    pub(super) closed: BTreeSet<DriftId>,
    /// Whether a held value is new, gone or another.
    pub(super) held: bool,
}

/// The rest after a telling, for each drift that is open: a second with 50,000 of them.
const REST_EACH: Duration = Duration::from_micros(20);

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && !self.held
    }

    pub(super) fn open(&mut self, id: DriftId) {
        self.closed.remove(&id);
        self.opened.insert(id);
    }

    /// Whether nobody was told that it was open.
    pub(super) fn close(&mut self, id: DriftId) -> bool {
        let is_untold = self.opened.remove(&id);
        self.closed.insert(id);
        is_untold
    }

    pub(super) fn add(&mut self, later: News) {
        later.opened.into_iter().for_each(|id| self.open(id));
        for id in later.closed {
            self.close(id);
        }
        self.held |= later.held;
    }
}

impl Sentinel {
    /// Tells what is new once the last telling was long enough ago.
    pub(super) fn tell_news_in_time(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        if now.uptime >= self.next_telling {
            self.tell_news(now, act);
        }
    }

    /// Tells what is new; nothing where the collector is to be told everything.
    pub(super) fn tell_news(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        let news = std::mem::take(&mut self.news);
        if self.whole == Whole::AtFirstScan || self.whole_is_wanted() || news.is_empty() {
            return;
        }
        let open = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        self.next_telling = now.uptime + REST_EACH * open;
        self.tell_change(news, now, act);
    }
}
