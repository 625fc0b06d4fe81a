//! Receives a distribution's name; hands on what a root file system of it is made from, whatever this machine runs.
//!
//! The packages are what the distribution's own cloud images have and what writes to disk: what they leave out (a
//! kernel, a boot loader's install, documentation) writes nothing while an instance runs.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::apt::Source;
use crate::image::{Recipe, Workshop};
use crate::process::run;

/// A distribution for which rules ship, and whose packages can be had here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// bookworm
    Debian12,
    /// trixie
    Debian13,
    /// jammy
    Ubuntu2204,
    /// noble
    Ubuntu2404,
}

/// Everything that a cloud image of any of them has.
const COMMON: &str = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,ca-certificates,openssh-server,cron,logrotate,rsyslog,\
    systemd-timesyncd,sudo,unattended-upgrades,man-db,locales,libpam-systemd,netplan.io,cloud-init,cloud-guest-utils,\
    e2fsprogs,procps,bash-completion,login,passwd,apt-utils,systemd-container,less,grub-common,apparmor";
/// What Ubuntu's server images have besides.
const UBUNTU: &str = "snapd,update-notifier-common,apport,pollinate,ufw,packagekit,udisks2,command-not-found,\
    landscape-common,update-manager-core,open-vm-tools,multipath-tools";
const UBUNTU_MIRROR: &str = "http://archive.ubuntu.com/ubuntu";
const DEBIAN_MIRROR: &str = "http://deb.debian.org/debian";
/// Ubuntu's archive keys, which Debian does not package: of this name they stay what they are.
const UBUNTU_KEYS: (&str, &str) = (
    "http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb",
    "0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f",
);
/// A mirror that does not answer a connection by then is not to be had.
const MIRROR_LIMIT: Duration = Duration::from_secs(10);

impl Distribution {
    /// All of them.
    pub const ALL: [Distribution; 4] = [
        Distribution::Debian12,
        Distribution::Debian13,
        Distribution::Ubuntu2204,
        Distribution::Ubuntu2404,
    ];

    /// `ID-VERSION_ID` of its os-release.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Debian12 => "debian-12",
            Distribution::Debian13 => "debian-13",
            Distribution::Ubuntu2204 => "ubuntu-22.04",
            Distribution::Ubuntu2404 => "ubuntu-24.04",
        }
    }

    /// Its code name.
    pub fn suite(self) -> &'static str {
        match self {
            Distribution::Debian12 => "bookworm",
            Distribution::Debian13 => "trixie",
            Distribution::Ubuntu2204 => "jammy",
            Distribution::Ubuntu2404 => "noble",
        }
    }

    /// Whether it is one of Ubuntu's.
    pub fn is_ubuntu(self) -> bool {
        matches!(self, Distribution::Ubuntu2204 | Distribution::Ubuntu2404)
    }

    /// An image of it, of its own name, with what a pipeline takes out before it bakes.
    pub fn recipe(self, version: &str) -> Recipe {
        // Who wires the lab is no systemd-networkd, and some wait two minutes for one.
        Recipe::new(self.name(), version)
            .distribution(self)
            .step("systemctl mask systemd-networkd-wait-online.service")
            .step("rm -f /etc/ssh/ssh_host_*; rm -rf /var/lib/apt/lists/*; mkdir -p /boot/grub; grub-editenv create")
    }

    /// The packages of the image.
    pub(crate) fn packages(self) -> Vec<String> {
        let more = match self {
            Distribution::Debian12 | Distribution::Debian13 => "systemd-resolved,polkitd",
            Distribution::Ubuntu2204 => "policykit-1,ubuntu-advantage-tools",
            Distribution::Ubuntu2404 => "systemd-resolved,polkitd,ubuntu-pro-client",
        };
        let ubuntu = self.is_ubuntu().then_some(UBUNTU);
        let lists = [Some(COMMON), Some(more), ubuntu];
        let names = lists.into_iter().flatten().flat_map(|list| list.split(','));
        names.map(str::to_owned).collect()
    }

    /// Where its packages come from.
    pub(crate) fn source(self, workshop: &Workshop) -> Result<Source> {
        let suite = self.suite().to_owned();
        if self.is_ubuntu() {
            let components = "main,universe".to_owned();
            let line = |pocket: &str| format!("deb {UBUNTU_MIRROR} {suite}-{pocket} main universe");
            return Ok(Source {
                mirror: UBUNTU_MIRROR.to_owned(),
                components,
                keyring: Some(ubuntu_keyring(workshop)?),
                updates: vec![line("updates"), line("security")],
                suite,
            });
        }
        let own = Source::of_this_machine().ok();
        let mirror = own.map(|source| source.mirror);
        let mirror = mirror
            .filter(|mirror| mirror.contains("/debian"))
            .unwrap_or_else(|| DEBIAN_MIRROR.to_owned());
        let security = mirror.trim_end_matches('/').to_owned() + "-security";
        Ok(Source {
            components: "main".to_owned(),
            keyring: None,
            updates: vec![
                format!("deb {mirror} {suite}-updates main"),
                format!("deb {security} {suite}-security main"),
            ],
            mirror,
            suite,
        })
    }

    /// Why an image of it cannot be made here; nothing if it can. Debian's can wherever this can be tested at all.
    pub fn obstacle(self) -> Option<String> {
        if !self.is_ubuntu() {
            return None;
        }
        let host = UBUNTU_MIRROR.split('/').nth(2).unwrap_or_default();
        let mut addresses = (host, 80).to_socket_addrs().into_iter().flatten();
        let answers =
            addresses.any(|address| TcpStream::connect_timeout(&address, MIRROR_LIMIT).is_ok());
        (!answers).then(|| format!("needs {host}, which does not answer"))
    }
}

/// Ubuntu's archive keys, as a file for apt.
fn ubuntu_keyring(workshop: &Workshop) -> Result<PathBuf> {
    let (address, sha256) = UBUNTU_KEYS;
    let package = workshop.fetched(address, sha256)?;
    let directory = workshop.directory().join("ubuntu-keyring");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&directory))
    .context("unpack Ubuntu's keys")?;
    Ok(directory.join("usr/share/keyrings/ubuntu-archive-keyring.gpg"))
}
