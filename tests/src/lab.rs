//! Receives images; hands on a small data centre: a network, addresses, and [`Instance`]s that boot in it.
//!
//! All of it lives in one [`Sandbox`], so all of it is gone with it, however the test ends. The collector runs at
//! [`COLLECTOR`] by [`Lab::command`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::image::Image;
use crate::instance::{Instance, InstanceOptions, Place};
use crate::process::finish;
use crate::sandbox::Sandbox;

/// The address on the network of everything that is no instance.
pub const COLLECTOR: &str = "10.77.0.1";
/// The bridge's own hardware address. Left to itself a bridge takes that of one of its ports, and another one when that
/// instance is gone: the others then speak to nobody until they ask again.
const BRIDGE: &str = "02:00:0a:4d:00:01";
/// The first instance's last number; those below it are for whatever a story adds.
const FIRST_INSTANCE: u8 = 11;
/// The last number that an instance may have.
const LAST_INSTANCE: u8 = 250;
/// Where the control groups of labs lie, by hierarchy, where they are mounted.
const HIERARCHIES: [&str; 3] = [
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];

/// A small data centre; dropping it ends every instance.
#[derive(Debug)]
pub struct Lab {
    sandbox: Arc<Sandbox>,
    groups: Arc<Groups>,
    mounted: Mutex<HashMap<PathBuf, PathBuf>>,
    next: AtomicU8,
    /// This machine's end of the cable to the lab.
    joined: Mutex<Option<String>>,
}

/// The control groups of one lab's instances: the only thing that no namespace takes with it.
#[derive(Debug)]
pub(crate) struct Groups {
    directories: Vec<PathBuf>,
}

impl Lab {
    /// Makes one with its network and nothing in it.
    ///
    /// # Errors
    /// See [`crate::sandbox::obstacle`].
    pub fn new() -> Result<Self> {
        sweep_groups();
        let sandbox = Sandbox::new()?;
        sandbox.shell(&format!(
            "ip link add lan address {BRIDGE} type bridge; ip addr add {COLLECTOR}/24 dev lan; ip link set lan up"
        ))?;
        let groups = Groups::new(sandbox.name())?;
        Ok(Self {
            sandbox: Arc::new(sandbox),
            groups: Arc::new(groups),
            mounted: Mutex::default(),
            next: AtomicU8::new(FIRST_INSTANCE),
            joined: Mutex::default(),
        })
    }

    /// The private machine that the lab is.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The same, to be kept as long as something runs in it.
    pub fn shared_sandbox(&self) -> Arc<Sandbox> {
        Arc::clone(&self.sandbox)
    }

    /// A directory that the lab and this process see under the same path.
    pub fn directory(&self) -> &Path {
        self.sandbox.directory()
    }

    /// A command that runs on the lab's network, at [`COLLECTOR`]: the collector, its command line, `curl`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.sandbox.command(program)
    }

    /// Boots an instance of `image` and waits until all its units, the agent's among them, are ready.
    ///
    /// # Errors
    /// It did not come up; the message has its console.
    pub fn boot(&self, image: &Image, name: &str, options: &InstanceOptions) -> Result<Instance> {
        let lower = self.mount(image)?;
        let address = self.next_address()?;
        let place = Place {
            sandbox: Arc::clone(&self.sandbox),
            groups: Arc::clone(&self.groups),
            lower,
            address,
        };
        Instance::boot(place, name, options)
    }

    /// An address on the network that nobody has had.
    pub(crate) fn next_address(&self) -> Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ensure!(
            (FIRST_INSTANCE..=LAST_INSTANCE).contains(&number),
            "a lab has addresses for 240 instances"
        );
        Ok(format!("10.77.0.{number}"))
    }

    /// Boots several at once, each with its own options.
    ///
    /// # Errors
    /// The first that did not come up.
    pub fn boot_all(
        &self,
        image: &Image,
        instances: &[(&str, InstanceOptions)],
    ) -> Result<Vec<Instance>> {
        std::thread::scope(|scope| {
            let booting: Vec<_> = instances
                .iter()
                .map(|(name, options)| scope.spawn(move || self.boot(image, name, options)))
                .collect();
            booting
                .into_iter()
                .map(|thread| thread.join().expect("booting does not panic"))
                .collect()
        })
    }

    /// Joins this machine to the lab's network, so that a person's browser reaches it: gives this machine's address.
    ///
    /// # Errors
    /// The interface cannot be made.
    pub fn join_from_here(&self) -> Result<String> {
        let address = "10.77.0.254";
        let interface = format!("dm{}", std::process::id());
        let anchor = self.sandbox.anchor();
        let line = format!(
            "ip link add {interface} type veth peer name here netns {anchor}; \
             ip addr add {address}/24 dev {interface}; ip link set {interface} up"
        );
        crate::process::run(Command::new("sh").args(["-euc", &line]))?;
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(interface);
        self.sandbox.shell("ip link set here master lan up")?;
        Ok(address.to_owned())
    }

    /// Mounts an image's file system, once for all its instances.
    fn mount(&self, image: &Image) -> Result<PathBuf> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lower) = mounted.get(&image.file_system) {
            return Ok(lower.clone());
        }
        let lower = self.directory().join(format!("image-{}", mounted.len()));
        fs::create_dir(&lower).with_context(|| format!("make {}", lower.display()))?;
        crate::process::run(
            self.command("mount")
                .args(["-o", "loop,ro"])
                .arg(&image.file_system)
                .arg(&lower),
        )?;
        mounted.insert(image.file_system.clone(), lower.clone());
        Ok(lower)
    }
}

impl Groups {
    fn new(name: &str) -> Result<Self> {
        let on_hybrid = Path::new(HIERARCHIES[0]).is_dir();
        let hierarchies = if on_hybrid {
            &HIERARCHIES[..2]
        } else {
            &HIERARCHIES[2..]
        };
        let directories: Vec<_> = hierarchies
            .iter()
            .map(Path::new)
            .filter(|path| path.is_dir())
            .map(|path| path.join(name))
            .collect();
        for directory in &directories {
            fs::create_dir_all(directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        Ok(Self { directories })
    }

    /// A group for one instance in every hierarchy.
    pub(crate) fn for_instance(&self, name: &str) -> Result<Vec<PathBuf>> {
        let groups: Vec<_> = self
            .directories
            .iter()
            .map(|directory| directory.join(name))
            .collect();
        for group in &groups {
            fs::create_dir_all(group).with_context(|| format!("make {}", group.display()))?;
        }
        Ok(groups)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Connections that nobody closed keep the lab's network, and with it the cable, for minutes.
        if let Some(interface) = self
            .joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            let _ = finish(Command::new("ip").args(["link", "del", &interface]));
        }
        // Instances that outlive their lab keep its sandbox, and end with it.
        self.mounted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for directory in &self.directories {
            // The kernel may still be at work on the last process in there; what is left, the next lab sweeps.
            let _ =
                crate::patience::until("empty groups", std::time::Duration::from_secs(3), || {
                    remove_group(directory);
                    Ok((!directory.exists()).then_some(()))
                });
        }
    }
}

/// Removes a control group and those below it, as far as they are empty.
pub(crate) fn remove_group(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Removes the groups of labs whose process was killed.
fn sweep_groups() {
    for entry in HIERARCHIES
        .iter()
        .filter_map(|path| fs::read_dir(path).ok())
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix("driftmark-")?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            remove_group(&entry.path());
        }
    }
}
