//! Receives what EC2 calls images, hands on AMIs by region.
//!
//! `aws imagebuilder get-image`: <https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_Image.html>.

use std::collections::BTreeSet;

use drift::statement::Artifact;
use serde::Deserialize;

use super::{ArtifactError, Format, Gathered, parse};

/// The platform of AMIs.
pub(super) const PLATFORM: &str = "aws";

#[derive(Deserialize)]
struct Answer {
    image: Image,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    state: Option<State>,
    output_resources: Option<OutputResources>,
}

#[derive(Deserialize)]
struct State {
    status: String,
}

#[derive(Deserialize)]
struct OutputResources {
    #[serde(default)]
    amis: Vec<Ami>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ami {
    region: String,
    image: String,
    account_id: Option<String>,
    state: Option<State>,
}

/// The AMIs of an image: by region, and where it was copied to several accounts, by region and account.
pub(super) fn image(bytes: &[u8]) -> Result<Vec<Artifact>, ArtifactError> {
    const FORMAT: Format = Format::Ec2ImageBuilder;
    let image = parse::<Answer>(bytes, FORMAT)?.image;
    let amis = image
        .output_resources
        .map(|output| output.amis)
        .unwrap_or_default();
    let states = image.state.iter();
    for state in states.chain(amis.iter().filter_map(|ami| ami.state.as_ref())) {
        if state.status != "AVAILABLE" {
            return Err(ArtifactError::Unfinished {
                format: FORMAT,
                state: state.status.clone(),
                wanted: "AVAILABLE",
            });
        }
    }
    let accounts: BTreeSet<_> = amis.iter().map(|ami| &ami.account_id).collect();
    let mut gathered = Gathered::of(FORMAT, PLATFORM);
    for ami in &amis {
        let account = ami.account_id.as_deref().filter(|_| accounts.len() > 1);
        add(&mut gathered, FORMAT, &ami.region, account, &ami.image)?;
    }
    Ok(gathered.artifact().into_iter().collect())
}

/// An AMI of a region.
pub(super) fn add(
    gathered: &mut Gathered,
    format: Format,
    region: &str,
    account: Option<&str>,
    ami: &str,
) -> Result<(), ArtifactError> {
    let refused = |found: &str, wanted| {
        Err(ArtifactError::Id {
            format,
            found: found.to_owned(),
            wanted,
        })
    };
    let in_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || region.len() > 32 || !region.bytes().all(in_region) {
        return refused(region, "the name of a region, such as eu-west-1,");
    }
    let digits = ami.strip_prefix("ami-").unwrap_or_default();
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !matches!(digits.len(), 8 | 17) || !digits.bytes().all(hexadecimal) {
        return refused(ami, "an AMI, `ami-` and 8 or 17 hexadecimal digits,");
    }
    match account {
        None => gathered.add(region, ami),
        Some(account) if account.len() == 12 && account.bytes().all(|it| it.is_ascii_digit()) => {
            gathered.add(&format!("{region}:{account}"), ami)
        }
        Some(account) => refused(account, "an account of 12 digits"),
    }
}
