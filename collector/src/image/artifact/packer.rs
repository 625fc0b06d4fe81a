//! Receives the file of Packer's `manifest` post-processor, hands on what its last run made.
//!
//! <https://developer.hashicorp.com/packer/docs/post-processors/manifest>. Every run appends its builds, so the last
//! one is chosen. A build of it whose `custom_data` names another build of the same version is of a sibling, and passed
//! over; one that names another image, version or manifest is refused.

use std::collections::BTreeMap;

use drift::statement::Artifact;
use serde::Deserialize;

use super::{ArtifactError, Format, Gathered, Subject, amazon, azure, docker, google, parse};

const FORMAT: Format = Format::Packer;
/// How the keys of `custom_data` begin that are ours.
const OURS: &str = "driftmark.";

#[derive(Deserialize)]
struct Manifest {
    builds: Vec<Build>,
    last_run_uuid: String,
}

#[derive(Deserialize)]
struct Build {
    builder_type: String,
    artifact_id: String,
    packer_run_uuid: String,
    files: Option<Vec<File>>,
    custom_data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct File {
    name: String,
}

/// What the last run made of this build.
pub(super) fn read(bytes: &[u8], subject: &Subject) -> Result<Vec<Artifact>, ArtifactError> {
    let Manifest {
        builds,
        last_run_uuid: run,
    } = parse(bytes, FORMAT)?;
    let of_run: Vec<Build> = builds
        .into_iter()
        .filter(|build| build.packer_run_uuid == run)
        .collect();
    if of_run.is_empty() {
        return Err(ArtifactError::NoRun {
            format: FORMAT,
            run,
        });
    }
    let mut platforms: BTreeMap<&str, Gathered> = BTreeMap::new();
    let mut sibling = None;
    for build in of_run {
        match whose(&build, subject)? {
            Whose::Ours => gather(&mut platforms, &build)?,
            Whose::Siblings(build) => sibling = Some(build),
        }
    }
    match (platforms.is_empty(), sibling) {
        (true, Some(found)) => Err(ArtifactError::DoesNotFit {
            what: "the build in Packer's custom_data",
            expected: subject.build.clone(),
            found,
        }),
        _ => Ok(platforms
            .into_values()
            .filter_map(Gathered::artifact)
            .collect()),
    }
}

enum Whose {
    Ours,
    Siblings(String),
}

fn whose(build: &Build, subject: &Subject) -> Result<Whose, ArtifactError> {
    let mut whose = Whose::Ours;
    for (key, found) in build.custom_data.iter().flatten() {
        let Some(word) = key.strip_prefix(OURS) else {
            continue;
        };
        match word {
            "name" => super::fits("the name in Packer's custom_data", &subject.name, found)?,
            "version" => super::fits(
                "the version in Packer's custom_data",
                &subject.version,
                found,
            )?,
            "manifest" if *found != subject.blake3.to_string() => super::fits(
                "the manifest in Packer's custom_data",
                &subject.sha256.to_string(),
                found,
            )?,
            "build" if *found != subject.build => whose = Whose::Siblings(found.clone()),
            "manifest" | "build" => {}
            _ => return Err(ArtifactError::CustomData(key.clone())),
        }
    }
    Ok(whose)
}

fn gather(platforms: &mut BTreeMap<&str, Gathered>, build: &Build) -> Result<(), ArtifactError> {
    let platform = match build.builder_type.as_str() {
        kind if kind.starts_with("amazon-") => amazon::PLATFORM,
        kind if kind.starts_with("azure-") => azure::PLATFORM,
        "googlecompute" => google::PLATFORM,
        "docker" => docker::PLATFORM,
        "qemu" => "qemu",
        other => return Err(ArtifactError::BuilderType(other.to_owned())),
    };
    let gathered = platforms
        .entry(platform)
        .or_insert_with(|| Gathered::of(FORMAT, platform));
    let id = build.artifact_id.as_str();
    match platform {
        amazon::PLATFORM => {
            for pair in id.split(',') {
                let (region, ami) = pair.split_once(':').unwrap_or((pair, ""));
                amazon::add(gathered, FORMAT, region, None, ami)?;
            }
            Ok(())
        }
        azure::PLATFORM => gathered.add(azure::kind(FORMAT, id)?, id),
        google::PLATFORM => {
            google::check(FORMAT, id)?;
            gathered.add("image", id)
        }
        docker::PLATFORM => {
            docker::check(FORMAT, id)?;
            gathered.add("config", id)
        }
        _ => disks(gathered, build),
    }
}

/// QEMU's artifacts are files, all called `VM`: they are told apart by their run.
fn disks(gathered: &mut Gathered, build: &Build) -> Result<(), ArtifactError> {
    for file in build.files.iter().flatten() {
        let number = gathered.ids.len() + 1;
        let kind = if number == 1 {
            "disk".to_owned()
        } else {
            format!("disk-{number}")
        };
        gathered.add(&kind, &format!("{}/{}", build.packer_run_uuid, file.name))?;
    }
    Ok(())
}
