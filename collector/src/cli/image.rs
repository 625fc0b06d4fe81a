//! `image`: registered builds, and the channels that give them out.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::table::{Paint, print_json, say};
use super::{CliError, Client, Shown, Table};
use crate::api::images::Promotion;
use crate::api::keys::{Consequences, Reason};
use crate::clock::{now_ms, rfc3339};
use crate::image::{MAX_ARTIFACT_BYTES, MAX_MANIFEST_BYTES, ShownBuild, ShownChannel};
use crate::policy::parse_duration;

/// `image …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register a signed manifest.
    #[command(after_help = "\
Examples:
  driftmark-collector key add keys/driftmark.pub                 # once: who may sign
  driftmark-collector image add out/image.manifest --channel web
  driftmark-collector image add out/image.manifest --artifact packer-manifest.json --expires 90d")]
    Add {
        /// The manifest; its signature is beside it, with `.sig` at the end.
        manifest: PathBuf,
        /// The signature, where it is elsewhere.
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        /// Promote it to this channel.
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
        /// What the build became once it was sealed, such as packer-manifest.json.
        #[arg(long, value_name = "FILE")]
        artifact: Option<PathBuf>,
        /// When it expires, from now: 90d.
        #[arg(long, value_name = "DURATION")]
        expires: Option<String>,
    },
    /// List all registered builds.
    List,
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
        Command::Add {
            manifest,
            signature,
            channel,
            artifact,
            expires,
        } => {
            let signature = signature.unwrap_or_else(|| beside(&manifest));
            let added = add(
                client,
                &manifest,
                &signature,
                artifact.as_deref(),
                expires.as_deref(),
            )
            .await?;
            if let Some(channel) = &channel {
                let reason = "promoted when it was registered".to_owned();
                promote(client, channel, &added.name, &added.version, reason).await?;
            }
            match (shown, channel) {
                (Shown::Json, _) => print_json(&added)?,
                (Shown::Table, Some(channel)) => say(&format!(
                    "{} is registered, and channel {channel} gives it out",
                    named(&added)
                ))?,
                (Shown::Table, None) => say(&format!("{} is registered", named(&added)))?,
            }
        }
        Command::List => list(&client.get::<Vec<ShownBuild>>("/v1/images").await?, shown)?,
        Command::Channels => channels(
            &client.get::<Vec<ShownChannel>>("/v1/channels").await?,
            shown,
        )?,
        Command::Show { name, version } => show(
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

async fn add(
    client: &Client,
    manifest: &Path,
    signature: &Path,
    artifact: Option<&Path>,
    expires: Option<&str>,
) -> Result<ShownBuild, CliError> {
    let expires = match expires.map(parse_duration).transpose() {
        Ok(expires) => expires.and_then(|after| i64::try_from(after.as_millis()).ok()),
        Err(error) => return Err(CliError::Usage(format!("--expires: {error}"))),
    };
    let artifact: Option<serde_json::Value> = match artifact {
        Some(path) => {
            let bytes = read_file(path, MAX_ARTIFACT_BYTES as u64)?;
            let parsed = serde_json::from_slice(&bytes);
            Some(parsed.map_err(|error| {
                CliError::Usage(format!("{} is not JSON: {error}", path.display()))
            })?)
        }
        None => None,
    };
    let mut body = read_file(signature, drift::signature::Envelope::MAX_BYTES as u64)?;
    let mut path = format!("/v1/images?signature_bytes={}", body.len());
    if let Some(expires) = expires {
        path.push_str(&format!(
            "&expires_at_ms={}",
            now_ms().saturating_add(expires)
        ));
    }
    body.append(&mut read_file(manifest, MAX_MANIFEST_BYTES)?);
    let added: ShownBuild = client.post_bytes(&path, body).await?;
    match artifact {
        Some(artifact) => {
            let path = format!(
                "{}/{}/artifact",
                place(&added.name, &added.version),
                segment(&added.build)
            );
            Ok(client.post(&path, &artifact).await?)
        }
        None => Ok(added),
    }
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

fn list(builds: &[ShownBuild], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(builds)?);
    }
    let mut table = Table::of(&[
        "IMAGE",
        "VERSION",
        "BUILD",
        "ENTRIES",
        "REGISTERED",
        "CHANNELS",
        "STATE",
    ]);
    for build in builds {
        let plain = [
            build.name.clone(),
            build.version.clone(),
            build.build.clone(),
            build.entries.to_string(),
            rfc3339(build.added_at_ms),
            if build.channels.is_empty() {
                "-".into()
            } else {
                build.channels.join(", ")
            },
        ];
        table.row(
            plain
                .into_iter()
                .map(|cell| (cell, Paint::Plain))
                .chain([state(build)]),
        );
    }
    Ok(table.print("no image is registered")?)
}

fn state(build: &ShownBuild) -> (String, Paint) {
    if let Some(reason) = &build.revoked_reason {
        return (format!("revoked: {reason}"), Paint::Bad);
    }
    if build
        .expires_at_ms
        .is_some_and(|expires| expires <= now_ms())
    {
        return ("expired".into(), Paint::Bad);
    }
    if build.signers.len() == build.revoked_signers.len() {
        return ("signed by revoked keys only".into(), Paint::Bad);
    }
    ("good".into(), Paint::Good)
}

fn channels(channels: &[ShownChannel], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(channels)?);
    }
    let mut table = Table::of(&["CHANNEL", "LAST GOOD", "SINCE", "BY", "WHY"]);
    for channel in channels {
        let good = match (&channel.last_good, &channel.none_because) {
            (Some(good), _) => (format!("{} {}", good.name, good.version), Paint::Good),
            (None, why) => (
                format!("none: {}", why.clone().unwrap_or_default()),
                Paint::Bad,
            ),
        };
        let latest = channel.history.first();
        let plain = |cell: Option<String>| (cell.unwrap_or_else(|| "-".into()), Paint::Plain);
        table.row([
            (channel.channel.clone(), Paint::Plain),
            good,
            plain(latest.map(|latest| rfc3339(latest.at_ms))),
            plain(latest.map(|latest| latest.by.clone())),
            plain(latest.map(|latest| latest.reason.clone())),
        ]);
    }
    Ok(table.print("there is no channel: `image promote` makes one")?)
}

fn show(builds: &[ShownBuild], shown: Shown) -> Result<(), CliError> {
    if shown == Shown::Json {
        return Ok(print_json(builds)?);
    }
    for build in builds {
        let mut table = Table::of(&["WHAT", "IS"]);
        let rows = [
            ("image", named(build)),
            ("state", state(build).0),
            ("blake3", build.blake3.to_string()),
            ("sha256", build.sha256.to_string()),
            ("entries", build.entries.to_string()),
            ("signed by", build.signers.join(", ")),
            ("channels", build.channels.join(", ")),
            (
                "registered",
                format!("{} by {}", rfc3339(build.added_at_ms), build.added_by),
            ),
            ("statement", build.statement["predicate"].to_string()),
            (
                "artifact",
                build
                    .artifact
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ),
        ];
        rows.into_iter()
            .for_each(|(name, value)| table.plain([name.to_owned(), value]));
        table.print("")?;
    }
    Ok(())
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

/// A file, if it is no longer than that.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Input {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
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

fn beside(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
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

    #[test]
    fn a_signature_lies_beside_its_manifest() {
        assert_eq!(
            beside(Path::new("/a/image.manifest")),
            Path::new("/a/image.manifest.sig")
        );
    }
}
