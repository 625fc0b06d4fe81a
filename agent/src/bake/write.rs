//! Puts a bake together: rules, tree, statement, signature, files.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use drift::Sha256;
use drift::key::SigningKey;
use drift::manifest::{Identity, Sheets, Writer};
use drift::signature::Envelope;
use drift::statement::{
    BadText, Label, Note, Predicate, Provenance, Statement, Subject, SubjectDigest, Timestamp,
};

use super::aside::SetAside;
use super::gather::Reading;
use super::glance::Glance;
use super::home::Home;
use super::rules::choose;
use super::source::Source;
use super::{BakeArguments, BakeError, ChosenRules, RulesChoice, Share, Trace, shown, traces};
use crate::baseline;
use crate::clock::Now;
use crate::confine::Place;
use crate::durable;
use crate::packages;
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
    /// What an instance left in the image, and should be cleaned.
    pub traces: Vec<Trace>,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

/// Told now and then how far a bake is, and of how much, if that is known; what of it is 0 is not.
pub type Told<'a> = dyn Fn(Progress, Option<Progress>) + Sync + 'a;

/// Bakes; nothing is written unless everything was read.
///
/// `opened` is called once the source is open and nothing of it was read, with the places that the source itself writes:
/// from then on nothing but these and `--output` is written, no program started and no connection opened, so that it may
/// confine the process.
///
/// # Errors
/// See [`BakeError`].
pub fn bake(
    arguments: &BakeArguments,
    interrupt: &AtomicBool,
    opened: &dyn Fn(&[Place<'_>]),
    progress: &Told<'_>,
) -> Result<Baked, BakeError> {
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let provenance = provenance(arguments)?;
    let archive = archive_length(arguments);
    let aside = SetAside::beside(&arguments.output);
    let reading = Reading {
        threads: arguments.threads.unwrap_or_else(crate::threads),
        interrupt,
        progress: &|so_far| progress(so_far, archive),
        aside: &aside,
    };
    let source = Source::open(arguments, reading, opened)?;
    let traces = traces_in(source.image(), arguments)?;
    let rules = choose(
        source.image(),
        &|path| source.has(path),
        &arguments.rules_choice(),
    )?;
    let (share, owners) = std::thread::scope(|scope| {
        let owners = scope.spawn(|| packages::owners(source.databases()));
        let share = match arguments.rules_choice() {
            RulesChoice::Nothing => Ok(Share::default()),
            _ => source.share(&rules.built, interrupt),
        };
        let share = share.and_then(|share| share.check(&rules.built.sources).map(|()| share));
        let owners = match owners.join() {
            Ok(owners) => owners,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok::<_, BakeError>((share?, owners?))
    })?;
    let home = Home::make(arguments)?;
    let all = (share.entries.all > 0).then(|| Progress {
        entries: share.entries.all - share.entries.volatile,
        bytes: share.bytes.all - share.bytes.volatile,
    });
    let reading = Reading {
        progress: &|so_far| progress(so_far, all),
        ..reading
    };
    let gathered = source.gather(&rules.built.rules, reading)?;
    let mut writer = Writer::new(rules.built.rules.clone(), &aside);
    gathered.write(&aside, &mut |drafted| {
        let package = owners.get(&drafted.entry.path);
        writer.push(&drafted.entry, drafted.sha256, package, drafted.modified)
    })?;
    let not_held = source.not_held();
    let manifest = writer.finish(source.others, not_held)?;
    let written = write(&arguments.output, &manifest, &provenance, key.as_ref())?;
    home.keep();
    Ok(Baked {
        identity: manifest.identity,
        entry_count: manifest.entry_count,
        manifest_bytes: manifest.length(),
        rules,
        share,
        traces,
        written,
    })
}

/// How much there is to read of a tar that is a file.
fn archive_length(arguments: &BakeArguments) -> Option<Progress> {
    let length = |tar: &PathBuf| {
        std::fs::metadata(tar)
            .ok()
            .filter(std::fs::Metadata::is_file)
    };
    let bytes = arguments.tar.as_ref().and_then(length)?.len();
    Some(Progress { entries: 0, bytes })
}

/// What an instance left; refuses what must not be there.
fn traces_in(image: Glance<'_>, arguments: &BakeArguments) -> Result<Vec<Trace>, BakeError> {
    if let Some(found) = traces::of_agent(image) {
        let root = arguments.root.as_deref().unwrap_or(Path::new("/"));
        return Err(BakeError::Identity {
            found,
            state: shown(&root.join("var/lib/driftmark")),
        });
    }
    let traces = traces::of_instance(image);
    if arguments.strict && !traces.is_empty() {
        const NAMED: usize = 5;
        let named = traces.iter().take(NAMED).map(|trace| &*trace.path);
        return Err(BakeError::Traces {
            count: traces.len(),
            list: named.collect::<Vec<_>>().join(", "),
        });
    }
    Ok(traces)
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
    manifest: &Sheets<'_>,
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
    durable::write_with(&manifest_path, 0o644, &|file| manifest.write_to(file))
        .map_err(failed(&manifest_path))?;
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
