//! `ledger`: every decision, and the proof that none was altered.

use std::process::ExitCode;

use super::table::{print_json, say};
use super::{CliError, Client, Shown, Table};
use crate::api::ledger::{LedgerEntry, Verification};
use crate::clock::rfc3339;

/// `ledger …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List decisions and refusals, the newest first.
    List {
        /// Only those of this fleet.
        #[arg(long)]
        fleet: Option<String>,
        /// Only those about this instance, order, image, key or token.
        #[arg(long)]
        subject: Option<String>,
        /// Only those before this entry.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// How many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Walk the whole chain; exit 1 if a link is broken or the head is not in it.
    Verify {
        /// A head that was noted earlier: shows that the end was not cut off since.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

/// Runs it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::List {
            fleet,
            subject,
            before,
            limit,
        } => {
            let mut path = format!("/v1/ledger?limit={limit}");
            for (key, value) in [
                ("fleet", fleet),
                ("subject", subject),
                ("before", before.map(|it| it.to_string())),
            ] {
                if let Some(value) = value {
                    path.push_str(&format!("&{key}={}", super::image::segment(&value)));
                }
            }
            list(&client.get::<Vec<LedgerEntry>>(&path).await?, shown)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { head } => {
            let query = head
                .as_deref()
                .map(|head| format!("?head={}", super::image::segment(head)))
                .unwrap_or_default();
            let found: Verification = client.get(&format!("/v1/ledger/verify{query}")).await?;
            match shown {
                Shown::Json => print_json(&found)?,
                Shown::Table => say(&sentence(&found, head.is_some()))?,
            }
            Ok(if found.holds {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            })
        }
    }
}

fn list(entries: &[LedgerEntry], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(entries)?);
    }
    let mut table = Table::of(&["NUMBER", "TIME", "KIND", "FLEET", "ABOUT", "BY", "WHY"]);
    for LedgerEntry {
        recorded: entry, ..
    } in entries
    {
        table.plain([
            entry.sequence.to_string(),
            rfc3339(entry.at_ms),
            entry.kind.clone(),
            entry.fleet.clone().unwrap_or_else(|| "-".into()),
            entry.subject.clone().unwrap_or_else(|| "-".into()),
            entry.actor.clone(),
            entry.reason.clone(),
        ]);
    }
    Ok(table.print("the ledger has no such entry")?)
}

fn sentence(found: &Verification, sought: bool) -> String {
    match (&found.broken, found.found_at) {
        (Some(broken), _) => format!("BROKEN: {broken}; the {} before it hold", found.entries),
        (None, Some(at)) => format!(
            "{} entries hold, head {}; the given head is that of entry {at}",
            found.entries, found.head
        ),
        (None, None) if sought => {
            format!(
                "BROKEN: {} entries hold, and the given head is not among them: the end was cut off or rewritten",
                found.entries
            )
        }
        (None, None) => format!("{} entries hold, head {}", found.entries, found.head),
    }
}
