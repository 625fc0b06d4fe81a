//! Receives changes in the identity directory; hands on that there were some.

use std::path::Path;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Watches `directory` for as long as the watcher lives. Many changes are one message.
///
/// # Errors
/// The kernel has no watch left; the certificate is then only reloaded by its own renewal.
pub(super) fn watch(
    directory: &Path,
) -> Result<(RecommendedWatcher, mpsc::Receiver<()>), notify::Error> {
    let (sender, receiver) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change, and notify cannot be told not to say so.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok((watcher, receiver))
}
