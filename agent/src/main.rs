//! `driftmark-agent`: flags in, exit code out.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    driftmark_agent::cli::run()
}
