//! Receives a question on the status socket; hands back one line of JSON on how the agent is.
//!
//! Only root and the agent's own user are answered (`SO_PEERCRED`), whatever the mode of the socket became.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use drift::coverage::Coverage;
use drift::report::{ImageRef, Phase};
use drift::statement::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Surroundings};
use crate::confine::Confinement;
use crate::log::Chain;

/// Where the daemon answers, unless the configuration says otherwise.
pub const SOCKET: &str = "/run/driftmark/agent.sock";

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The id that the collector issued; none before enrolment.
    pub instance: Option<String>,
    /// Its fleet.
    pub fleet: Option<String>,
    /// The collector's address.
    pub collector: Option<String>,
    /// The image that it verifies against.
    pub image: Option<ImageRef>,
    /// Why it cannot verify.
    pub unverifiable: Option<String>,
    /// Where the agent is in its life.
    pub phase: Phase,
    /// Drifts that are open.
    pub open_drifts: u64,
    /// What has and has not been verified, with the ages of the last scans.
    pub coverage: Coverage,
    /// Whether a scan is going on.
    pub scanning: bool,
    /// Seconds since the collector last answered.
    pub collector_heard_seconds_ago: Option<u64>,
    /// What went wrong with the collector last, if it does not answer now.
    pub collector_trouble: Option<String>,
    /// What is wrong with the directory that keeps identity and reports: they wait in memory then, or are lost with the
    /// next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_trouble: Option<String>,
    /// What became of programs that the image does not hold; none where they run without a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,
    /// Where a join token is waited for, if the instance is not enrolled for want of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for_token: Option<String>,
    /// Reports that wait for the collector.
    pub waiting_reports: u64,
    /// Bytes of disk that they use.
    pub spool_bytes: u64,
    /// Moments that were lost for want of room.
    pub dropped_moments: u64,
    /// When the certificate ends, seconds since 1970.
    pub certificate_ends: Option<i64>,
    /// Whether the health probe says healthy.
    pub healthy: bool,
    /// Why.
    pub health_reason: String,
    /// How far the agent has locked itself in, and what it can still see from there.
    #[serde(default)]
    pub confinement: Confinement,
    /// The agent's version.
    pub version: String,
}

/// Someone asks; the daemon's loop answers.
pub type Question = oneshot::Sender<Status>;

/// A question is answered between two steps of the loop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A status with every gap that a report names is shorter.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Listens at `path`, replacing a socket that an earlier run left there.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, StatusError> {
    let failed = |action, source| StatusError {
        action,
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|source| failed("make directory of", source))?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| {
        use std::os::unix::fs::FileTypeExt as _;
        metadata.file_type().is_socket()
    });
    if is_socket {
        std::fs::remove_file(path).map_err(|source| failed("replace", source))?;
    }
    let listener = UnixListener::bind(path).map_err(|source| failed("listen at", source))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|source| failed("protect", source))?;
    Ok(listener)
}

/// Answers one after the other for as long as it is polled, asking `questions` what to say.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = tokio::time::timeout(ANSWER_TIMEOUT, answer(stream, &questions)).await;
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(mut stream: UnixStream, questions: &mpsc::Sender<Question>) {
    let own = rustix::process::geteuid().as_raw();
    if !stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
    {
        return;
    }
    let (question, answer) = oneshot::channel();
    if questions.send(question).await.is_err() {
        return;
    }
    if let Ok(status) = answer.await {
        let mut line = serde_json::to_vec(&status).expect("a plain struct");
        line.push(b'\n');
        let _ = stream.write_all(&line).await;
    }
}

/// Asks the daemon at `socket`.
///
/// # Errors
/// It does not run, it does not answer us, or its answer cannot be understood.
pub fn ask(socket: &Path) -> Result<Status, StatusError> {
    let failed = |action, source| StatusError {
        action,
        path: socket.to_owned(),
        source,
    };
    let connection = std::os::unix::net::UnixStream::connect(socket);
    let connection = connection.map_err(|source| failed("ask the agent at", source))?;
    connection
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(|source| failed("wait for", source))?;
    let mut text = String::new();
    connection
        .take(MAX_ANSWER_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| failed("read from", source))?;
    if text.is_empty() {
        return Err(failed(
            "get an answer (only root gets one) from",
            io::ErrorKind::PermissionDenied.into(),
        ));
    }
    serde_json::from_str(&text).map_err(|error| failed("understand", error.into()))
}

