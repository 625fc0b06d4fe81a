//! `operator create · list · revoke`.

use std::process::ExitCode;

use super::table::{Table, print_json, say};
use super::{CliError, Client, Shown};
use crate::api::Role;
use crate::api::operators::{ListedOperator, MadeOperator, NewOperator};
use crate::clock::rfc3339;

/// What to do with operator tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an operator token and print it.
    Create {
        /// Whose it is.
        name: String,
        /// What it may do.
        #[arg(long, value_enum, default_value = "viewer")]
        role: Role,
        /// To which fleet; several times for several, never for all.
        #[arg(long, value_name = "NAME")]
        fleet: Vec<String>,
    },
    /// List operator tokens.
    List,
    /// Revoke an operator token.
    Revoke {
        /// Whose.
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// The collector's refusal, or none could be asked.
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::Create { name, role, fleet } => {
            let fleets = (!fleet.is_empty()).then_some(fleet);
            let made: MadeOperator = client
                .post("/v1/operators", &NewOperator { name, role, fleets })
                .await?;
            match shown {
                Shown::Json => print_json(&made)?,
                Shown::Table => say(&made.token)?,
            }
        }
        Command::List => {
            let operators: Vec<ListedOperator> = client.get("/v1/operators").await?;
            match shown {
                Shown::Json => print_json(&operators)?,
                Shown::Table => table(&operators).print("no operators")?,
            }
        }
        Command::Revoke { name } => {
            let path = format!("/v1/operators/{}/revoke", super::client::segment(&name));
            let answer: serde_json::Value = client.post(&path, &()).await?;
            match shown {
                Shown::Json => print_json(&answer)?,
                Shown::Table => say(&format!(
                    "{} may do nothing any more",
                    drift::escape(name.as_bytes())
                ))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(operators: &[ListedOperator]) -> Table {
    let mut table = Table::of(&["NAME", "ROLE", "FLEETS", "MADE", "BY", "REVOKED"]);
    for operator in operators {
        table.plain([
            operator.name.clone(),
            operator.role.word().to_owned(),
            operator
                .fleets
                .as_ref()
                .map_or_else(|| "all".to_owned(), |fleets| fleets.join(",")),
            rfc3339(operator.created_at_ms),
            operator.created_by.clone(),
            operator
                .revoked_at_ms
                .map_or_else(|| "-".to_owned(), rfc3339),
        ]);
    }
    table
}
