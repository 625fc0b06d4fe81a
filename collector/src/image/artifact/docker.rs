//! Receives what docker says of an image, hands on its digests.
//!
//! `docker build --iidfile`, `docker buildx build --metadata-file`, `docker inspect IMAGE`.

use drift::statement::Artifact;
use serde::Deserialize;

use super::{ArtifactError, Format, Gathered, Members, is_list, parse};

/// The platform of container images.
pub(super) const PLATFORM: &str = "docker";
const FORMAT: Format = Format::Docker;
const CONFIG: &str = "containerimage.config.digest";
const DIGEST: &str = "containerimage.digest";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    repo_digests: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "containerimage.config.digest")]
    config: Option<String>,
    #[serde(rename = "containerimage.digest")]
    digest: Option<String>,
}

/// Whether a file is nothing but an image id.
pub(super) fn is_image_id(bytes: &[u8]) -> bool {
    bytes.trim_ascii().starts_with(b"sha256:")
}

/// Whether an object is what buildx writes.
pub(super) fn is_metadata(members: &Members<'_>) -> bool {
    members.contains_key(CONFIG) || members.contains_key(DIGEST)
}

/// The digests of one image: of its configuration, which is its id, and of its manifest in registries.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Artifact>, ArtifactError> {
    let mut gathered = Gathered::of(FORMAT, PLATFORM);
    if is_image_id(bytes) {
        let id = String::from_utf8_lossy(bytes.trim_ascii());
        check(FORMAT, &id)?;
        gathered.add("config", &id)?;
        return Ok(gathered.artifact().into_iter().collect());
    }
    if is_list(bytes) {
        inspected(&mut gathered, &parse::<Vec<Inspected>>(bytes, FORMAT)?)?;
    } else {
        let Metadata { config, digest } = parse(bytes, FORMAT)?;
        for (kind, id) in [("config", config), ("digest", digest)] {
            if let Some(id) = id {
                check(FORMAT, &id)?;
                gathered.add(kind, &id)?;
            }
        }
    }
    Ok(gathered.artifact().into_iter().collect())
}

fn inspected(gathered: &mut Gathered, images: &[Inspected]) -> Result<(), ArtifactError> {
    let [image] = images else {
        return Err(ArtifactError::Id {
            format: FORMAT,
            found: format!("{} images", images.len()),
            wanted: "exactly one image",
        });
    };
    check(FORMAT, &image.id)?;
    gathered.add("config", &image.id)?;
    let mut digests: Vec<&str> = Vec::new();
    for named in image.repo_digests.iter().flatten() {
        let digest = named.rsplit('@').next().unwrap_or_default();
        check(FORMAT, digest)?;
        if digest != image.id && !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    for (number, digest) in digests.iter().enumerate() {
        let kind = match number {
            0 => "digest".to_owned(),
            more => format!("digest-{}", more + 1),
        };
        gathered.add(&kind, digest)?;
    }
    Ok(())
}

/// Checks that an id is a digest.
pub(super) fn check(format: Format, id: &str) -> Result<(), ArtifactError> {
    let digits = id.strip_prefix("sha256:").unwrap_or_default();
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() == 64 && digits.bytes().all(hexadecimal) {
        return Ok(());
    }
    Err(ArtifactError::Id {
        format,
        found: id.to_owned(),
        wanted: "an image's digest, `sha256:` and 64 hexadecimal digits,",
    })
}
