//! `image add` and `image artifact`: what pipelines hand in.

use std::path::{Path, PathBuf};

use super::super::table::{print_json, say};
use super::super::{CliError, Client, Shown};
use super::{named, place, promote, read_file, segment};
use crate::clock::now_ms;
use crate::image::{MAX_MANIFEST_BYTES, ShownBuild, artifact};
use crate::policy::parse_duration;

/// What is registered.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The manifest; its signature is beside it, with `.sig` at the end.
    manifest: PathBuf,
    /// The signature, where it is elsewhere.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Promote it to this channel.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// What the build is called where it runs: what an image builder wrote; may be given several times.
    ///
    /// See `image artifact --help` for what is recognised.
    #[arg(long, value_name = "FILE")]
    artifact: Vec<PathBuf>,
    /// When it expires, from now: 90d.
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    /// Refuse it unless it is signed for this name.
    #[arg(long)]
    name: Option<String>,
    /// Refuse it unless it is signed for this version.
    #[arg(long)]
    version: Option<String>,
    /// Refuse it unless it is signed for this build.
    #[arg(long)]
    build: Option<String>,
}

/// What a registered build became.
#[derive(Debug, clap::Args)]
pub struct Artifacts {
    /// Name of the image.
    name: String,
    /// Its version.
    version: String,
    /// What the image builder wrote; `-` is standard input.
    file: PathBuf,
    /// Which build, where the version has several.
    #[arg(long)]
    build: Option<String>,
}

/// Registers a build with everything that comes with it: all of it, or nothing.
pub(super) async fn add(
    arguments: Arguments,
    client: &Client,
    shown: Shown,
) -> Result<(), CliError> {
    let signature = arguments
        .signature
        .clone()
        .unwrap_or_else(|| beside(&arguments.manifest));
    let mut body = read_file(&signature, drift::signature::Envelope::MAX_BYTES as u64)?;
    let mut path = format!("/v1/images?signature_bytes={}", body.len());
    let mut lengths = Vec::new();
    for file in &arguments.artifact {
        let mut bytes = read_file(file, artifact::MAX_BYTES as u64)?;
        lengths.push(bytes.len().to_string());
        body.append(&mut bytes);
    }
    if !lengths.is_empty() {
        path.push_str(&format!("&artifact_bytes={}", lengths.join(",")));
    }
    if let Some(expires) = arguments.expires.as_deref().map(parse_duration) {
        let after = expires.map_err(|error| CliError::Usage(format!("--expires: {error}")))?;
        let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let at_ms = now_ms().saturating_add(after);
        path.push_str(&format!("&expires_at_ms={at_ms}"));
    }
    for (what, expected) in [
        ("name", &arguments.name),
        ("version", &arguments.version),
        ("build", &arguments.build),
    ] {
        if let Some(expected) = expected {
            path.push_str(&format!("&{what}={}", segment(expected)));
        }
    }
    body.append(&mut read_file(&arguments.manifest, MAX_MANIFEST_BYTES)?);
    let added: ShownBuild = client.post_bytes(&path, body).await?;
    if let Some(channel) = &arguments.channel
        && !added.channels.contains(channel)
    {
        let reason = "promoted when it was registered".to_owned();
        promote(client, channel, &added.name, &added.version, reason).await?;
    }
    match (shown, arguments.channel) {
        (Shown::Json, _) => print_json(&added)?,
        (Shown::Table, Some(channel)) => say(&format!(
            "{} is registered, and channel {channel} gives it out",
            named(&added)
        ))?,
        (Shown::Table, None) => say(&format!("{} is registered", named(&added)))?,
    }
    Ok(())
}

/// Says what a build that is registered became.
pub(super) async fn artifact(
    arguments: Artifacts,
    client: &Client,
    shown: Shown,
) -> Result<(), CliError> {
    let place = place(&arguments.name, &arguments.version);
    let build = match arguments.build {
        Some(build) => build,
        None => only_build(client.get::<Vec<ShownBuild>>(&place).await?)?,
    };
    let path = format!("{place}/{}/artifacts", segment(&build));
    let bytes = read_file(&arguments.file, artifact::MAX_BYTES as u64)?;
    let added: ShownBuild = client.post_bytes(&path, bytes).await?;
    match shown {
        Shown::Json => print_json(&added)?,
        Shown::Table => {
            let ids = added.artifacts.iter().map(|it| it.ids.len()).sum::<usize>();
            say(&format!("{} has {ids} artifacts", named(&added)))?;
        }
    }
    Ok(())
}

fn only_build(builds: Vec<ShownBuild>) -> Result<String, CliError> {
    let names: Vec<String> = builds.into_iter().map(|build| build.build).collect();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        several => Err(CliError::Usage(format!(
            "the version has several builds: say which with --build ({})",
            several.join(", ")
        ))),
    }
}

fn beside(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_lies_beside_its_manifest() {
        assert_eq!(
            beside(Path::new("/a/image.manifest")),
            Path::new("/a/image.manifest.sig")
        );
    }
}
