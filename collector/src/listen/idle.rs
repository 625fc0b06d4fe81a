//! Receives the requests of one connection, hands on when it has had none for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    open: AtomicUsize,
    begun: AtomicUsize,
}

/// A request that is being answered; dropping it ends it.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

impl Activity {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Waits until for `limit` no request was open and none began; it may take twice as long to notice.
    pub(super) async fn until_idle(&self, limit: Duration) {
        loop {
            let before = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(limit).await;
            if self.open.load(Ordering::Relaxed) == 0
                && self.begun.load(Ordering::Relaxed) == before
            {
                return;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_idle_once_nothing_is_asked_of_it() {
        let activity = Arc::new(Activity::default());
        let open = activity.begin();
        assert!(
            tokio::time::timeout(LIMIT * 4, activity.until_idle(LIMIT))
                .await
                .is_err()
        );
        drop(open);
        assert!(
            tokio::time::timeout(LIMIT * 20, activity.until_idle(LIMIT))
                .await
                .is_ok()
        );
    }
}
