//! The loop: receives time, findings, answers, questions and signals; does what the sentinel says.

mod exchange;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use drift::report::{AgentBuild, RunId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::first_boot::FirstBoot;
use super::guard::{self, Guards};
use super::link::{Link, Retry};
use super::scanner::{Said, Scanner};
use super::sight::{Sight, Word};
use super::state::{MAX_VOLATILE_SPOOL_BYTES, StateDirectory};
use super::sweeper::{Sweeping, Sweeps};
use super::waiting::Waiting;
use super::{Ended, RunError, Sources, boot_id};
use crate::clock::{Now, StepDetector, TlsClock};
use crate::config::{Config, Listen};
use crate::confine::{self, Confinement};
use crate::identity::{IdentityError, KeyError, Store};
use crate::log::Chain;
use crate::sentinel::{Event, Health, Sentinel, Setup};
use crate::spool::{Name, Spool};
use crate::status::Status;
use crate::supervise::{Keeper, Supervisor};
use crate::{probe, status};
use driftmark_kernel::process;
use exchange::Done;

/// How often the loop looks at the time: heartbeats, retries and clock steps are at most this late.
const TICK: Duration = Duration::from_secs(1);
/// Several identity files are replaced in one go; this is how long that takes.
const SETTLE: Duration = Duration::from_millis(200);
/// A disk that was in trouble is tried again this often.
const DISK_RETRY: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT. SIGHUP loads the identity again. Until the instance is enrolled its configuration is
/// looked at again and again, and another one ends the loop; from then on it is read at the start alone.
pub(super) async fn run(config: Config, sources: Sources<'_>) -> Result<Ended, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(RunError::Runtime)?;
    let (mut waiting, mut appeared) = Waiting::start(&config, sources.file);
    let (mut daemon, mut said, mut told, mut swept, mut guarding) =
        Daemon::start(config, sources.keeper)?;
    daemon.prepare_to_guard();
    let mut background = JoinSet::new();
    let mut questions = daemon.serve(&mut background).await;
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = super::watch::watch(&[daemon.store.directory().to_owned()], changed)
        .inspect_err(
            |error| tracing::warn!(error = %Chain(error), "identity files are not watched"),
        );
    confine::filter_calls();
    daemon.supervisor.ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), run = %daemon.run, "the agent runs");
    if daemon.lacks_a_token() {
        let places = daemon.token_places();
        tracing::info!(places, "not enrolled: waiting for a join token");
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whatever is waited for, all else is heard meanwhile.
    let (mut reload, mut enrol) = (None, None);
    loop {
        tokio::select! {
            _ = ticks.tick() => daemon.tick(),
            saying = said.recv() => daemon.hear(saying.ok_or(RunError::Scanner)?),
            Some(word) = told.recv() => {
                if let Some(event) = daemon.sight.hear(word) {
                    daemon.step(event, Now::read());
                }
            }
            Some(sweeping) = swept.recv() => daemon.swept(sweeping),
            Some(word) = guarding.recv() => {
                let event = daemon.guards.hear(word);
                daemon.sentinel.unguarded(daemon.guards.limits());
                if let Some(event) = event {
                    daemon.step(event, Now::read());
                }
            }
            Some(done) = daemon.tasks.join_next() => daemon.done(done),
            Some(()) = changes.recv() => { reload.get_or_insert_with(settled); }
            Some(()) = appeared.recv(), if daemon.link.is_none() => { enrol.get_or_insert_with(settled); }
            () = reached(reload) => {
                reload = None;
                daemon.reload();
            }
            () = reached(enrol) => {
                enrol = None;
                daemon.enrolling.now();
                waiting.now();
            }
            Some(question) = questions.recv() => {
                let _ = question.send(daemon.status());
            }
            _ = hang_up.recv() => daemon.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        if let Some(other) = daemon.another_configuration(&mut waiting, sources) {
            daemon.scanner.interrupt();
            tracing::info!("the configuration is another one: beginning again");
            return Ok(Ended::Reconfigured(Box::new(other)));
        }
        daemon.drive();
        // Whatever always has something to say keeps neither the probe nor the collector waiting.
        tokio::task::yield_now().await;
    }
    daemon.say_goodbye().await;
    Ok(Ended::Told)
}

/// When what was just written is whole.
fn settled() -> Instant {
    Instant::now() + SETTLE
}

/// Ends at that time; never where there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What begins with it, and what it hears from.
type Started = (
    Daemon,
    mpsc::Receiver<Said>,
    mpsc::Receiver<Word>,
    mpsc::Receiver<Sweeping>,
    mpsc::Receiver<guard::Word>,
);

struct Daemon {
    config: Config,
    run: RunId,
    state: StateDirectory,
    store: Store,
    /// When the disk was last tried, by time since boot.
    disk_tried: Duration,
    /// What was last said to be wrong with it.
    disk_trouble: Option<String>,
    clock: TlsClock,
    steps: StepDetector,
    sentinel: Sentinel,
    spool: Spool,
    /// The heartbeat that waits, if nothing in the spool does.
    mention: Option<(Name, Vec<u8>)>,
    scanner: Scanner,
    sight: Sight,
    sweeps: Sweeps,
    guards: Guards,
    first_boot: FirstBoot,
    health: watch::Sender<Health>,
    supervisor: Supervisor,
    link: Option<Link>,
    tasks: JoinSet<Done>,
    enrolling: Retry,
    reporting: Retry,
    renewing: Retry,
    /// Whether the manifest was looked at: what enrols says which image it is.
    knows_image: bool,
    build_time: Option<i64>,
    trouble: Option<String>,
    logged: Option<Duration>,
}

impl Daemon {
    fn start(config: Config, keeper: &Arc<Keeper>) -> Result<Started, RunError> {
        let now = Now::read();
        let mut state = StateDirectory::open(&config.state_directory, &config.status_socket)?;
        let (run, previous_run) = state.begin_run()?;
        // One that cannot be made now is made when there is something to keep.
        let store = Store::open(state.path()).unwrap_or_else(|_| Store::at(state.path()));
        let clock = TlsClock::default();
        let link = match Link::open(&config, &store, &clock, now) {
            Ok(link) => link,
            // A key that others can read is refused; an identity that is damaged is not a reason to stop verifying.
            Err(error @ RunError::Identity(IdentityError::Key(KeyError::Exposed { .. }))) => {
                return Err(error);
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the identity cannot be used: nothing is reported");
                None
            }
        };
        let spool_bytes = if state.is_volatile {
            config.spool_max_bytes.min(MAX_VOLATILE_SPOOL_BYTES)
        } else {
            config.spool_max_bytes
        };
        let (spool, recovered) = Spool::open(&state.path().join("spool"), spool_bytes);
        if recovered.reports > 0 || recovered.damaged > 0 {
            tracing::info!(
                reports = recovered.reports,
                damaged = recovered.damaged,
                "reports of an earlier run wait"
            );
        }
        let (scanner, said) = Scanner::start(&config, state.path()).map_err(RunError::Runtime)?;
        let (sight, told) = Sight::new(&config, keeper);
        let (sweeps, swept) = Sweeps::start(&config).map_err(RunError::Runtime)?;
        let (guards, guarding) = Guards::new(&config);
        let setup = Setup {
            run,
            previous_run,
            agent: build(),
            boot_id: boot_id(),
            schedule: config.schedule,
            probe_mode: config.probe_mode,
        };
        let starting = Health {
            healthy: true,
            reason: "the agent starts".into(),
        };
        let daemon = Daemon {
            run,
            store,
            steps: StepDetector::new(now),
            sentinel: Sentinel::new(setup),
            spool,
            mention: None,
            scanner,
            sight,
            sweeps,
            guards,
            first_boot: FirstBoot::open(state.path(), config.first_boot_window, now.uptime),
            state,
            disk_tried: now.uptime,
            disk_trouble: None,
            health: watch::channel(starting).0,
            supervisor: Supervisor::new(),
            link,
            tasks: JoinSet::new(),
            enrolling: Retry::new(Duration::from_secs(1), Duration::from_secs(300)),
            reporting: Retry::new(Duration::from_secs(1), Duration::from_secs(300)),
            renewing: Retry::new(Duration::from_secs(5), Duration::from_secs(600)),
            knows_image: false,
            build_time: None,
            trouble: None,
            logged: None,
            clock,
            config,
        };
        Ok((daemon, said, told, swept, guarding))
    }

    /// Others wait for this process where it has a gate: it has descriptors for all of them, does not wait for a program
    /// that takes its core, and is ended soon when it does nothing any more.
    fn prepare_to_guard(&mut self) {
        if !self.guards.may_guard() {
            return;
        }
        process::open_files_as_may_be();
        if let Err(error) = process::dump_no_core() {
            tracing::error!(error = %Chain(&error), "nothing is guarded");
            self.guards.never();
        }
        self.supervisor.be_watched_within(guard::WATCHED_WITHIN);
    }

    /// Starts the probe and the status socket. An agent that cannot have them still verifies and reports.
    async fn serve(&self, background: &mut JoinSet<()>) -> mpsc::Receiver<status::Question> {
        if let Listen::At(address) = self.config.probe_listen {
            match probe::listen(address).await {
                Ok(listener) => {
                    background.spawn(probe::serve(listener, self.health.subscribe()));
                }
                Err(error) => tracing::error!(error = %Chain(&error), "there is no health probe"),
            }
        }
        let (sender, questions) = mpsc::channel(1);
        match status::listen(&self.config.status_socket) {
            Ok(listener) => {
                background.spawn(status::serve(listener, sender));
            }
            Err(error) => tracing::error!(error = %Chain(&error), "there is no status socket"),
        }
        questions
    }

    fn tick(&mut self) {
        let now = Now::read();
        if let Some(milliseconds) = self.steps.look(now) {
            tracing::info!(milliseconds, "the clock was set");
            [&mut self.enrolling, &mut self.reporting, &mut self.renewing]
                .into_iter()
                .for_each(Retry::now);
            if let Some(link) = &mut self.link {
                link.clock_was_set(&self.clock, now);
            }
        }
        self.look_at_disk(now);
        self.sight.tick();
        if self.guards.look(now.uptime) {
            self.sentinel.unguarded(self.guards.limits());
        }
        self.step(Event::Tick, now);
        if self.scanner.makes_progress(now.uptime) {
            self.supervisor.alive(now.uptime);
        }
        let health = self.health.borrow().reason.clone();
        let open = self.sentinel.open_count();
        let disk = self
            .disk_trouble
            .iter()
            .map(|trouble| format!("; {trouble}"));
        self.supervisor.status(&format!(
            "{open} drifts open; {health}{}",
            disk.collect::<String>()
        ));
    }

    /// Says what is wrong with the disk that keeps identity and reports, once, and when it is well again.
    fn look_at_disk(&mut self, now: Now) {
        if now.uptime.saturating_sub(self.disk_tried) >= DISK_RETRY {
            self.disk_tried = now.uptime;
            if self.spool.try_disk() {
                self.state.is_well();
            }
        }
        let trouble = self.state.trouble().or(self.spool.trouble());
        if trouble == self.disk_trouble.as_deref() {
            return;
        }
        match trouble {
            Some(trouble) => tracing::warn!(trouble, "the state directory is in trouble"),
            None => tracing::info!("the state directory is well again"),
        }
        let trouble = trouble.map(str::to_owned);
        self.sentinel.limit(
            trouble
                .as_ref()
                .map(|trouble| format!("the agent's state cannot be kept: {trouble}")),
        );
        self.disk_trouble = trouble;
    }

    fn status(&self) -> Status {
        let now = Now::read();
        let enrolled = self.link.as_ref().map(|link| &link.enrolled);
        let health = self.health.borrow().clone();
        Status {
            instance: enrolled.map(|enrolled| enrolled.instance.clone()),
            fleet: enrolled.map(|enrolled| enrolled.fleet.clone()),
            collector: self.link.as_ref().map(|link| link.client.url().to_owned()),
            image: self.sentinel.image().cloned(),
            unverifiable: self.sentinel.unverifiable().map(str::to_owned),
            phase: self.sentinel.phase(),
            open_drifts: self.sentinel.open_count() as u64,
            coverage: self.sentinel.coverage(now),
            scanning: self.scanner.is_busy(),
            collector_heard_seconds_ago: self
                .sentinel
                .heard()
                .map(|heard| now.uptime.saturating_sub(heard).as_secs()),
            collector_trouble: self.trouble.clone(),
            state_trouble: self.disk_trouble.clone(),
            enforcement: self.guards.status(),
            waiting_for_token: self.lacks_a_token().then(|| self.token_places()),
            waiting_reports: self.spool.len() as u64,
            spool_bytes: self.spool.bytes(),
            dropped_moments: self.sentinel.dropped_moments(),
            certificate_ends: enrolled.map(|enrolled| enrolled.certificates.not_after),
            healthy: health.healthy,
            health_reason: health.reason,
            confinement: Confinement::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn build() -> AgentBuild {
    AgentBuild {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        minor: 0,
        features: ["attribution", "held-values", "moments", "parts"]
            .map(str::to_owned)
            .into(),
    }
}
