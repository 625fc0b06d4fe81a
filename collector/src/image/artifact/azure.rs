//! Receives what Azure calls images, hands on resource ids.
//!
//! `az image builder show-runs`, one run output or what the REST interface lists:
//! <https://learn.microsoft.com/rest/api/imagebuilder/virtual-machine-image-templates/get-run-output>.

use drift::statement::Artifact;
use serde::Deserialize;

use super::{ArtifactError, Format, Gathered, Members, is_list, parse};

/// The platform of managed images, gallery versions and VHDs.
pub(super) const PLATFORM: &str = "azure";

/// What the REST interface lists.
#[derive(Deserialize)]
struct Page {
    value: Vec<Output>,
}

/// The command line has what was made beside the name, the REST interface below `properties`.
#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(flatten)]
    made: Made,
    properties: Option<Made>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    artifact_id: Option<String>,
    artifact_uri: Option<String>,
    provisioning_state: Option<String>,
}

/// Whether an object is a run output, or a list of them.
pub(super) fn is_run_output(members: &Members<'_>) -> bool {
    let has = |name: &str| members.contains_key(name);
    has("value") || (has("name") && (has("provisioningState") || has("properties")))
}

/// What a template's runs made, by the name of each run output.
pub(super) fn run_outputs(bytes: &[u8]) -> Result<Vec<Artifact>, ArtifactError> {
    const FORMAT: Format = Format::AzureImageBuilder;
    let outputs = if is_list(bytes) {
        parse(bytes, FORMAT)?
    } else if parse::<Members<'_>>(bytes, FORMAT)?.contains_key("value") {
        parse::<Page>(bytes, FORMAT)?.value
    } else {
        vec![parse(bytes, FORMAT)?]
    };
    let mut gathered = Gathered::of(FORMAT, PLATFORM);
    for output in outputs {
        let made = output.properties.unwrap_or(output.made);
        let state = made.provisioning_state.unwrap_or_default();
        if state != "Succeeded" {
            return Err(ArtifactError::Unfinished {
                format: FORMAT,
                state,
                wanted: "Succeeded",
            });
        }
        let id = made.artifact_id.or(made.artifact_uri).unwrap_or_default();
        kind(FORMAT, &id)?;
        gathered.add(&output.name, &id)?;
    }
    Ok(gathered.artifact().into_iter().collect())
}

/// What kind of image an id is of.
pub(super) fn kind(format: Format, id: &str) -> Result<&'static str, ArtifactError> {
    let folded = id.to_ascii_lowercase();
    let parts: Vec<&str> = folded.split('/').collect();
    // Below /subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/.
    let resource = match parts.as_slice() {
        [
            "",
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            "microsoft.compute",
            rest @ ..,
        ] => rest,
        _ => &[],
    };
    let named = parts.iter().skip(1).all(|part| !part.is_empty());
    match resource {
        ["images", _] if named => Ok("image"),
        ["galleries", _, "images", _, "versions", _] if named => Ok("gallery-version"),
        _ if folded.starts_with("https://") && folded.ends_with(".vhd") => Ok("vhd"),
        _ => Err(ArtifactError::Id {
            format,
            found: id.to_owned(),
            wanted: "the resource id of an image, the resource id of a gallery image version, or the address of a VHD",
        }),
    }
}
