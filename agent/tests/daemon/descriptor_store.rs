//! A service manager for the tests, as far as it keeps descriptors (sd_notify(3), `FDSTORE=1`) and passes them on.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::instance::{AGENT, Instance, Running};

/// Descriptors, by name.
type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

pub(crate) struct DescriptorStore {
    socket: PathBuf,
    kept: Kept,
}

impl DescriptorStore {
    /// Listens in this directory.
    pub(crate) fn start(directory: &Path) -> DescriptorStore {
        let socket = directory.join("notify.sock");
        let listening = UnixDatagram::bind(&socket).unwrap();
        let kept = Kept::default();
        let keeps = Arc::clone(&kept);
        std::thread::spawn(move || listen(&listening, &keeps));
        DescriptorStore { socket, kept }
    }

    /// The names of what it keeps.
    pub(crate) fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        let mut names: Vec<_> = kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Starts the agent, and passes to it all that was kept. It is still kept.
    pub(crate) fn run(&self, instance: &Instance) -> Running {
        let kept = self.kept.lock().unwrap();
        // Out of the way of the numbers that they are passed as, and inherited.
        let passed: Vec<OwnedFd> = kept
            .iter()
            .map(|(_, descriptor)| inherited(descriptor))
            .collect();
        let numbers = passed.iter().zip(3..);
        let redirect = |(from, to): (&OwnedFd, i32)| format!("exec {to}<&{}; ", from.as_raw_fd());
        let redirects: String = numbers.map(redirect).collect();
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let mut command = Command::new("bash");
        command.env("NOTIFY_SOCKET", &self.socket);
        command.env("LISTEN_FDS", passed.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        let script = format!("{redirects}export LISTEN_PID=$$; exec \"$0\" \"$@\"");
        command.args(["-euc", &script, AGENT]);
        instance.start_by(command)
    }
}

fn inherited(descriptor: &OwnedFd) -> OwnedFd {
    let passed = rustix::io::fcntl_dupfd_cloexec(descriptor, 200).unwrap();
    rustix::io::fcntl_setfd(&passed, rustix::io::FdFlags::empty()).unwrap();
    passed
}

fn listen(socket: &UnixDatagram, kept: &Kept) {
    let mut words = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut words)];
        let length = recvmsg(socket, &mut into, &mut with, RecvFlags::CMSG_CLOEXEC)
            .unwrap()
            .bytes;
        let descriptors = with.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
        let text = String::from_utf8_lossy(&words[..length]).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let says = |word: &str| text.lines().any(|line| line == word);
        let mut kept = kept.lock().unwrap();
        if says("FDSTOREREMOVE=1") {
            kept.retain(|(kept, _)| Some(kept.as_str()) != name);
        } else if says("FDSTORE=1") {
            assert!(says("FDPOLL=0"), "else each event wakes it: {text}");
            let name = name.unwrap().to_owned();
            kept.extend(descriptors.into_iter().map(|one| (name.clone(), one)));
        }
    }
}
