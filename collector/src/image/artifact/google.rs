//! Receives what Google Compute Engine calls an image, hands on that it is one.

use super::{ArtifactError, Format};

/// The platform of Compute Engine's images.
pub(super) const PLATFORM: &str = "gcp";

/// Checks the name of an image, alone or with its project: `projects/P/global/images/NAME`.
pub(super) fn check(format: Format, id: &str) -> Result<(), ArtifactError> {
    let name = match id.split('/').collect::<Vec<_>>().as_slice() {
        [name] | ["projects", _, "global", "images", name] => *name,
        _ => "",
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = name
        .bytes()
        .next()
        .is_some_and(|it| it.is_ascii_lowercase());
    if begins && name.len() <= 63 && name.bytes().all(plain) && !name.ends_with('-') {
        return Ok(());
    }
    Err(ArtifactError::Id {
        format,
        found: id.to_owned(),
        wanted: "the name of an image",
    })
}
