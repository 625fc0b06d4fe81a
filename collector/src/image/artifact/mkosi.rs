//! Receives mkosi's manifest, hands on what the image is called: `ID_VERSION_ARCHITECTURE`.

use drift::statement::Artifact;
use serde::Deserialize;

use super::{ArtifactError, Format, Gathered, parse};

#[derive(Deserialize)]
struct Manifest {
    manifest_version: u32,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    name: String,
    version: Option<String>,
    architecture: Option<String>,
}

/// The image of a manifest. Without a version every build would have the same name.
pub(super) fn manifest(bytes: &[u8]) -> Result<Vec<Artifact>, ArtifactError> {
    const FORMAT: Format = Format::Mkosi;
    let Manifest {
        manifest_version,
        config,
    } = parse(bytes, FORMAT)?;
    if !matches!(manifest_version, 1 | 2) {
        return Err(ArtifactError::Id {
            format: FORMAT,
            found: manifest_version.to_string(),
            wanted: "manifest_version 1 or 2",
        });
    }
    let version = config.version.ok_or_else(|| ArtifactError::Id {
        format: FORMAT,
        found: config.name.clone(),
        wanted: "a name with a version (ImageVersion=, --image-version)",
    })?;
    let mut id = format!("{}_{version}", config.name);
    if let Some(architecture) = &config.architecture {
        id.push('_');
        id.push_str(architecture);
    }
    let mut gathered = Gathered::of(FORMAT, "mkosi");
    gathered.add("image", &id)?;
    Ok(gathered.artifact().into_iter().collect())
}
