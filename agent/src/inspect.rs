//! Shows what a manifest says: all of it, one path, or in another format.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use drift::TreePath;
use drift::export::{JsonLines, Mtree};
use drift::manifest::{ManifestError, UnverifiedManifest};

use crate::baseline::{BaselineError, ManifestFile, open_unverified};

/// Show what a manifest says. Its signature is not checked: `check` does that.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  driftmark-agent inspect /usr/lib/driftmark/image.manifest                  # what it is, and its rules
  driftmark-agent inspect /usr/lib/driftmark/image.manifest /usr/bin/sudo    # what the image has there
  driftmark-agent inspect --json image.manifest | jq -r .path")]
pub struct InspectArguments {
    /// The manifest.
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// One path of the image; without it, everything.
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// JSON Lines: the header, then one object per entry.
    #[arg(long, conflicts_with = "mtree")]
    pub json: bool,
    /// BSD mtree, for `mtree -f` and `bsdtar`.
    #[arg(long)]
    pub mtree: bool,
}

/// Why a manifest cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be opened.
    #[error("open the manifest")]
    Open(#[from] BaselineError),
    /// It cannot be read to the end.
    #[error("read the manifest")]
    Read(#[from] ManifestError),
    /// The path cannot be one of a tree.
    #[error("look for {0:?}")]
    Path(String, #[source] drift::path::BadPath),
    /// The image has no such path.
    #[error("the image has no {0}")]
    NotFound(TreePath),
    /// The output could not be written.
    #[error("write the result")]
    Output(#[from] io::Error),
}

/// Prints a manifest.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(arguments: &InspectArguments, out: &mut dyn Write) -> Result<(), InspectError> {
    let manifest = open_unverified(&arguments.manifest)?;
    match &arguments.path {
        Some(path) => {
            let text = path.as_os_str().as_encoded_bytes();
            let path = TreePath::new(text)
                .map_err(|error| InspectError::Path(drift::escape(text), error))?;
            print_entry(&manifest, &path, arguments, out)?;
        }
        None if !arguments.json && !arguments.mtree => print_header(&manifest, out)?,
        None => print_all(&manifest, arguments, out)?,
    }
    out.flush()?;
    Ok(())
}

fn print_all(
    manifest: &UnverifiedManifest<ManifestFile>,
    arguments: &InspectArguments,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    if arguments.mtree {
        out.write_all(Mtree::HEAD.as_bytes())?;
    } else {
        writeln!(out, "{}", JsonLines::header(manifest))?;
    }
    let packages = manifest.packages()?;
    for numbered in manifest.entries().numbered() {
        let numbered = numbered?;
        let origin = manifest.origin_of(&numbered, &packages)?;
        let line = if arguments.mtree {
            Mtree::line(&numbered.entry, &origin)
        } else {
            JsonLines::entry(&numbered.entry, &origin)
        };
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn print_entry(
    manifest: &UnverifiedManifest<ManifestFile>,
    path: &TreePath,
    arguments: &InspectArguments,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    let entry = manifest
        .lookup(path)?
        .ok_or_else(|| InspectError::NotFound(path.clone()))?;
    let origin = manifest.origin(path)?.unwrap_or_default();
    let text = match (arguments.mtree, arguments.json) {
        (true, _) => Mtree::line(&entry, &origin),
        (_, true) => JsonLines::entry(&entry, &origin),
        _ => entry_text(manifest, &entry, &origin),
    };
    writeln!(out, "{text}")?;
    Ok(())
}

fn entry_text(
    manifest: &UnverifiedManifest<ManifestFile>,
    entry: &drift::Entry,
    origin: &drift::manifest::Origin,
) -> String {
    let shown = drift::entry::Shown::from(entry);
    let mut lines = vec![
        format!("path     {}", entry.path),
        format!("kind     {}", shown.kind),
    ];
    lines.push(format!(
        "mode     {}  uid {}  gid {}",
        shown.mode, shown.uid, shown.gid
    ));
    let mut line = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{word:<8} {value}"));
        }
    };
    line("size", shown.size.map(|size| size.to_string()));
    line("blake3", shown.content.map(|digest| digest.to_string()));
    line("sha256", origin.sha256.map(|digest| digest.to_string()));
    line("verity", shown.verity.map(String::from));
    line("target", shown.target.map(String::from));
    line("device", shown.device.map(String::from));
    line(
        "flags",
        (!shown.flags.is_none()).then(|| shown.flags.letters()),
    );
    line(
        "links",
        shown.links.map(|links| {
            format!(
                "{} and {} names outside the tree",
                links.least, links.outside
            )
        }),
    );
    for (name, value) in shown.xattr {
        line("xattr", Some(format!("{name} = {value}")));
    }
    line(
        "package",
        origin
            .package
            .as_ref()
            .map(|package| drift::escape(package.to_string().as_bytes())),
    );
    let rule = manifest
        .rules()
        .first_match(&entry.path)
        .map(|(_, rule)| rule.to_string());
    line(
        "rule",
        Some(rule.unwrap_or_else(|| "none: nothing of it may change".to_owned())),
    );
    lines.join("\n")
}

fn print_header(
    manifest: &UnverifiedManifest<ManifestFile>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let header = manifest.header();
    let identity = manifest.identity();
    writeln!(out, "identity  sha256 {}", identity.sha256)?;
    writeln!(out, "          blake3 {}", identity.blake3)?;
    writeln!(
        out,
        "entries   {}, {} of them regular files of {} together",
        header.entry_count,
        header.file_count,
        crate::size(header.content_bytes)
    )?;
    for filesystem in &header.filesystems {
        writeln!(
            out,
            "mounted   {} ({})",
            filesystem.mount_point,
            drift::escape(filesystem.kind.as_bytes())
        )?;
    }
    for attribute in header.not_held.iter() {
        writeln!(out, "not held  {}", attribute.word())?;
    }
    for rule in header.rules.as_slice() {
        writeln!(out, "rule      {rule}")?;
    }
    writeln!(
        out,
        "The signature was not checked here. `--json` or `--mtree` prints every entry."
    )
}
