//! `token create · list · revoke`.

use std::process::ExitCode;

use super::table::{Paint, Table, print_json, say};
use super::{CliError, Client, Shown};
use crate::api::tokens::{ListedToken, MadeToken, NewToken};
use crate::clock::{now_ms, rfc3339};
use crate::config::Span;

/// What to do with join tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a join token and print it.
    #[command(after_help = "\
Only a token that was made for one cloud id proves it: an instance whose cloud id is merely
claimed is watched, and never replaced.

Examples:
  driftmark-collector token create --fleet web --instance i-0abc123 > join-token
  driftmark-collector token create --fleet web --ttl 1h --uses 20    # claimed cloud ids only")]
    Create {
        /// The fleet that its instances belong to.
        #[arg(long, value_name = "NAME")]
        fleet: String,
        /// The one machine that it is for: its cloud id is proven then.
        #[arg(long, value_name = "CLOUD-ID")]
        instance: Option<String>,
        /// How long it may be used.
        #[arg(long, default_value = "10m")]
        ttl: Span,
        /// How many instances may enrol with it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
    },
    /// List join tokens.
    List,
    /// End a join token.
    Revoke {
        /// Its name, `t-…`.
        id: String,
    },
}

/// Does it.
///
/// # Errors
/// The collector's refusal, or none could be asked.
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::Create {
            fleet,
            instance,
            ttl,
            uses,
        } => {
            let new = NewToken {
                fleet,
                cloud_id: instance,
                ttl_seconds: ttl.0.as_secs(),
                uses,
            };
            let made: MadeToken = client.post("/v1/tokens", &new).await?;
            match shown {
                Shown::Json => print_json(&made)?,
                Shown::Table => say(&made.text)?,
            }
        }
        Command::List => {
            let tokens: Vec<ListedToken> = client.get("/v1/tokens").await?;
            match shown {
                Shown::Json => print_json(&tokens)?,
                Shown::Table => table(&tokens).print("no join tokens")?,
            }
        }
        Command::Revoke { id } => {
            let path = format!("/v1/tokens/{}/revoke", super::client::segment(&id));
            let token: ListedToken = client.post(&path, &()).await?;
            match shown {
                Shown::Json => print_json(&token)?,
                Shown::Table => say(&format!("{} ends now", token.id))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(tokens: &[ListedToken]) -> Table {
    let mut table = Table::of(&["TOKEN", "FLEET", "CLOUD ID", "USES", "EXPIRES", "BY"]);
    let now_ms = now_ms();
    for token in tokens {
        let over = token.expires_at_ms <= now_ms || token.uses >= token.uses_allowed;
        let paint = if over { Paint::Odd } else { Paint::Plain };
        table.row([
            (token.id.clone(), Paint::Plain),
            (token.fleet.clone(), Paint::Plain),
            (
                token.cloud_id.clone().unwrap_or_else(|| "-".into()),
                Paint::Plain,
            ),
            (format!("{}/{}", token.uses, token.uses_allowed), paint),
            (rfc3339(token.expires_at_ms), paint),
            (token.created_by.clone(), Paint::Plain),
        ]);
    }
    table
}