/// `status`: prints how the agent at `socket` is, or where the configuration has its socket, for people or as one line
/// of JSON.
pub fn show(json: bool, socket: Option<PathBuf>) -> ExitCode {
    let configured = || match config::load(None, &Surroundings::of_the_daemon()) {
        Ok(config) => config.status_socket,
        Err(error) => {
            // It may run all the same, by the configuration that it was started with.
            eprintln!("driftmark-agent: {}", Chain(&error));
            SOCKET.into()
        }
    };
    let socket = &socket.unwrap_or_else(configured);
    match ask(socket) {
        Ok(status) if json => {
            println!(
                "{}",
                serde_json::to_string(&status).expect("a plain struct")
            );
            ExitCode::SUCCESS
        }
        Ok(status) => {
            print!("{}", for_people(&status));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("driftmark-agent: {}", Chain(&error));
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

/// `EX_UNAVAILABLE` of `sysexits.h`.
const EXIT_UNAVAILABLE: u8 = 69;

fn for_people(status: &Status) -> String {
    let none = || "none".to_owned();
    let ago = |record: &Option<drift::coverage::ScanRecord>| match record {
        Some(record) => format!(
            "{} s ago, {} entries in {} ms{}{}",
            record.age_seconds,
            record.entries,
            record.took_milliseconds,
            match record.measured {
                0 => String::new(),
                measured => format!(", {measured} files measured by fs-verity"),
            },
            record
                .ceiling_seconds
                .map_or(String::new(), |ceiling| format!(
                    ", nothing verified longer than {} s ago (at most {ceiling})",
                    record.oldest_seconds
                ))
        ),
        None => "never".to_owned(),
    };
    let image = status
        .image
        .as_ref()
        .map(|image| format!("{} {} ({})", image.name, image.version, image.build));
    let contact = match (
        status.collector_heard_seconds_ago,
        &status.collector_trouble,
    ) {
        (_, Some(trouble)) => trouble.clone(),
        (Some(seconds), None) => format!("answered {seconds} s ago"),
        (None, None) => "has not answered yet".to_owned(),
    };
    let coverage = &status.coverage;
    let phase = match status.phase {
        Phase::Starting => "starting: the first full scan has not finished",
        Phase::Running => "running",
        Phase::Stopped => "stopping",
        Phase::Unknown => "unknown",
    };
    let rows = [
        (
            "instance",
            match (&status.instance, &status.waiting_for_token) {
                (Some(instance), _) => instance.clone(),
                (None, Some(places)) => {
                    format!("not enrolled: waiting for a join token at {places}")
                }
                (None, None) => "not enrolled yet".to_owned(),
            },
        ),
        ("fleet", status.fleet.clone().unwrap_or_else(none)),
        (
            "collector",
            format!(
                "{}: {contact}",
                status.collector.clone().unwrap_or_else(none)
            ),
        ),
        (
            "certificate",
            status
                .certificate_ends
                .map_or_else(none, |end| format!("until {}", date(end))),
        ),
        (
            "image",
            image.unwrap_or_else(|| status.unverifiable.clone().unwrap_or_else(none)),
        ),
        ("phase", phase.to_owned()),
        ("full scan", ago(&coverage.seen)),
        ("quick scan", ago(&coverage.quick)),
        ("disk sweep", ago(&coverage.disk)),
        ("processes", swept(coverage.processes.as_ref())),
        (
            "verified",
            format!(
                "{} of {} entries, {} gaps",
                coverage.verified_entries, coverage.expected_entries, coverage.gap_count
            ),
        ),
        ("open drifts", status.open_drifts.to_string()),
        (
            "waiting",
            format!(
                "{} reports, {} bytes",
                status.waiting_reports, status.spool_bytes
            ),
        ),
        (
            "enforcement",
            status
                .enforcement
                .clone()
                .unwrap_or_else(|| "off".to_owned()),
        ),
        ("confined", status.confinement.for_people()),
        (
            "state",
            status
                .state_trouble
                .clone()
                .unwrap_or_else(|| "kept".to_owned()),
        ),
        (
            "probe",
            format!(
                "{}: {}",
                if status.healthy {
                    "healthy"
                } else {
                    "unhealthy"
                },
                status.health_reason
            ),
        ),
    ];
    let limits = coverage.limits.iter().map(|limit| ("limit", limit.clone()));
    rows.into_iter()
        .chain(limits)
        .map(|(name, value)| format!("{name:<12} {}\n", drift::escape(value.as_bytes())))
        .collect()
}

fn swept(record: Option<&drift::coverage::ProcessSweep>) -> String {
    record.map_or("never swept".to_owned(), |record| {
        format!(
            "swept {} s ago, {} in {} ms, {} of containers; {} programs started in containers",
            record.age_seconds,
            record.processes,
            record.took_milliseconds,
            record.containers,
            record.container_starts
        )
    })
}

fn date(seconds: i64) -> String {
    Timestamp::from_unix_seconds(seconds)
        .map_or_else(|| seconds.to_string(), |time| time.to_string())
}

/// The status socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct StatusError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}
