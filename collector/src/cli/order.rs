//! `order`: what is to be replaced, and operators' word on it.

use std::process::ExitCode;

use super::image::segment;
use super::table::{Paint, print_json, say};
use super::{CliError, Client, Shown, Table};
use crate::api::keys::Reason;
use crate::api::orders::{Cancel, Named};
use crate::clock::{ago, now_ms, rfc3339};
use crate::image;
use crate::judge::OrderState;
use crate::store::orders::OrderRow;

/// `order …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List orders, the newest first.
    List {
        /// Only those of this fleet.
        #[arg(long)]
        fleet: Option<String>,
        /// Also those that are verified or cancelled.
        #[arg(long)]
        all: bool,
    },
    /// Show one order.
    Show {
        /// Its id.
        id: String,
    },
    /// Let an order go; the breakers still hold.
    #[command(after_help = "\
Examples:
  driftmark-collector order list --fleet web
  driftmark-collector order approve ORDER --reason 'intrusion confirmed, disk image taken'")]
    Approve {
        /// Its id.
        id: String,
        /// Why, for the ledger.
        #[arg(long, default_value = "approved by an operator")]
        reason: String,
    },
    /// End an order that waits, or resolves one that failed.
    Cancel {
        /// Its id.
        id: String,
        /// Why, for the ledger.
        #[arg(long)]
        reason: String,
        /// Let another order be planned for the instance at once.
        #[arg(long)]
        again: bool,
    },
    /// Name the machine that replaces the instance of an executing order.
    Replacement {
        /// The order's id.
        id: String,
        /// The cloud id of the machine.
        cloud_id: String,
    },
}

/// Runs it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    let place = |id: &str| format!("/v1/orders/{}", segment(id));
    match command {
        Command::List { fleet, all } => {
            let fleet = fleet
                .map(|fleet| format!("&fleet={}", segment(&fleet)))
                .unwrap_or_default();
            list(
                &client
                    .get::<Vec<OrderRow>>(&format!("/v1/orders?all={all}{fleet}"))
                    .await?,
                shown,
            )?;
        }
        Command::Show { id } => show(&client.get::<OrderRow>(&place(&id)).await?, shown)?,
        Command::Approve { id, reason } => {
            let path = format!("{}/approve", place(&id));
            confirm(
                &client
                    .post::<_, OrderRow>(&path, &Reason { reason })
                    .await?,
                shown,
            )?;
        }
        Command::Cancel { id, reason, again } => {
            let path = format!("{}/cancel", place(&id));
            confirm(
                &client
                    .post::<_, OrderRow>(&path, &Cancel { reason, again })
                    .await?,
                shown,
            )?;
        }
        Command::Replacement { id, cloud_id } => {
            let path = format!("{}/replacement", place(&id));
            confirm(
                &client
                    .put::<_, OrderRow>(&path, &Named { cloud_id })
                    .await?,
                shown,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(orders: &[OrderRow], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(orders)?);
    }
    let now_ms = now_ms();
    let mut table = Table::of(&[
        "ORDER",
        "FLEET",
        "INSTANCE",
        "STATE",
        "AGE",
        "IMAGE",
        "REPLACEMENT",
        "WHY",
    ]);
    for order in orders {
        let plain = |cell: String| (cell, Paint::Plain);
        table.row([
            plain(order.id.clone()),
            plain(order.fleet.clone()),
            plain(
                order
                    .cloud_id
                    .clone()
                    .unwrap_or_else(|| order.instance.clone()),
            ),
            (order.state.word().to_owned(), paint(order.state)),
            plain(ago(now_ms, order.planned_at_ms)),
            plain(
                order
                    .image
                    .as_ref()
                    .map_or_else(|| "-".into(), image::shown),
            ),
            plain(order.replacement.clone().unwrap_or_else(|| "-".into())),
            plain(order.why.clone()),
        ]);
    }
    Ok(table.print("there is no such order")?)
}

fn show(order: &OrderRow, shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(order)?);
    }
    let time = |at_ms: Option<i64>| at_ms.map_or_else(|| "-".to_owned(), rfc3339);
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut table = Table::of(&["WHAT", "IS"]);
    for (name, value) in [
        (
            "order",
            format!("{} (generation {})", order.id, order.generation),
        ),
        ("fleet", order.fleet.clone()),
        (
            "instance",
            format!("{} ({})", order.instance, or_none(&order.cloud_id)),
        ),
        ("because", order.reason.clone()),
        ("state", format!("{}: {}", order.state.word(), order.why)),
        (
            "image",
            order
                .image
                .as_ref()
                .map_or_else(|| "-".into(), image::shown),
        ),
        ("replacer", order.replacer.clone()),
        ("planned", rfc3339(order.planned_at_ms)),
        ("in grace", time(order.grace_at_ms)),
        ("approved by", or_none(&order.approval)),
        ("executing", time(order.executing_at_ms)),
        ("replacement", or_none(&order.replacement)),
        ("named", time(order.replaced_at_ms)),
        ("over", time(order.over_at_ms)),
    ] {
        table.plain([name.to_owned(), value]);
    }
    Ok(table.print("")?)
}

fn confirm(order: &OrderRow, shown: Shown) -> Result<(), CliError> {
    match shown {
        Shown::Json => Ok(print_json(order)?),
        Shown::Table => Ok(say(&format!(
            "order {} is {}",
            order.id,
            order.state.word()
        ))?),
    }
}

fn paint(state: OrderState) -> Paint {
    match state {
        OrderState::Verified => Paint::Good,
        OrderState::Failed | OrderState::Blocked => Paint::Bad,
        OrderState::Executing | OrderState::Replaced | OrderState::Approved => Paint::Odd,
        OrderState::Planned | OrderState::InGrace | OrderState::Cancelled => Paint::Plain,
    }
}
