//! Receives an order and the operator's program, and hands on the replacement that the program names, or why not.
//!
//! The program gets one JSON object on its standard input:
//!
//! ```json
//! {"order":"o-…","generation":1,"fleet":"web","reason":"2 drifts are open, the worst high",
//!  "instance":{"id":"i-…","cloud_id":"vm-7"},"drifts":{"count":2,"worst":"high"},
//!  "image":{"name":"web","version":"1.2","build":"amd64","manifest":"…",
//!           "artifacts":[{"platform":"aws","kind":"eu-west-1","id":"ami-…","signed":false}]}}
//! ```
//!
//! `artifacts` is what that build is called where it runs, the latest first, as `image add --artifact` and `image
//! artifact` said; `signed` where a key vouches for it that is trusted now, and not only an operator.
//!
//! It terminates the instance of that cloud id, starts another one from that image, and prints
//! `{"replacement":"CLOUD-ID"}` as its last line of JSON. Any exit but 0, another last line, or running out of time is a
//! failure. **It must be idempotent on the order's id**: after a crash of the collector it is run again with the same
//! id and generation, and must then name the replacement that it made the first time.
//!
//! It runs as the collector's unit leaves it, outside the collector's own confinement (see `launch`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use drift::class::Severity;
use drift::report::ImageRef;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::launch::{Launched, Launcher};
use crate::image::ShownArtifact;
use crate::instance::Instance;
use crate::store::orders::OrderRow;

/// How much of each stream is looked at: its end, where the replacement is named and errors are told.
const KEPT_BYTES: usize = 64 * 1024;
/// How much of each stream the ledger keeps.
const NOTED_BYTES: usize = 4 * 1024;
/// How long streams may stay open after the program ended: something else may hold them.
const DRAIN: Duration = Duration::from_secs(2);

/// The operator's program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may run.
    pub timeout: Duration,
}

/// What the program is told.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    order: String,
    generation: u64,
    fleet: String,
    reason: String,
    instance: Target,
    drifts: Summary,
    image: Option<Wanted>,
}

/// The image to replace with, and what it is called where it runs.
#[derive(Debug, Clone, Serialize)]
struct Wanted {
    #[serde(flatten)]
    image: ImageRef,
    artifacts: Vec<Called>,
}

/// One name of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Called {
    platform: String,
    kind: String,
    id: String,
    signed: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Target {
    id: String,
    cloud_id: Option<String>,
}

/// What is open on the instance when the program starts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    count: u64,
    worst: Option<Severity>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The cloud id that it named, or why there is none.
    pub replacement: Result<String, String>,
    /// What it left behind.
    pub output: Output,
}

/// The end of a program's output.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Its exit code; none if it was ended by a signal, or never began.
    pub exit: Option<i32>,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
}

impl Request {
    /// What is told of an order, its instance, and what the image to replace with is called.
    pub fn of(
        order: &OrderRow,
        instance: Option<&Instance>,
        artifacts: Vec<ShownArtifact>,
    ) -> Self {
        let summary = |instance: &Instance| Summary {
            count: instance.open + instance.raised,
            worst: instance.severity.clone(),
        };
        Request {
            order: order.id.clone(),
            generation: order.generation,
            fleet: order.fleet.clone(),
            reason: order.reason.clone(),
            instance: Target {
                id: order.instance.clone(),
                cloud_id: order.cloud_id.clone(),
            },
            drifts: instance.map(summary).unwrap_or_default(),
            image: order.image.clone().map(|image| Wanted {
                image,
                artifacts: artifacts.into_iter().flat_map(called).collect(),
            }),
        }
    }
}

fn called(artifact: ShownArtifact) -> impl Iterator<Item = Called> {
    let signed = artifact.signers.len() > artifact.revoked_signers.len();
    let platform = artifact.platform;
    artifact.ids.into_iter().map(move |(kind, id)| Called {
        platform: platform.clone(),
        kind,
        id,
        signed,
    })
}

impl Outcome {
    /// What becomes of an order whose fleet has another replacer by now.
    pub fn without_command() -> Self {
        Outcome::failed("the fleet's replacer is no command any more")
    }

