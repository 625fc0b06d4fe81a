//! Receives the operators' programs; hands on their processes, which a thread of its own starts.
//!
//! That thread is there before the collector confines itself ([`crate::confine`]), does nothing else, and so the threads
//! and programs that it starts are confined by the unit and by whoever started the collector, but not by the collector.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Programs that are being started at once. That takes a millisecond, but for ever where their disk does not answer any
/// more: so many threads may be left for good, and whoever asks for another waits, until their own time is over.
const STARTING: usize = 64;

/// The thread that starts programs; it ends when nobody can ask it any more.
#[derive(Debug)]
pub struct Launcher {
    asked: mpsc::UnboundedSender<Asked>,
    places: Arc<Semaphore>,
}

/// A program that runs, and all that it starts: ended when this is dropped.
#[derive(Debug)]
pub struct Launched {
    /// The others of its process group, where it leads one. Dropped first: a program that nobody has waited for yet keeps
    /// its number from everybody else, and after that the group does as long as it has anybody.
    pub group: Group,
    /// The program itself.
    pub child: Child,
}

/// A process group; ended when this is dropped.
#[derive(Debug)]
pub struct Group(Option<rustix::process::Pid>);

struct Asked {
    command: Command,
    /// Whose child it is to be.
    runtime: Handle,
    /// Free for another one when this is answered.
    _place: OwnedSemaphorePermit,
    answer: oneshot::Sender<io::Result<Launched>>,
}

impl Launcher {
    /// Starts the thread: before this one confines itself.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> io::Result<Self> {
        let (asked, mut waiting) = mpsc::unbounded_channel::<Asked>();
        thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                while let Some(asked) = waiting.blocking_recv() {
                    // A program may lie where nothing answers any more: whoever waits for that is nobody else. Where
                    // there is no thread to be had, the answer is dropped, and that is told.
                    let one = thread::Builder::new().name("launch".to_owned());
                    drop(one.spawn(move || asked.answer()));
                }
            })?;
        Ok(Launcher {
            asked,
            places: Arc::new(Semaphore::new(STARTING)),
        })
    }

    /// Starts a program in a process group of its own.
    ///
    /// # Errors
    /// The system's.
    pub async fn launch(&self, mut command: Command) -> io::Result<Launched> {
        command.process_group(0).kill_on_drop(true);
        let gone = || io::Error::other("there is no thread to start it");
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            command,
            runtime: Handle::current(),
            _place: place,
            answer,
        };
        self.asked.send(asked).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Asked {
    fn answer(mut self) {
        if self.answer.is_closed() {
            return;
        }
        let _runtime = self.runtime.enter();
        let launched = self.command.spawn().map(|child| Launched {
            group: Group::of(&child),
            child,
        });
        // Where nobody waits any more it is dropped, and so ended.
        let _ = self.answer.send(launched);
    }
}

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Group(id.and_then(rustix::process::Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Most often nobody is left.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
