//! Receives changes in directories; hands on that there were some.

use std::path::PathBuf;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Watches `directories` for as long as the watcher lives. Many changes are one message.
///
/// # Errors
/// The kernel has no watch left, or one of them is not there.
pub(super) fn watch(
    directories: &[PathBuf],
    changed: mpsc::Sender<()>,
) -> Result<RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change, and notify cannot be told not to say so.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = changed.try_send(());
        }
    })?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
