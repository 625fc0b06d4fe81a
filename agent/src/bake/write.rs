//! Puts a bake together: rules, tree, statement, signature, files.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use drift::key::SigningKey;
use drift::manifest::{BakedManifest, Filesystem, Identity};
use drift::signature::Envelope;
use drift::statement::{
    BadText, Label, Note, Predicate, Provenance, Statement, Subject, SubjectDigest, Timestamp,
};
use drift::{Sha256, TreePath};
use driftmark_kernel::mounts;

use super::rules::{choose, read_plain};
use super::{BakeArguments, BakeError, ChosenRules, RulesChoice, Share, Tree, read_tree};
use crate::baseline;
use crate::clock::Now;
use crate::durable;
use crate::scan::Progress;

/// What a bake made.
#[derive(Debug)]
pub struct Baked {
    /// What was signed, or is to be.
    pub identity: Identity,
    /// How many entries the manifest has.
    pub entry_count: u64,
    /// Length of the manifest in bytes.
    pub manifest_bytes: u64,
    /// The rules that it carries.
    pub rules: ChosenRules,
    /// What they leave unheld.
    pub share: Share,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

/// Bakes; nothing is written unless everything was read.
///
/// # Errors
/// See [`BakeError`].
pub fn bake(
    arguments: &BakeArguments,
    interrupt: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Baked, BakeError> {
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let provenance = provenance(arguments)?;
    let rules = choose(&arguments.root, &arguments.rules_choice())?;
    let filesystems = filesystems(arguments)?;
    let share = match arguments.rules_choice() {
        RulesChoice::Nothing => Share::default(),
        _ => Share::measure(&arguments.root, &filesystems, &rules.built, interrupt)?,
    };
    share.check(&rules.built.sources)?;
    let manifest = read_tree(Tree {
        root: &arguments.root,
        filesystems,
        built: rules.built.clone(),
        threads: arguments.threads.unwrap_or_else(crate::threads),
        interrupt,
        progress,
    })?;
    let written = write(&arguments.output, &manifest, &provenance, key.as_ref())?;
    Ok(Baked {
        identity: manifest.identity,
        entry_count: manifest.entry_count,
        manifest_bytes: manifest.bytes.len() as u64,
        rules,
        share,
        written,
    })
}

/// The statement that a signature is over.
pub(crate) fn statement(identity: Identity, provenance: &Provenance) -> Statement {
    let name = "image.manifest".parse::<Note>().expect("a plain word");
    let digest = SubjectDigest {
        sha256: identity.sha256,
        blake3: Some(identity.blake3),
    };
    Statement {
        subject: Subject { name, digest },
        predicate: Predicate::Manifest(provenance.clone()),
    }
}

/// Reads a private key.
pub(crate) fn read_key(path: &Path) -> Result<SigningKey, BakeError> {
    let pem = std::fs::read(path).map_err(|source| BakeError::Read {
        path: path.to_owned(),
        source,
    })?;
    SigningKey::from_pem(&pem, &ring::rand::SystemRandom::new()).map_err(|source| BakeError::Key {
        path: path.to_owned(),
        source,
    })
}

fn write(
    output: &Path,
    manifest: &BakedManifest,
    provenance: &Provenance,
    key: Option<&SigningKey>,
) -> Result<Vec<PathBuf>, BakeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BakeError::Write { path, source }
    };
    std::fs::create_dir_all(output).map_err(failed(output))?;
    let statement = statement(manifest.identity, provenance).to_json();
    let manifest_path = output.join("image.manifest");
    let signature_path = output.join("image.manifest.sig");
    let statement_path = output.join("image.statement.json");
    let (path, bytes, stale) = match key {
        Some(key) => {
            let rng = ring::rand::SystemRandom::new();
            let envelope = Envelope::sign(statement, key, &rng).map_err(BakeError::Sign)?;
            (&signature_path, envelope.to_json(), &statement_path)
        }
        None => (&statement_path, statement, &signature_path),
    };
    // A signature of an earlier bake would be about another manifest.
    match std::fs::remove_file(stale) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(stale)(error));
        }
        _ => {}
    }
    durable::write(&manifest_path, &manifest.bytes, 0o644).map_err(failed(&manifest_path))?;
    durable::write(path, &bytes, 0o644).map_err(failed(path))?;
    Ok(vec![manifest_path, path.clone()])
}

