//! A program in the agent's place: under its unit and its own confinement it tries what the agent never does, and tells
//! how that went in `/var/lib/driftmark/captive.json`.
//!
//! Usage: driftmark-lab-captive work|exec|mount|chroot

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use driftmark_kernel::confine;
use rustix::mount::MountFlags;
use rustix::net::{AddressFamily, SocketType};

/// The one place where it may write, which is the agent's own.
const TOLD: &str = "/var/lib/driftmark/captive.json";
/// Whose it is; only a lab's instance has this.
const UNIT: &str = "/run/systemd/system/captive@.service";
/// Places that a file system of an image holds.
const ELSEWHERE: [&str; 8] = [
    "/etc/captive",
    "/usr/bin/captive",
    "/home/captive",
    "/root/captive",
    "/boot/captive",
    "/tmp/captive",
    "/var/tmp/captive",
    "/var/lib/captive",
];

fn main() -> Result<()> {
    ensure!(
        Path::new(UNIT).exists(),
        "it is for an instance of a lab alone: there is no {UNIT}"
    );
    confine::give_up_capabilities().context("give up capabilities")?;
    confine::filter_calls().context("filter system calls")?;
    match std::env::args().nth(1).as_deref() {
        Some("work") => {
            let told = serde_json::to_vec(&tried()).context("write down what was tried")?;
            std::fs::write(TOLD, told).context("tell what was tried")
        }
        // Whatever is answered here is too much: the process is to end in the call.
        Some("exec") => bail!("exec answered {}", Command::new("/bin/true").exec()),
        Some("mount") => {
            let mounted = rustix::mount::mount(
                "none",
                "/mnt",
                "tmpfs",
                MountFlags::empty(),
                None::<&std::ffi::CStr>,
            );
            bail!("mount answered {mounted:?}")
        }
        Some("chroot") => bail!("chroot answered {:?}", rustix::process::chroot("/mnt")),
        other => bail!("{other:?} is nothing to try"),
    }
}

/// What was tried, and the error number that it got; none where it worked.
fn tried() -> BTreeMap<String, Option<i32>> {
    let mut tried = BTreeMap::new();
    let mut note = |what: &str, outcome: io::Result<()>| {
        let number = outcome
            .err()
            .map(|error| error.raw_os_error().unwrap_or(-1));
        tried.insert(what.to_owned(), number);
    };
    for path in ELSEWHERE {
        note(&format!("write {path}"), std::fs::write(path, "captive"));
    }
    note("remove", std::fs::remove_file("/etc/debian_version"));
    let passwd = std::fs::File::options().append(true).open("/etc/passwd");
    note("append", passwd.map(drop));
    note("start", Command::new("/bin/true").status().map(drop));
    let packets = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None);
    note("raw socket", packets.map(drop).map_err(Into::into));

    note("read shadow", std::fs::read("/etc/shadow").map(drop));
    note("name init", std::fs::read_link("/proc/1/exe").map(drop));
    note("name another user's", name_another_users());
    note("thread", std::thread::Builder::new().spawn(|| ()).map(drop));
    note(
        "listen",
        std::net::TcpListener::bind("127.0.0.1:0").map(drop),
    );
    note(
        "clone a tree",
        driftmark_kernel::Tree::private_clone("/").map(drop),
    );
    tried
}

/// Reads the program of the first process that is not root's.
fn name_another_users() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
        // A process may end meanwhile.
        let is_anothers = entry.metadata().is_ok_and(|metadata| metadata.uid() != 0);
        if is_process && is_anothers {
            match std::fs::read_link(entry.path().join("exe")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read.map(drop),
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
