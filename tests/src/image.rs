//! Receives a recipe; hands on an image: a real root file system with the agent installed, baked, signed and packed.
//!
//! Debian's own tools make the file system, once per machine and package list; the agent that was just built is
//! installed the way its package does it, and bakes. Both steps are kept, under a lock, so that tests that run side by
//! side wait for one build instead of each making one.

mod root;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use self::root::{
    AGENT_FILES, HOME, in_root, install, install_package, installed_tree, make_anonymous, pack,
    unpack, write,
};
use crate::apt::Source;
use crate::distribution::Distribution;
use crate::process::run;
use crate::vm::{self, Kernel};

/// What every image has: an init, its bus, a network tool, and the certificates of the world.
const PACKAGES: [&str; 5] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "ca-certificates",
];
/// Finished images that are kept, the newest; each is some 200 MB, and every new build of the agent makes others.
const IMAGES_KEPT: usize = 6;

/// Where images are made and kept.
#[derive(Debug, Clone)]
pub struct Workshop {
    directory: PathBuf,
}

/// A key pair as `driftmark-agent keygen` makes it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The private key.
    pub private: PathBuf,
    /// The public key, which an image trusts.
    pub public: PathBuf,
}

/// A file that an image has besides its packages.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Where, absolute.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    version: String,
    packages: Vec<String>,
    files: Vec<ImageFile>,
    distribution: Option<Distribution>,
    steps: Vec<String>,
    package: Option<PathBuf>,
    kernel: Option<Kernel>,
    rules: Option<String>,
}

/// A finished image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The packed root file system, read-only when mounted.
    pub file_system: PathBuf,
    /// A copy of the manifest in it; not there without an agent.
    pub manifest: PathBuf,
    /// A copy of the manifest's signature.
    pub signature: PathBuf,
    /// The image's name.
    pub name: String,
    /// The image's version.
    pub version: String,
    /// What it boots with as a virtual machine: `file_system` is then the raw disk.
    pub kernel: Option<Kernel>,
}

