//! Receives signals and Enter; hands on whether the demo is to end: in order, so that nothing is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use driftmark_tests::patience::pause;
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);
static ENTER: AtomicBool = AtomicBool::new(false);

/// Between two looks at whether someone asked.
const LOOK: Duration = Duration::from_millis(50);

/// From now on SIGINT, SIGTERM and SIGHUP ask instead of ending the process.
///
/// # Errors
/// The system does not take it.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("listen for signals")?;
    let listened = runtime.block_on(async {
        Ok::<_, std::io::Error>([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ])
    });
    let [mut interrupt, mut terminate, mut hang_up] = listened.context("listen for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                ASKED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

/// Whether a signal came.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Stops here if a signal came.
///
/// # Errors
/// It did.
pub(crate) fn check() -> Result<()> {
    if asked() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Waits for Enter or a signal; where nobody can press Enter, for a signal.
pub(crate) fn wait() {
    std::thread::spawn(|| {
        let mut line = String::new();
        if std::io::stdin()
            .read_line(&mut line)
            .is_ok_and(|length| length > 0)
        {
            ENTER.store(true, Ordering::Relaxed);
        }
    });
    while !asked() && !ENTER.load(Ordering::Relaxed) {
        pause(LOOK);
    }
}
