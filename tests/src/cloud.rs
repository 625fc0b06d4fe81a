//! Receives orders; hands on machines: the cloud's side of a fleet, with real instances instead of a data centre.
//!
//! The collector's replacer `command` runs the program `driftmark-lab-cloud`, which hands the order over a socket to the
//! process that has the instances, waits until the new one is up, and prints its cloud id.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::collector::Collector;
use crate::image::Image;
use crate::instance::{Instance, InstanceOptions};
use crate::lab::Lab;

/// The program that the replacer `command` runs.
pub const PROGRAM: &str = "driftmark-lab-cloud";
/// An order is a page.
const MAX_ORDER_BYTES: u64 = 1024 * 1024;

/// A fleet's machines, and who replaces them.
#[derive(Debug)]
pub struct Cloud {
    lab: Arc<Lab>,
    collector: Arc<Collector>,
    fleet: String,
    image: Mutex<Image>,
    machines: Mutex<BTreeMap<String, Instance>>,
    done: Mutex<BTreeMap<String, String>>,
    next: AtomicU32,
    told: Mutex<Vec<Told>>,
    seed: Mutex<Option<Seed>>,
}

/// What cloud-init finds on a machine of this cloud id: file names and contents.
pub type Seed = fn(&str) -> Vec<(String, String)>;

/// Something that the cloud did, for a timeline.
#[derive(Debug, Clone)]
pub struct Told {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// What.
    pub what: String,
}

impl Cloud {
    /// A fleet without machines.
    pub fn new(lab: Arc<Lab>, collector: Arc<Collector>, fleet: &str, image: Image) -> Arc<Self> {
        Arc::new(Self {
            lab,
            collector,
            fleet: fleet.to_owned(),
            image: Mutex::new(image),
            machines: Mutex::default(),
            done: Mutex::default(),
            next: AtomicU32::new(1),
            told: Mutex::default(),
            seed: Mutex::default(),
        })
    }

    /// Boots a machine of the fleet's image, with a join token for its cloud id alone; gives that id.
    ///
    /// # Errors
    /// No token, or it did not come up.
    pub fn launch(&self) -> Result<String> {
        let id = format!("vm-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let token = self.collector.join_token(&self.fleet, Some(&id))?;
        self.launch_with(&id, Some(token))?;
        Ok(id)
    }

    /// Boots a machine that calls itself `id`, with whatever token.
    ///
    /// # Errors
    /// It did not come up.
    pub fn launch_with(&self, id: &str, token: Option<String>) -> Result<()> {
        let seed = *lock(&self.seed);
        let options = InstanceOptions {
            token,
            cloud_id: Some(id.to_owned()),
            seed: seed.map_or_else(Vec::new, |seed| seed(id)),
            ..InstanceOptions::default()
        };
        let image = lock(&self.image).clone();
        let machine = self.lab.boot(&image, id, &options)?;
        self.tell(format!(
            "{id} booted from {} {} in {} ms",
            image.name,
            image.version,
            machine.boot_time().as_millis()
        ));
        lock(&self.machines).insert(id.to_owned(), machine);
        Ok(())
    }

    /// Does something with a running machine.
    ///
    /// # Errors
    /// There is no such machine, or what is done with it fails.
    pub fn with<T>(&self, id: &str, act: impl FnOnce(&mut Instance) -> Result<T>) -> Result<T> {
        act(lock(&self.machines)
            .get_mut(id)
            .with_context(|| format!("no machine {id}"))?)
    }

    /// The cloud ids of all running machines.
    pub fn ids(&self) -> Vec<String> {
        lock(&self.machines).keys().cloned().collect()
    }

    /// Ends a machine; its disk is gone.
    ///
    /// # Errors
    /// There is no such machine, or it did not halt in time.
    pub fn terminate(&self, id: &str) -> Result<()> {
        let machine = lock(&self.machines)
            .remove(id)
            .with_context(|| format!("no machine {id}"))?;
        machine.terminate()?;
        self.tell(format!("{id} terminated"));
        Ok(())
    }

    /// Which image new machines boot from now on.
    pub fn set_image(&self, image: Image) {
        *lock(&self.image) = image;
    }

    /// What cloud-init finds on machines from now on.
    pub fn set_seed(&self, seed: Seed) {
        *lock(&self.seed) = Some(seed);
    }

    /// What was done until now.
    pub fn told(&self) -> Vec<Told> {
        lock(&self.told).clone()
    }

    /// The command of the replacer `command` for a fleets file, as a TOML array, and starts answering it.
    ///
    /// # Errors
    /// The socket cannot be made, or the program was not built.
    pub fn serve(self: &Arc<Self>, socket: &Path) -> Result<()> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("listen on {}", socket.display()))?;
        let cloud = Arc::downgrade(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(cloud) = cloud.upgrade() else { return };
                std::thread::spawn(move || cloud.answer(stream));
            }
        });
        Ok(())
    }

    /// Terminates the order's instance and launches another; an order that was carried out before is not again.
    ///
    /// # Errors
    /// An order without an instance, or one of the two steps.
    pub fn replace(&self, order: &Value) -> Result<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let order_id = text(&order["order"]).context("an order has an id")?;
        let old = text(&order["instance"]["cloud_id"]).context("an order has a cloud id")?;
        if let Some(replacement) = lock(&self.done).get(&order_id) {
            return Ok(replacement.clone());
        }
        if lock(&self.machines).contains_key(&old) {
            self.terminate(&old)?;
        }
        let replacement = self.launch()?;
        lock(&self.done).insert(order_id, replacement.clone());
        Ok(replacement)
    }

    fn answer(&self, mut stream: UnixStream) {
        let answer = read_order(&stream).and_then(|order| self.replace(&order));
        let answer = match answer {
            Ok(replacement) => json!({ "replacement": replacement }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        // The asker may have been killed: it asks again.
        let _ = writeln!(stream, "{answer}");
    }

    fn tell(&self, what: String) {
        lock(&self.told).push(Told { at: now(), what });
    }
}

/// The command for a fleets file, as TOML writes an array.
///
/// # Errors
/// The program was not built.
pub fn command(socket: &Path) -> Result<String> {
    let own = std::env::current_exe().context("find the running test")?;
    let near = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(PROGRAM))
        .find(|path| path.is_file());
    let program: PathBuf = near.with_context(|| format!("no {PROGRAM} near {}", own.display()))?;
    Ok(format!("[{program:?}, {socket:?}]"))
}

/// The program's side: hands the order on standard input to the cloud, and prints its answer.
///
/// # Errors
/// Nobody answers, or the cloud could not do it.
pub fn ask(socket: &Path) -> Result<String> {
    let mut order = String::new();
    std::io::stdin()
        .take(MAX_ORDER_BYTES)
        .read_to_string(&mut order)
        .context("read the order")?;
    let order: Value = serde_json::from_str(&order).context("read the order")?;
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    writeln!(stream, "{order}").context("hand the order on")?;
    let answer = read_order(&stream)?;
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok(answer.to_string()),
    }
}

fn read_order(stream: &UnixStream) -> Result<Value> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ORDER_BYTES))
        .read_line(&mut line)
        .context("read a line")?;
    serde_json::from_str(&line).with_context(|| format!("read {line:?}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