impl Workshop {
    /// The one in `DRIFTMARK_LAB`, else in cargo's target directory.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn open() -> Result<Self> {
        let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/driftmark-lab");
        let directory =
            std::env::var_os("DRIFTMARK_LAB").map_or_else(|| PathBuf::from(usual), PathBuf::from);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self {
            directory: directory.canonicalize().context("find the workshop")?,
        })
    }

    /// A key pair that is made once and kept, so that finished images can be kept too.
    ///
    /// # Errors
    /// The agent makes none.
    pub fn keys(&self, agent: &Path) -> Result<Keys> {
        let _lock = self.lock("keys")?;
        let keys = Keys::below(&self.directory.join("keys"));
        if !keys.public.exists() {
            let _ = fs::remove_dir_all(self.directory.join("keys"));
            return Keys::make(agent, &self.directory.join("keys"));
        }
        Ok(keys)
    }

    /// The root file system of these packages as a tar, made if it was not made before.
    fn base(&self, source: &Source, packages: &[String]) -> Result<PathBuf> {
        let list = packages.join(",");
        let key = blake3::hash(format!("{source:?} {list}").as_bytes()).to_hex();
        let base = self
            .directory
            .join(format!("base-{}-{}.tar", source.suite, &key[..16]));
        let _lock = self.lock("base")?;
        if base.exists() {
            return Ok(base);
        }
        let unfinished = base.with_extension("unfinished.tar");
        run(Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--mode=root"])
            .arg(format!("--components={}", source.components))
            .arg(format!("--include={list}"))
            .args(
                source
                    .keyring
                    .iter()
                    .map(|keyring| format!("--keyring={}", keyring.display())),
            )
            .arg(&source.suite)
            .arg(&unfinished)
            .arg(format!(
                "deb {} {} {}",
                source.mirror,
                source.suite,
                source.components.replace(',', " ")
            ))
            .args(&source.updates))
        .context("make a root file system")?;
        fs::rename(&unfinished, &base).context("keep the root file system")?;
        Ok(base)
    }

    /// A file that is fetched once and kept, if it is what it has to be.
    ///
    /// # Errors
    /// It cannot be fetched, or is something else.
    pub(crate) fn fetched(&self, address: &str, sha256: &str) -> Result<PathBuf> {
        let name = address.rsplit('/').next().context("an address of a file")?;
        let file = self.directory.join(name);
        let _lock = self.lock("fetch")?;
        if !file.exists() {
            let unfinished = self.directory.join(format!("{name}.unfinished"));
            run(Command::new("curl")
                .args([
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--location",
                    "--output",
                ])
                .arg(&unfinished)
                .arg(address))?;
            let bytes = fs::read(&unfinished).context("read what was fetched")?;
            let digest = Sha256::digest(&bytes);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            ensure!(digest == sha256, "{address} has SHA-256 {digest}");
            fs::rename(&unfinished, &file).context("keep what was fetched")?;
        }
        Ok(file)
    }

    /// Where it keeps things.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// One lock for each kind of work; it is let go when the file is closed.
    pub(crate) fn lock(&self, work: &str) -> Result<File> {
        let path = self.directory.join(format!("{work}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        file.lock()
            .with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// Removes all finished images but the newest.
    fn prune(&self) -> Result<()> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.directory)
            .context("list the workshop")?
            .flatten()
        {
            if entry.file_name().as_encoded_bytes().starts_with(b"image-") {
                images.push((
                    entry
                        .metadata()
                        .and_then(|metadata| metadata.modified())
                        .ok(),
                    entry.path(),
                ));
            }
        }
        images.sort();
        for (_, path) in images.iter().rev().skip(IMAGES_KEPT) {
            fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Keys {
    /// Makes a pair in this directory.
    ///
    /// # Errors
    /// The agent makes none.
    pub fn make(agent: &Path, directory: &Path) -> Result<Self> {
        run(Command::new(agent)
            .arg("keygen")
            .arg("--output")
            .arg(directory))
        .context("make a key pair")?;
        Ok(Self::below(directory))
    }

    fn below(directory: &Path) -> Self {
        Self {
            private: directory.join("driftmark.key"),
            public: directory.join("driftmark.pub"),
        }
    }
}

impl Recipe {
    /// An image of this name and version with nothing but the base and the agent.
    pub fn new(name: &str, version: &str) -> Self {
        let packages = PACKAGES.map(str::to_owned).to_vec();
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            packages,
            files: Vec::new(),
            distribution: None,
            steps: Vec::new(),
            package: None,
            kernel: None,
            rules: None,
        }
    }

    /// With the agent from this package, which its own tools install, in place of the program that cargo built.
    #[must_use]
    pub fn agent_package(mut self, package: PathBuf) -> Self {
        self.package = Some(package);
        self
    }

    /// Of this distribution, whatever this machine is, with what its cloud images have.
    #[must_use]
    pub fn distribution(mut self, distribution: Distribution) -> Self {
        self.distribution = Some(distribution);
        self.packages = distribution.packages();
        self
    }

    /// With this line of shell run in the root, as a pipeline's provisioner does, before the agent is installed.
    #[must_use]
    pub fn step(mut self, line: &str) -> Self {
        self.steps.push(line.to_owned());
        self
    }

    /// With this package of the distribution too.
    #[must_use]
    pub fn package(mut self, name: &str) -> Self {
        self.packages.push(name.to_owned());
        self
    }

    /// Baked with this rule file before those of the distribution.
    #[must_use]
    pub fn rules(mut self, text: &str) -> Self {
        self.rules = Some(text.to_owned());
        self
    }

    /// With this file too: configuration in `/usr/lib/driftmark/agent.d`, say.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(ImageFile {
            path: path.to_owned(),
            mode,
            content: content.into(),
        });
        self
    }

    /// As the disk of a virtual machine that boots this kernel.
    #[must_use]
    pub fn kernel(mut self, kernel: &Kernel) -> Self {
        self.packages.extend(vm::PACKAGES.map(str::to_owned));
        self.kernel = Some(kernel.clone());
        self
    }

    /// Makes the image with `agent` installed in it, and baked and signed by it.
    ///
    /// # Errors
    /// A step did not work; the message has its output.
    pub fn build(&self, workshop: &Workshop, agent: &Path, keys: &Keys) -> Result<Image> {
        self.make(workshop, Some((agent, keys)))
    }

    /// Makes the image without agent and manifest: what the rest of the world boots.
    ///
    /// # Errors
    /// A step did not work; the message has its output.
    pub fn build_without_agent(&self, workshop: &Workshop) -> Result<Image> {
        self.make(workshop, None)
    }

    /// Unpacks the root file system of its packages at `root`, without agent and manifest, for another to make an image of.
    ///
    /// # Errors
    /// A step did not work; the message has its output.
    pub fn unpack(&self, workshop: &Workshop, root: &Path) -> Result<()> {
        unpack(&self.base(workshop)?, root)
    }

    /// The root file system of its packages, as a tar.
    fn base(&self, workshop: &Workshop) -> Result<PathBuf> {
        let source = match self.distribution {
            Some(distribution) => distribution.source(workshop)?,
            None => Source::of_this_machine()?,
        };
        workshop.base(&source, &self.packages)
    }

    fn make(&self, workshop: &Workshop, agent: Option<(&Path, &Keys)>) -> Result<Image> {
        let base = self.base(workshop)?;
        let directory = workshop
            .directory
            .join(format!("image-{}", self.key(&base, agent)?));
        let image = Image {
            file_system: directory.join("root.image"),
            manifest: directory.join("image.manifest"),
            signature: directory.join("image.manifest.sig"),
            name: self.name.clone(),
            version: self.version.clone(),
            kernel: self.kernel.clone(),
        };
        let _lock = workshop.lock("image")?;
        if directory.exists() {
            return Ok(image);
        }
        let work = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&workshop.directory)
            .context("make a directory")?;
        let (root, finished) = (work.path().join("root"), work.path().join("image"));
        fs::create_dir(&finished).context("make a directory for an image")?;
        unpack(&base, &root)?;
        for step in &self.steps {
            in_root(&root, step)?;
        }
        make_anonymous(&root)?;
        for file in &self.files {
            write(&root, &file.path, file.mode, &file.content)?;
        }
        if let Some(kernel) = &self.kernel {
            vm::prepare(&root, kernel)?;
        }
        if let Some((agent, keys)) = agent {
            match &self.package {
                Some(package) => install_package(&root, package, &keys.public)?,
                None => install(&root, agent, &keys.public)?,
            }
            self.bake(&root, agent, &keys.private)?;
            for name in ["image.manifest", "image.manifest.sig"] {
                let from = root.join(HOME).join(name);
                fs::copy(&from, finished.join(name))
                    .with_context(|| format!("copy {}", from.display()))?;
            }
        }
        match &self.kernel {
            Some(_) => vm::pack(&root, &finished.join("root.image"))?,
            None => pack(&root, &finished.join("root.image"))?,
        }
        fs::rename(&finished, &directory).context("keep the image")?;
        workshop.prune()?;
        Ok(image)
    }

    fn bake(&self, root: &Path, agent: &Path, key: &Path) -> Result<()> {
        let mut bake = Command::new(agent);
        bake.arg("bake")
            .arg("--root")
            .arg(root)
            .args(["--name", &self.name, "--version", &self.version])
            .arg("--key")
            .arg(key)
            .arg("--output")
            .arg(root.join(HOME));
        let mut file = tempfile::NamedTempFile::new().context("make a rule file")?;
        if let Some(rules) = &self.rules {
            file.write_all(rules.as_bytes())
                .context("write a rule file")?;
            bake.arg("--rules").arg(file.path());
        }
        run(&mut bake).context("bake the image")?;
        Ok(())
    }

    /// Names everything that the image depends on.
    fn key(&self, base: &Path, agent: Option<(&Path, &Keys)>) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{base:?}{self:?}").as_bytes());
        if let Some(package) = &self.package {
            let content =
                fs::read(package).with_context(|| format!("read {}", package.display()))?;
            hasher.update(blake3::hash(&content).as_bytes());
        }
        if let Some((agent, keys)) = agent {
            let units = AGENT_FILES.map(installed_tree);
            for path in units
                .iter()
                .map(PathBuf::as_path)
                .chain([agent, &keys.public])
            {
                let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
                hasher.update(blake3::hash(&content).as_bytes());
            }
        }
        Ok(hasher.finalize().to_hex()[..24].to_owned())
    }
}
