//! The command line of `bake`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::RulesChoice;

/// Bake the manifest of an image: as the very last step of its pipeline, in the image, on its mounted root, or straight
/// from its disk or tar.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["root", "disk", "tar"])))]
#[command(after_help = "\
Nothing is written to what is read. Root, disk and qcow2 of one image give the same bytes; a tar carries
no file flags and often no extended attributes, and what it does not carry is not held.

Examples:
  driftmark-agent keygen --output keys
  driftmark-agent bake --root /mnt/image --name web --version 2026.11.1 --key keys/driftmark.key --output /mnt/image/usr/lib/driftmark
  driftmark-agent bake --disk web.qcow2 --name web --version 2026.11.1 --key keys/driftmark.key --output out
  docker export web | driftmark-agent bake --tar - --name web --version 2026.11.1 --key keys/driftmark.key --output out
  driftmark-agent bake --root / --name web --version 7 --output /tmp/out   # then sign elsewhere: see `sign --help`")]
pub struct BakeArguments {
    /// The root of the image's file system, mounted; `/` in the image itself.
    #[arg(long, value_name = "ROOT")]
    pub root: Option<PathBuf>,
    /// A disk image, raw or qcow2, or a block device; its partitions and journals are left as they are.
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// A tar of the root file system, as `docker export` makes it; `-` for standard input.
    #[arg(long, value_name = "FILE|-")]
    pub tar: Option<PathBuf>,
    /// Which partition of the disk has the root [default: the one with an os-release].
    #[arg(long, value_name = "N", requires = "disk")]
    pub partition: Option<u32>,
    /// The image's name.
    #[arg(long)]
    pub name: String,
    /// The image's version.
    #[arg(long)]
    pub version: String,
    /// Where to write image.manifest and image.manifest.sig, or image.statement.json without --key.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// The private key to sign with (PKCS#8 PEM, Ed25519 or ECDSA P-256); keep it out of the image.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Rules of your own, which come before the distribution's; or `none` for no rules at all. May be repeated.
    #[arg(long = "rules", value_name = "FILE|none")]
    pub rules: Vec<PathBuf>,
    /// Which build of the version this is [default: the architecture].
    #[arg(long, value_name = "NAME")]
    pub build: Option<String>,
    /// The revision of the source that the image was built from.
    #[arg(long, value_name = "REVISION")]
    pub source_revision: Option<String>,
    /// Who approved it.
    #[arg(long, value_name = "WHO")]
    pub approved_by: Option<String>,
    /// What built it.
    #[arg(long, value_name = "WHAT")]
    pub builder: Option<String>,
    /// Its software bill of materials, whose digest is signed along.
    #[arg(long, value_name = "FILE")]
    pub sbom: Option<PathBuf>,
    /// The manifest of the image that it was made from.
    #[arg(long, value_name = "MANIFEST")]
    pub parent: Option<PathBuf>,
    /// Another local file system of the image by its mount point, beside those in its fstab; `none` ignores the fstab.
    #[arg(long = "filesystem", value_name = "MOUNTPOINT|none")]
    pub filesystems: Vec<PathBuf>,
    /// Threads that read and hash [default: one per core].
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Refuse an image with traces of an instance (machine id, host keys, histories, …) instead of warning about them.
    #[arg(long)]
    pub strict: bool,
    /// Print what was baked as JSON.
    #[arg(long)]
    pub json: bool,
}

impl BakeArguments {
    /// What `--rules` asks for.
    pub fn rules_choice(&self) -> RulesChoice {
        match &self.rules[..] {
            [] => RulesChoice::Distribution,
            [only] if only.as_os_str() == "none" => RulesChoice::Nothing,
            files => RulesChoice::Files(files.to_vec()),
        }
    }
}
