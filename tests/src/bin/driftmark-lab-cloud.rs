//! What the replacer `command` runs in labs: hands the order on standard input to the lab's cloud, prints the answer.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

fn main() -> ExitCode {
    match replace() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // One line: the last one is what the order's failure says.
            eprintln!("{}", format!("{error:#}").replace('\n', "; "));
            ExitCode::FAILURE
        }
    }
}

fn replace() -> anyhow::Result<String> {
    let socket = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("usage: driftmark-lab-cloud SOCKET < ORDER")?;
    driftmark_tests::cloud::ask(&socket)
}
