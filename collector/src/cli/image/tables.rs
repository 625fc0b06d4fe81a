//! Receives builds and channels, hands them on as tables.

use super::super::table::{Paint, Table, print_json};
use super::super::{CliError, Shown};
use super::named;
use crate::clock::{now_ms, rfc3339};
use crate::image::{ShownArtifact, ShownBuild, ShownChannel};

pub(super) fn list(builds: &[ShownBuild], nothing: &str, shown: Shown) -> Result<(), CliError> {
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
    Ok(table.print(nothing)?)
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

pub(super) fn channels(channels: &[ShownChannel], shown: Shown) -> Result<(), CliError> {
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

pub(super) fn show(builds: &[ShownBuild], shown: Shown) -> Result<(), CliError> {
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
        ];
        rows.into_iter()
            .for_each(|(name, value)| table.plain([name.to_owned(), value]));
        for artifact in &build.artifacts {
            table.plain(["artifact".to_owned(), self::artifact(artifact)]);
        }
        table.print("")?;
    }
    Ok(())
}

/// What a build is called, who says so, and whether anybody vouches for it.
fn artifact(artifact: &ShownArtifact) -> String {
    let ids: Vec<String> = artifact
        .ids
        .iter()
        .map(|(kind, id)| format!("{kind} {id}"))
        .collect();
    let root_hash = artifact
        .verity_root_hash
        .iter()
        .map(|hash| format!("dm-verity {hash}"));
    let ids: Vec<String> = ids.into_iter().chain(root_hash).collect();
    let holds = artifact.signers.len() > artifact.revoked_signers.len();
    let vouched = match (artifact.signers.is_empty(), holds) {
        (true, _) => "unsigned".to_owned(),
        (false, true) => format!("signed by {}", artifact.signers.join(", ")),
        (false, false) => "signed by revoked keys only".to_owned(),
    };
    format!(
        "{}: {} ({}, {} by {}, {vouched})",
        artifact.platform,
        ids.join(", "),
        artifact.format,
        rfc3339(artifact.added_at_ms),
        artifact.added_by
    )
}