fn provenance(arguments: &BakeArguments) -> Result<Provenance, BakeError> {
    let architecture = std::env::consts::ARCH;
    let build = arguments.build.as_deref().unwrap_or(architecture);
    let now = Timestamp::from_unix_seconds(Now::read().clock_seconds());
    let sbom_sha256 = match &arguments.sbom {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|source| BakeError::Read {
                path: path.clone(),
                source,
            })?;
            Some(Sha256::of(&bytes))
        }
        None => None,
    };
    Ok(Provenance {
        name: label("name", &arguments.name)?,
        version: label("version", &arguments.version)?,
        build: Some(label("build", build)?),
        architecture: Some(label("architecture", architecture)?),
        build_time: now,
        builder: note("builder", arguments.builder.as_deref())?,
        source_revision: note("source-revision", arguments.source_revision.as_deref())?,
        approved_by: note("approved-by", arguments.approved_by.as_deref())?,
        sbom_sha256,
        parent: arguments.parent.as_deref().map(parent).transpose()?,
    })
}

fn label(flag: &'static str, value: &str) -> Result<Label, BakeError> {
    value
        .parse::<Label>()
        .map_err(|source| bad(flag, value, source))
}

fn note(flag: &'static str, value: Option<&str>) -> Result<Option<Note>, BakeError> {
    value
        .map(|value| {
            value
                .parse::<Note>()
                .map_err(|source| bad(flag, value, source))
        })
        .transpose()
}

fn bad(flag: &'static str, value: &str, source: BadText) -> BakeError {
    BakeError::Argument {
        flag,
        value: value.to_owned(),
        source,
    }
}

/// The digest of the manifest that the parent image was signed with.
fn parent(path: &Path) -> Result<Sha256, BakeError> {
    let opened = baseline::open_unverified(path);
    let manifest = opened.map_err(|error| BakeError::Read {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(manifest.identity().sha256)
}

/// The image's other local file systems: those in its fstab with a local block source, and those asked for.
fn filesystems(arguments: &BakeArguments) -> Result<Vec<Filesystem>, BakeError> {
    let root = arguments.root.canonicalize();
    let root = root.map_err(|source| BakeError::Root {
        path: arguments.root.clone(),
        source,
    })?;
    let ignore_fstab = arguments
        .filesystems
        .iter()
        .any(|path| path.as_os_str() == "none");
    let mut points: Vec<TreePath> = Vec::new();
    if !ignore_fstab {
        points = read_plain(&root, "etc/fstab")
            .map(|text| fstab(&text))
            .unwrap_or_default();
    }
    for path in arguments
        .filesystems
        .iter()
        .filter(|path| path.as_os_str() != "none")
    {
        let point = TreePath::new(path.as_os_str().as_encoded_bytes());
        let point = point.map_err(|error| BakeError::Read {
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        points.push(point);
    }
    points.retain(|point| !point.is_root());
    points.sort();
    points.dedup();
    let table = mounts::of(std::process::id());
    let table = table.map_err(|source| BakeError::Read {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    points
        .into_iter()
        .map(|mount_point| {
            let path = crate::scan::filesystems::below(&root, &mount_point);
            let mounted = table
                .iter()
                .rev()
                .find(|mount| mount.point == path.as_os_str().as_encoded_bytes());
            match mounted {
                Some(mount) => Ok(Filesystem {
                    mount_point,
                    kind: String::from_utf8_lossy(&mount.fs_type).into_owned(),
                }),
                None => Err(BakeError::FilesystemMissing(mount_point)),
            }
        })
        .collect()
}

/// Mount points of a fstab that have a local block source.
fn fstab(text: &str) -> Vec<TreePath> {
    const LOCAL: [&str; 6] = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="];
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (source, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let options = fields.next().unwrap_or_default();
            let is_local = LOCAL.iter().any(|prefix| source.starts_with(prefix)) && kind != "swap";
            let comes_later = options
                .split(',')
                .any(|option| matches!(option, "noauto" | "nofail"));
            (is_local && !comes_later && point.starts_with('/'))
                .then(|| TreePath::new(point.as_bytes()).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_fstab_only_local_file_systems_count() {
        let text = "# comment\nUUID=1 / ext4 defaults 0 1\n/dev/sda1 /boot/efi vfat umask=0077 0 1\n\
                    nas:/home /home nfs defaults 0 0\n/dev/sda2 none swap sw 0 0\nLABEL=data /data xfs noauto 0 0\n";
        let points: Vec<String> = fstab(text).iter().map(ToString::to_string).collect();
        assert_eq!(points, ["/", "/boot/efi"]);
    }
}
