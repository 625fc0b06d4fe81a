//! `key`: whose signatures make an image good.

use std::path::PathBuf;
use std::process::ExitCode;

use super::image::{confirm_moved, read_file, segment};
use super::table::{Paint, print_json, say};
use super::{CliError, Client, Shown, Table};
use crate::api::keys::{Consequences, NewKeys, Reason};
use crate::clock::rfc3339;
use crate::image::ShownKey;

/// The longest key file that is sent.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// `key …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Trust the public keys of a PEM file.
    Add {
        /// SPKI in PEM, one key or several.
        file: PathBuf,
    },
    /// List all keys.
    List,
    /// Revoke a key for good: what only it signed is never last good.
    Revoke {
        /// Its id, as `key list` shows it.
        id: String,
        /// Why, for the ledger.
        #[arg(long)]
        reason: String,
    },
}

/// Runs it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::Add { file } => {
            let pem = String::from_utf8_lossy(&read_file(&file, MAX_KEY_BYTES)?).into_owned();
            let added: Vec<ShownKey> = client.post("/v1/keys", &NewKeys { pem }).await?;
            if shown == Shown::Json {
                print_json(&added)?;
            } else {
                added.iter().try_for_each(|key| {
                    say(&format!("key {} ({}) is trusted", key.id, key.algorithm))
                })?;
            }
        }
        Command::List => list(&client.get::<Vec<ShownKey>>("/v1/keys").await?, shown)?,
        Command::Revoke { id, reason } => {
            let path = format!("/v1/keys/{}/revoke", segment(&id));
            let done: Consequences = client.post(&path, &Reason { reason }).await?;
            confirm_moved(&format!("key {id} is revoked"), &done, shown)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(keys: &[ShownKey], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(keys)?);
    }
    let mut table = Table::of(&["KEY", "ALGORITHM", "ADDED", "BY", "STATE"]);
    for key in keys {
        let state = match &key.revoked_reason {
            Some(reason) => (format!("revoked: {reason}"), Paint::Bad),
            None => ("trusted".to_owned(), Paint::Good),
        };
        let plain = [
            key.id.clone(),
            key.algorithm.clone(),
            rfc3339(key.added_at_ms),
            key.added_by.clone(),
        ];
        table.row(
            plain
                .into_iter()
                .map(|cell| (cell, Paint::Plain))
                .chain([state]),
        );
    }
    Ok(table.print("no key is trusted: `key add FILE` before the first image")?)
}
