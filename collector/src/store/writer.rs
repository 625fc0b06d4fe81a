//! Receives jobs that write, runs what has queued up in one transaction, and answers when it is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Jobs that wait for the writer; beyond it senders wait too, and their requests time out.
const QUEUE: usize = 4096;
/// Jobs in one transaction: enough to spread a sync thin, few enough that the first does not wait for long.
const BATCH: usize = 256;
/// The variable of the fault point: `stop-before-sync` or `stop-before-sync:N` stops the process (SIGSTOP) when the
/// N-th batch with a report in it (the first, without N) is written and not yet committed. For tests that end the
/// process there; does nothing where it is not set.
const FAULT_VARIABLE: &str = "DRIFTMARK_FAULT";

/// Far longer than a process takes to stop.
const STOPPING: Duration = Duration::from_secs(1);

/// What kind of job it is, to the fault point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Any other.
    Ordinary,
    /// A report.
    Report,
}

type Durable = Result<(), Arc<rusqlite::Error>>;
type Answer = Box<dyn FnOnce(Durable) + Send>;

/// Whether what a job did stays.
enum Outcome {
    Keep(Answer),
    Undo(Answer),
}

enum Message {
    Job(Weight, Box<dyn FnOnce(&Transaction<'_>) -> Outcome + Send>),
    Close,
}

#[derive(Debug)]
pub(super) struct Writer {
    sender: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let fault = Fault::from_text(std::env::var(FAULT_VARIABLE).ok().as_deref());
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || work(connection, receiver, fault))
            .expect("a process that starts can have one more thread");
        Writer {
            sender,
            thread: Mutex::new(Some(thread)),
        }
    }

    pub(super) async fn write<T, E>(
        &self,
        weight: Weight,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel::<Result<T, E>>();
        let job = Box::new(
            move |transaction: &Transaction<'_>| match job(transaction) {
                Ok(answer) => Outcome::Keep(Box::new(move |durable: Durable| {
                    // A caller that gave up waiting is no concern of ours.
                    let _ = sender.send(
                        durable
                            .map(|()| answer)
                            .map_err(|error| StoreError::Commit(error).into()),
                    );
                })),
                Err(error) => Outcome::Undo(Box::new(move |_: Durable| {
                    let _ = sender.send(Err(error));
                })),
            },
        );
        self.sender
            .send(Message::Job(weight, job))
            .await
            .map_err(|_| StoreError::Stopped)?;
        receiver
            .await
            .unwrap_or_else(|_| Err(StoreError::Stopped.into()))
    }

    pub(super) async fn close(&self) {
        if self.sender.send(Message::Close).await.is_err() {
            return;
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn work(mut connection: Connection, mut receiver: mpsc::Receiver<Message>, mut fault: Fault) {
    while let Some(first) = receiver.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = receiver.try_recv()
        {
            batch.push(next);
        }
        let closing = batch
            .iter()
            .any(|message| matches!(message, Message::Close));
        run_batch(&mut connection, batch, &mut fault);
        if closing {
            break;
        }
    }
}

fn run_batch(connection: &mut Connection, batch: Vec<Message>, fault: &mut Fault) {
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    let durable = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Err(error) => Err(error),
        Ok(transaction) => run_jobs(&transaction, batch, &mut answers).and_then(|reports| {
            fault.before_commit(reports);
            transaction.commit()
        }),
    };
    let durable = durable.map_err(Arc::new);
    if let Err(error) = &durable {
        tracing::error!(error = %error, jobs = answers.len(), "changes could not be made durable");
    }
    for answer in answers {
        answer(durable.clone());
    }
}

/// Runs all jobs of a batch; whether one of them is a report.
///
/// On a full disk, and on some I/O errors, SQLite undoes the whole transaction by itself. Then nothing of this batch
/// stays, the jobs that did not run are answered by the drop of their senders, and the thread lives on for the next one.
fn run_jobs(
    transaction: &Transaction<'_>,
    batch: Vec<Message>,
    answers: &mut Vec<Answer>,
) -> rusqlite::Result<bool> {
    let mut reports = false;
    for message in batch {
        if let Message::Job(weight, job) = message {
            reports |= weight == Weight::Report;
            answers.extend(run_job(transaction, job)?);
        }
    }
    Ok(reports)
}

/// Runs one job in a savepoint; none where it panicked, which its caller sees as a dropped answer.
///
/// An error means that the transaction itself is gone.
fn run_job(
    transaction: &Transaction<'_>,
    job: Box<dyn FnOnce(&Transaction<'_>) -> Outcome + Send>,
) -> rusqlite::Result<Option<Answer>> {
    let savepoint = |statement: &str| {
        transaction
            .prepare_cached(statement)
            .and_then(|mut it| it.execute([]))
    };
    savepoint("SAVEPOINT job")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| job(transaction)));
    if !matches!(outcome, Ok(Outcome::Keep(_))) {
        savepoint("ROLLBACK TO job")?;
    }
    savepoint("RELEASE job")?;
    Ok(match outcome {
        Ok(Outcome::Keep(answer) | Outcome::Undo(answer)) => Some(answer),
        Err(_) => {
            tracing::error!("a write panicked and was undone: this is a bug");
            None
        }
    })
}

/// Stops the process between write and sync, where a test asks for it.
#[derive(Debug, Default)]
struct Fault {
    batches_left: Option<u64>,
}

impl Fault {
    fn from_text(text: Option<&str>) -> Self {
        let batches_left = match text.and_then(|text| text.strip_prefix("stop-before-sync")) {
            Some("") => Some(1),
            Some(count) => count.strip_prefix(':').and_then(|count| count.parse().ok()),
            None => None,
        };
        Fault { batches_left }
    }

    fn before_commit(&mut self, reports: bool) {
        let Some(left) = self.batches_left.as_mut().filter(|_| reports) else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.batches_left = None;
            tracing::warn!("stopping between write and sync, as {FAULT_VARIABLE} asks");
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::STOP,
            );
            // Any thread may be the one that takes the signal, and this one would go on until that stops them all.
            std::thread::park_timeout(STOPPING);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_point_is_inert_unless_it_is_asked_for() {
        for (text, left) in [
            (None, None),
            (Some(""), None),
            (Some("stop-before-sync"), Some(1)),
            (Some("stop-before-sync:3"), Some(3)),
            (Some("stop-before-sync:x"), None),
            (Some("else"), None),
        ] {
            assert_eq!(Fault::from_text(text).batches_left, left, "{text:?}");
        }
    }
}
