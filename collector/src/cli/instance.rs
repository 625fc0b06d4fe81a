//! `instance list · show · hold · release · retire`.

mod show;

use std::process::ExitCode;

use super::client::segment;
use super::table::{Paint, Table, print_json};
use super::{CliError, Client, Shown};
use crate::api::instances::{Because, Instances, ListedInstance, Release, ShownInstance};
use crate::clock::{ago, now_ms};

/// What to do with instances.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List instances.
    List {
        /// Of one fleet.
        #[arg(long, value_name = "NAME")]
        fleet: Option<String>,
        /// In one state: enrolled, clean, drifted, unverifiable, silent, stopped, replaced, retired.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show an instance: what drifted, what its image has there, who did it, and what happened and is over.
    ///
    /// Files that an upgrade or installation of a package would bring are a line for each package. That they are is the
    /// host's own word: it changes no severity, mark or count, and whatever does not fit keeps a line of its own.
    #[command(after_help = "\
Examples:
  driftmark-collector instance show i-00000000000000000000000000000001
  driftmark-collector instance show i-00000000000000000000000000000001 --ungrouped --limit 1000
  driftmark-collector instance show i-00000000000000000000000000000001 --json | jq '.drifts[].host_package'")]
    Show {
        /// Its id, `i-…`.
        id: String,
        /// At most so many drifts and moments.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// List every file, also those that a package would explain.
        #[arg(long)]
        ungrouped: bool,
    },
    /// Let no order touch an instance.
    Hold {
        /// Its id, `i-…`.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Lift the hold on an instance.
    Release {
        /// Its id, `i-…`.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Also let a certificate that expired more than 30 days ago be renewed within the hour.
        #[arg(long)]
        renewal: bool,
    },
    /// Take an instance out for good.
    Retire {
        /// Its id, `i-…`.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Does it.
///
/// # Errors
/// The collector's refusal, or none could be asked.
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::List { fleet, state } => {
            let instances = all(client, fleet.as_deref(), state.as_deref()).await?;
            match shown {
                Shown::Json => print_json(&instances)?,
                Shown::Table => table(&instances).print("no instances")?,
            }
        }
        Command::Show {
            id,
            limit,
            ungrouped,
        } => {
            let grouped = shown == Shown::Table && !ungrouped;
            let path = format!(
                "/v1/instances/{}?limit={limit}&grouped={grouped}",
                segment(&id)
            );
            let instance: ShownInstance = client.get(&path).await?;
            match shown {
                Shown::Json => print_json(&instance)?,
                Shown::Table => show::show(&instance, grouped)?,
            }
        }
        Command::Hold { id, reason } => {
            act(client, &id, "hold", &Because { reason }, shown).await?;
        }
        Command::Release {
            id,
            reason,
            renewal,
        } => {
            act(client, &id, "release", &Release { reason, renewal }, shown).await?;
        }
        Command::Retire { id, reason } => {
            act(client, &id, "retire", &Because { reason }, shown).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(
    client: &Client,
    fleet: Option<&str>,
    state: Option<&str>,
) -> Result<Vec<ListedInstance>, CliError> {
    let mut filter = String::new();
    for (name, value) in [("fleet", fleet), ("state", state)] {
        if let Some(value) = value {
            filter.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let (mut instances, mut after) = (Vec::new(), Some(0));
    while let Some(place) = after {
        let page: Instances = client
            .get(&format!("/v1/instances?after={place}{filter}"))
            .await?;
        instances.extend(page.instances);
        after = page.next;
    }
    Ok(instances)
}

async fn act<B: serde::Serialize>(
    client: &Client,
    id: &str,
    verb: &str,
    body: &B,
    shown: Shown,
) -> Result<(), CliError> {
    let instance: ListedInstance = client
        .post(&format!("/v1/instances/{}/{verb}", segment(id)), body)
        .await?;
    match shown {
        Shown::Json => print_json(&instance)?,
        Shown::Table => table(&[instance]).print("")?,
    }
    Ok(())
}

fn table(instances: &[ListedInstance]) -> Table {
    let mut table = Table::of(&[
        "INSTANCE", "FLEET", "STATE", "OPEN", "WORST", "IMAGE", "CLOUD ID", "HEARD", "HOLD",
    ]);
    let now_ms = now_ms();
    for instance in instances {
        let cloud_id = instance.cloud_id.clone().unwrap_or_else(|| "-".into());
        table.row([
            (instance.id.clone(), Paint::Plain),
            (instance.fleet.clone(), Paint::Plain),
            (instance.state.clone(), paint(&instance.state)),
            (
                instance.open.to_string(),
                if instance.open > 0 {
                    Paint::Bad
                } else {
                    Paint::Plain
                },
            ),
            (
                instance.severity.clone().unwrap_or_else(|| "-".into()),
                Paint::Plain,
            ),
            (
                instance.image.clone().unwrap_or_else(|| "-".into()),
                Paint::Plain,
            ),
            (
                if instance.proven {
                    cloud_id
                } else {
                    format!("{cloud_id} (claimed)")
                },
                Paint::Plain,
            ),
            (
                instance
                    .heard_at_ms
                    .map_or_else(|| "never".into(), |at_ms| ago(now_ms, at_ms)),
                Paint::Plain,
            ),
            (
                instance.hold.clone().unwrap_or_else(|| "-".into()),
                Paint::Odd,
            ),
        ]);
    }
    table
}

fn paint(state: &str) -> Paint {
    match state {
        "clean" => Paint::Good,
        "drifted" => Paint::Bad,
        "silent" | "unverifiable" => Paint::Odd,
        _ => Paint::Plain,
    }
}