    fn failed(why: impl Into<String>) -> Self {
        Outcome {
            replacement: Err(why.into()),
            output: Output::default(),
        }
    }
}

/// Runs the program once. Dropping the future ends it.
pub async fn run(launcher: &Launcher, program: &Program, request: &Request) -> Outcome {
    let mut command = Command::new(&program.program);
    command
        .args(&program.arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // One time for both: the order is given up after it.
    let deadline = tokio::time::Instant::now() + program.timeout;
    let began = tokio::time::timeout_at(deadline, launcher.launch(command)).await;
    let Launched { mut child, group } = match began {
        Ok(Ok(launched)) => launched,
        Ok(Err(error)) => {
            return Outcome::failed(format!("start {}: {error}", program.program.display()));
        }
        Err(_) => {
            return Outcome::failed(format!(
                "start {}: it did not begin within {}s",
                program.program.display(),
                program.timeout.as_secs()
            ));
        }
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(keep_end(out, &mut stdout), keep_end(err, &mut stderr)) };
    let ended = tokio::time::timeout_at(deadline, attend(&mut child, request, reading)).await;
    drop(group);
    let exit = ended
        .as_ref()
        .ok()
        .and_then(|ended| ended.as_ref().ok())
        .and_then(std::process::ExitStatus::code);
    let replacement = match ended {
        Err(_) => Err(format!(
            "it ran longer than {}s and was ended",
            program.timeout.as_secs()
        )),
        Ok(Err(error)) => Err(format!("wait for {}: {error}", program.program.display())),
        Ok(Ok(status)) if !status.success() => Err(format!("{status}: {}", last_line(&stderr))),
        Ok(Ok(_)) => named(&stdout)
            .ok_or_else(|| "its last line is not {\"replacement\":\"CLOUD-ID\"}".to_owned()),
    };
    Outcome {
        replacement,
        output: Output {
            exit,
            stdout: noted(&stdout),
            stderr: noted(&stderr),
        },
    }
}

/// Hands over the order, and waits until the program has ended and its streams are read.
async fn attend(
    child: &mut Child,
    request: &Request,
    reading: impl Future<Output = ((), ())>,
) -> std::io::Result<std::process::ExitStatus> {
    let stdin = child.stdin.take();
    let telling = async {
        if let Some(mut stdin) = stdin {
            let mut line = serde_json::to_vec(request).expect("a plain struct");
            line.push(b'\n');
            // A program that does not read its order still has to name a replacement.
            let _ = stdin.write_all(&line).await;
        }
    };
    let mut reading = std::pin::pin!(async { tokio::join!(telling, reading) });
    let status = tokio::select! {
        _ = &mut reading => return child.wait().await,
        status = child.wait() => status?,
    };
    let _ = tokio::time::timeout(DRAIN, reading).await;
    Ok(status)
}

/// Reads to the end and keeps the last [`KEPT_BYTES`].
async fn keep_end(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut piece = [0; 4096];
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 {
            return;
        }
        kept.extend_from_slice(&piece[..read]);
        if kept.len() > 2 * KEPT_BYTES {
            kept.drain(..kept.len() - KEPT_BYTES);
        }
    }
}

/// The replacement in the last line that is a JSON object.
fn named(stdout: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        replacement: Option<String>,
    }
    let text = String::from_utf8_lossy(stdout);
    let last = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Named>(line.trim()).ok())?;
    last.replacement
}

fn last_line(stderr: &[u8]) -> String {
    let text = noted(stderr);
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    drift::escape(line.as_bytes())
}

