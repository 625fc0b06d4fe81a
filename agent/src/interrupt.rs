//! SIGINT and SIGTERM as a flag: long work ends cleanly, between two files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// A flag that is set by the first SIGINT or SIGTERM. Call it before any other thread is started.
///
/// # Errors
/// Signals that cannot be blocked, or a thread that cannot be started.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.wait().is_ok() {
                set.store(true, Ordering::Relaxed);
                // A second one ends the program at once.
                let _ = signals.wait();
                std::process::exit(130);
            }
        })?;
    Ok(flag)
}
