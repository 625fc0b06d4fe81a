//! Receives a question that is not yet answered; hands on the answer, or says what was waited for in vain.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short against everything that is waited for, long against the cost of asking.
const BETWEEN: Duration = Duration::from_millis(15);

/// Asks again and again until there is an answer, for at most `limit`.
///
/// # Errors
/// What `question` answers with, and after `limit` what was waited for.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        pause(BETWEEN);
    }
}

/// Waits for this long.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a wait is made, bounded by its callers"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
