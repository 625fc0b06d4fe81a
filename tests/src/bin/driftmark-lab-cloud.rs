//! What the replacer `command` runs in labs: hands the order on standard input to the lab's cloud, prints the answer.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let socket = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("usage: driftmark-lab-cloud SOCKET < ORDER")?;
    println!("{}", driftmark_tests::cloud::ask(&socket)?);
    Ok(())
}
