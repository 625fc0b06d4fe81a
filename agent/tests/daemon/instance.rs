//! A tree with its image and the agent's own files in; a daemon that runs on it out.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_driftmark-agent");

/// An instance: a tree, its image, and the agent's own files.
pub(crate) struct Instance {
    pub(crate) home: tempfile::TempDir,
    pub(crate) probe: SocketAddr,
}

pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Instance {
    pub(crate) fn new(token: &str) -> Self {
        Instance::within(&std::env::temp_dir(), token)
    }

    /// One whose files all lie in this directory.
    pub(crate) fn within(directory: &Path, token: &str) -> Self {
        let home = tempfile::tempdir_in(directory).unwrap();
        let probe = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let instance = Instance { home, probe };
        std::fs::create_dir_all(instance.path("root/etc")).unwrap();
        std::fs::write(instance.path("root/etc/motd"), "welcome\n").unwrap();
        std::fs::write(instance.path("token"), token).unwrap();
        let config = format!(
            "root = \"{home}/root\"\nstate-directory = \"{home}/state\"\nstatus-socket = \"{home}/agent.sock\"\n\
             [enroll]\ntoken-file = \"{home}/token\"\n[scan]\nquick-interval = \"1s\"\nprocess-interval = \"off\"\nfirst-boot-window = \"0s\"\n\
             [image]\nmanifest = \"{home}/image/image.manifest\"\ntrust = [\"{home}/keys/driftmark.pub\"]\n\
             [probe]\nlisten = \"{probe}\"\n",
            home = instance.home.path().display(),
        );
        std::fs::write(instance.path("agent.toml"), config).unwrap();
        instance
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn bake(&self) {
        let home = self.home.path();
        agent(home, &["keygen", "--output", "keys"]);
        let key = ["--key", "keys/driftmark.key"];
        agent(
            home,
            &[
                &[
                    "bake",
                    "--root",
                    "root",
                    "--name",
                    "web",
                    "--version",
                    "1",
                    "--output",
                    "image",
                    "--rules",
                    "none",
                ][..],
                &key,
            ]
            .concat(),
        );
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, surroundings: &[(&str, &str)]) -> Running {
        let mut command = Command::new(AGENT);
        command
            .env_remove("NOTIFY_SOCKET")
            .envs(surroundings.iter().copied());
        self.start_by(command)
    }

    /// Starts it by a command that ends in running what its arguments say.
    pub(crate) fn start_by(&self, mut command: Command) -> Running {
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("agent.toml"));
        command.stderr(
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(self.path("log"))
                .unwrap(),
        );
        Running {
            child: command.spawn().unwrap(),
        }
    }

    /// The status, if the agent answers yet.
    pub(crate) fn try_status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.ask(&["--json"]).stdout).ok()
    }

    /// The status as people see it.
    pub(crate) fn shown_status(&self) -> String {
        String::from_utf8(self.ask(&[]).stdout).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let told = succeeded(self.ask(&["--json"]), "status");
        serde_json::from_slice(&told).unwrap()
    }

    fn ask(&self, options: &[&str]) -> Output {
        let mut command = Command::new(AGENT);
        command.arg("status").args(options);
        command.arg("--socket").arg(self.path("agent.sock"));
        command.output().unwrap()
    }

    pub(crate) fn health(&self) -> (u16, String) {
        let mut stream = TcpStream::connect(self.probe).unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }
}

impl Running {
    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

fn agent(directory: &Path, arguments: &[&str]) {
    let output = Command::new(AGENT)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    succeeded(output, &format!("{arguments:?}"));
}

fn succeeded(output: Output, what: &str) -> Vec<u8> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
    output.stdout
}
