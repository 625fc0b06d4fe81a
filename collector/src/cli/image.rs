//! `image`: registered builds, and the channels that give them out.

mod add;
mod tables;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use super::table::{print_json, say};
use super::{CliError, Client, Shown};
use crate::api::images::Promotion;
use crate::api::keys::{Consequences, Reason};
use crate::image::{ShownBuild, ShownChannel};

/// `image …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register a signed manifest.
    ///
    /// The same build again is no news, and may bring further signatures and artifacts. Whatever does not fit (a
    /// signature, a name, a version, an artifact of another build) is refused, and nothing is added.
    #[command(after_help = "\
Examples:
  driftmark-collector key add keys/driftmark.pub                 # once: who may sign
  driftmark-collector image add out/image.manifest --channel web
  driftmark-collector image add out/image.manifest --artifact packer-manifest.json --expires 90d
  driftmark-collector image add out/image.manifest --name web --version 1.2 --build amd64")]
    Add(add::Arguments),
    /// Say what a registered build is called where it runs: its AMIs, its gallery version.
    ///
    /// The file is what an image builder wrote, recognised by its content: Packer's manifest (its last run; what
    /// its custom_data says of driftmark.name, .version, .build and .manifest must fit), `az image builder show-runs`,
    /// `aws imagebuilder get-image`, mkosi's manifest, docker's --iidfile, --metadata-file or inspect, or
    /// {\"platform\": \"aws\", \"ids\": {\"eu-west-1\": \"ami-…\"}}, signed or not. The same again is no news.
    #[command(after_help = "\
Examples:
  driftmark-collector image artifact web 1.2 packer-manifest.json
  az image builder show-runs -g images -n web -o json | driftmark-collector image artifact web 1.2 -
  driftmark-collector image artifact web 1.2 --build arm64 get-image.json
  driftmark-collector image list --artifact ami-0123456789abcdef0        # whose is it?")]
    Artifact(add::Artifacts),
    /// List all registered builds, or the one that an artifact is of.
    List {
        /// The id of an artifact: an AMI, the resource id of an image, a digest.
        #[arg(long, value_name = "ID")]
        artifact: Option<String>,
    },
    /// List all channels, what they give out and gave out.
    Channels,
    /// Show the builds of one version.
    Show {
        /// Name of the image.
        name: String,
        /// Its version.
        version: String,
    },
    /// Have a channel give out a version.
    Promote {
        /// Name of the image.
        name: String,
        /// Its version.
        version: String,
        /// The channel.
        #[arg(long, value_name = "NAME")]
        channel: String,
        /// Why, for the ledger.
        #[arg(long, default_value = "promoted by an operator")]
        reason: String,
    },
    /// Revoke a version now, and move its channels back to their last good one.
    Revoke {
        /// Name of the image.
        name: String,
        /// Its version.
        version: String,
        /// Why, for the ledger.
        #[arg(long)]
        reason: String,
    },
    /// Take a revocation back; no channel moves.
    Restore {
        /// Name of the image.
        name: String,
        /// Its version.
        version: String,
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
        Command::Add(arguments) => add::add(arguments, client, shown).await?,
        Command::Artifact(arguments) => add::artifact(arguments, client, shown).await?,
        Command::List { artifact } => {
            let mut path = "/v1/images".to_owned();
            let mut nothing = "no image is registered".to_owned();
            if let Some(id) = artifact {
                path.push_str(&format!("?artifact={}", segment(&id)));
                nothing = format!(
                    "no registered build has artifact {}",
                    drift::escape(id.as_bytes())
                );
            }
            tables::list(
                &client.get::<Vec<ShownBuild>>(&path).await?,
                &nothing,
                shown,
            )?;
        }
        Command::Channels => tables::channels(
            &client.get::<Vec<ShownChannel>>("/v1/channels").await?,
            shown,
        )?,
        Command::Show { name, version } => tables::show(
            &client
                .get::<Vec<ShownBuild>>(&place(&name, &version))
                .await?,
            shown,
        )?,
        Command::Promote {
            name,
            version,
            channel,
            reason,
        } => {
            let promoted = promote(client, &channel, &name, &version, reason).await?;
            match shown {
                Shown::Json => print_json(&promoted)?,
                Shown::Table => say(&format!("channel {channel} gives out {name} {version}"))?,
            }
        }
        Command::Revoke {
            name,
            version,
            reason,
        } => {
            let path = format!("{}/revoke", place(&name, &version));
            let done: Consequences = client.post(&path, &Reason { reason }).await?;
            confirm_moved(&format!("{name} {version} is revoked"), &done, shown)?;
        }
        Command::Restore {
            name,
            version,
            reason,
        } => {
            let path = format!("{}/restore", place(&name, &version));
            let restored: Vec<ShownBuild> = client.post(&path, &Reason { reason }).await?;
            match shown {
                Shown::Json => print_json(&restored)?,
                Shown::Table => say(&format!(
                    "{name} {version} is restored; `image promote` gives it out again"
                ))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn promote(
    client: &Client,
    channel: &str,
    name: &str,
    version: &str,
    reason: String,
) -> Result<ShownChannel, CliError> {
    let promotion = Promotion {
        name: name.into(),
        version: version.into(),
        reason,
    };
    Ok(client
        .post(&format!("/v1/channels/{}", segment(channel)), &promotion)
        .await?)
}

/// Says what was done and which channels moved.
pub(super) fn confirm_moved(
    done: &str,
    consequences: &Consequences,
    shown: Shown,
) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(consequences)?);
    }
    say(done)?;
    for moved in &consequences.moved {
        match &moved.version {
            Some(version) => say(&format!("channel {} is back at {version}", moved.channel))?,
            None => say(&format!(
                "channel {} has no last good image: {}",
                moved.channel, moved.reason
            ))?,
        }
    }
    Ok(())
}

/// A file, or with `-` standard input, if it is no longer than that.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Input {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(limit + 1).read_to_end(&mut bytes)
    };
    read.map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(CliError::Usage(format!(
            "{} is longer than {limit} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// A text as one segment of a path, or as a value of a query.
pub(super) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn place(name: &str, version: &str) -> String {
    format!("/v1/images/{}/{}", segment(name), segment(version))
}

fn named(build: &ShownBuild) -> String {
    format!("{} {} ({})", build.name, build.version, build.build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(
            segment("1.2+a~b:c/../?d=e f"),
            "1.2%2Ba~b%3Ac%2F..%2F%3Fd%3De%20f"
        );
    }
}