/// The end of a stream, as the ledger keeps it.
fn noted(stream: &[u8]) -> String {
    String::from_utf8_lossy(&stream[stream.len().saturating_sub(NOTED_BYTES)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            order: "o-1".into(),
            generation: 1,
            fleet: "web".into(),
            reason: "drifted".into(),
            instance: Target {
                id: "i-1".into(),
                cloud_id: Some("vm-1".into()),
            },
            drifts: Summary::default(),
            image: None,
        }
    }

    async fn shell(script: &str, timeout: Duration) -> Outcome {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        run(
            &Launcher::start().unwrap(),
            &Program {
                program: "/bin/sh".into(),
                arguments,
                timeout,
            },
            &request(),
        )
        .await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_last_line_of_json_names_the_replacement() {
        let outcome = shell(
            "cat >/dev/null; echo hello; echo '{\"replacement\":\"vm-2\"}'; echo bye",
            LONG,
        )
        .await;
        assert_eq!(outcome.replacement.as_deref(), Ok("vm-2"));
        assert_eq!(outcome.output.exit, Some(0));
    }

    #[tokio::test]
    async fn the_order_comes_on_standard_input() {
        let outcome = shell(
            "sed 's/.*\"cloud_id\":\"\\([^\"]*\\)\".*/{\"replacement\":\"after-\\1\"}/'",
            LONG,
        )
        .await;
        assert_eq!(outcome.replacement.as_deref(), Ok("after-vm-1"));
    }

    #[tokio::test]
    async fn what_the_image_is_called_comes_with_it() {
        let artifact = |platform: &str, ids: &[(&str, &str)], signers: &[&str]| ShownArtifact {
            platform: platform.into(),
            ids: ids
                .iter()
                .map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned()))
                .collect(),
            verity_root_hash: None,
            format: "packer".into(),
            signers: signers.iter().map(|it| (*it).to_owned()).collect(),
            revoked_signers: Vec::new(),
            added_at_ms: 0,
            added_by: "alice".into(),
        };
        let artifacts = vec![
            artifact("azure", &[("image", "/subscriptions/x")], &["key"]),
            artifact(
                "aws",
                &[("eu-west-1", "ami-1"), ("us-east-1", "ami-2")],
                &[],
            ),
        ];
        let image = ImageRef {
            name: "web".into(),
            version: "1".into(),
            build: "amd64".into(),
            manifest: drift::Blake3::of(b"1"),
        };
        let request = Request {
            image: Some(Wanted {
                image,
                artifacts: artifacts.into_iter().flat_map(called).collect(),
            }),
            ..request()
        };
        let program = Program {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                r#"sed 's/.*"kind":"eu-west-1","id":"\(ami-[0-9]*\)","signed":false.*/{"replacement":"from-\1"}/'"#.into(),
            ],
            timeout: LONG,
        };
        let outcome = run(&Launcher::start().unwrap(), &program, &request).await;
        assert_eq!(outcome.replacement.as_deref(), Ok("from-ami-1"));
        let told = serde_json::to_value(&request).unwrap();
        assert_eq!(told["image"]["version"], "1");
        assert_eq!(told["image"]["artifacts"][0]["signed"], true);
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why_and_names_nothing() {
        let outcome = shell(
            "echo '{\"replacement\":\"vm-2\"}'; echo 'quota exceeded' >&2; exit 3",
            LONG,
        )
        .await;
        assert_eq!(
            outcome.replacement,
            Err("exit status: 3: quota exceeded".into())
        );
    }

    #[tokio::test]
    async fn a_program_that_names_nothing_has_failed() {
        for script in [
            "true",
            "echo vm-2",
            "echo '{\"replaced\":\"vm-2\"}'",
            "echo '{\"replacement\":7}'",
        ] {
            assert!(shell(script, LONG).await.replacement.is_err(), "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_that_runs_too_long_is_ended_with_all_it_started() {
        let begun = std::time::Instant::now();
        let outcome = shell("sleep 60 & sleep 60", Duration::from_millis(300)).await;
        assert!(outcome.replacement.unwrap_err().contains("was ended"));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn endless_output_does_not_fill_the_memory() {
        let outcome = shell(
            "yes | head -c 3000000; echo '{\"replacement\":\"vm-2\"}'",
            LONG,
        )
        .await;
        assert_eq!(outcome.replacement.as_deref(), Ok("vm-2"));
        assert!(outcome.output.stdout.len() <= NOTED_BYTES);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_a_failure() {
        let program = Program {
            program: "/nowhere/replace".into(),
            arguments: vec![],
            timeout: LONG,
        };
        assert!(
            run(&Launcher::start().unwrap(), &program, &request())
                .await
                .replacement
                .unwrap_err()
                .starts_with("start /nowhere/replace")
        );
    }
}
