//! The loop: receives time, findings, answers, questions and signals; does what the sentinel says.

use std::time::Duration;

use drift::report::{AgentBuild, Report, RunId, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::first_boot::FirstBoot;
use super::link::{Link, Retry};
use super::scanner::{Said, Scanner};
use super::{RunError, begin_run, boot_id};
use crate::client::{ClientError, Remedy};
use crate::clock::{Now, StepDetector, TlsClock};
use crate::config::{Config, Listen};
use crate::state_files;
use crate::enrol::{Applicant, EnrolError, EnrollArguments, read_cloud_id};
use crate::identity::{Enrolled, IdentityError, Store};
use crate::log::Chain;
use crate::sentinel::{Action, Event, Health, Sentinel, Setup};
use crate::spool::{Dropped, Kind, Name, Spool};
use crate::status::Status;
use crate::supervise::Supervisor;
use crate::{probe, status};

/// How often the loop looks at the time: heartbeats, retries and clock steps are at most this late.
const TICK: Duration = Duration::from_secs(1);
/// How long a goodbye may take: systemd waits longer, a shutdown should not.
const GOODBYE: Duration = Duration::from_secs(3);
/// The same trouble is logged at most this often.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// Several identity files are replaced in one go; this is how long that takes.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let (mut daemon, mut said) = Daemon::start(config)?;
    let mut background = JoinSet::new();
    let mut questions = daemon.serve(&mut background).await;
    let identity = super::watch::watch(daemon.store.directory());
    let (_watcher, mut changes) = match identity {
        Ok((watcher, changes)) => (Some(watcher), changes),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "identity files are not watched");
            (None, mpsc::channel(1).1)
        }
    };
    daemon.supervisor.ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), run = %daemon.run, "the agent runs");
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => daemon.tick(),
            saying = said.recv() => daemon.hear(saying.ok_or(RunError::Scanner)?),
            Some(done) = daemon.tasks.join_next() => daemon.done(done),
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                daemon.reload();
            }
            Some(question) = questions.recv() => {
                let _ = question.send(daemon.status());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        daemon.drive();
    }
    daemon.say_goodbye().await;
    Ok(())
}

struct Daemon {
    config: Config,
    run: RunId,
    store: Store,
    clock: TlsClock,
    steps: StepDetector,
    sentinel: Sentinel,
    spool: Spool,
    /// The heartbeat that waits, if nothing in the spool does.
    mention: Option<(Name, Vec<u8>)>,
    scanner: Scanner,
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

/// A request that came back.
enum Done {
    Enrolled(Result<Enrolled, Box<EnrolError>>),
    Renewed(Result<drift::enrolment::Identity, ClientError>),
    Reported(Name, Result<Verdict, ClientError>),
}

impl Daemon {
    fn start(config: Config) -> Result<(Self, mpsc::Receiver<Said>), RunError> {
        let now = Now::read();
        state_files::make_directory(&config.state_directory)?;
        let (run, previous_run) = begin_run(&config.state_directory)?;
        let store = Store::open(&config.state_directory)?;
        let clock = TlsClock::default();
        let link = match Link::open(&config, &store, &clock, now) {
            Ok(link) => link,
            // A key that others can read is refused; an identity that is damaged is not a reason to stop verifying.
            Err(error @ RunError::Identity(IdentityError::Key(_))) => return Err(error),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the identity cannot be used: nothing is reported");
                None
            }
        };
        let directory = config.state_directory.join("spool");
        let (spool, recovered) = Spool::open(&directory, config.spool_max_bytes)?;
        if recovered.reports > 0 || recovered.damaged > 0 {
            tracing::info!(reports = recovered.reports, damaged = recovered.damaged, "reports of an earlier run wait");
        }
        let (scanner, said) = Scanner::start(&config).map_err(RunError::Runtime)?;
        let setup = Setup {
            run,
            previous_run,
            agent: build(),
            boot_id: boot_id(),
            schedule: config.schedule,
            probe_mode: config.probe_mode,
        };
        let starting = Health { healthy: true, reason: "the agent starts".into() };
        let daemon = Daemon {
            run,
            store,
            steps: StepDetector::new(now),
            sentinel: Sentinel::new(setup),
            spool,
            mention: None,
            scanner,
            first_boot: FirstBoot::open(&config.state_directory, config.first_boot_window, now.uptime),
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
        Ok((daemon, said))
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
            [&mut self.enrolling, &mut self.reporting, &mut self.renewing].into_iter().for_each(Retry::now);
            if let Some(link) = &mut self.link {
                link.clock_was_set(&self.clock, now);
            }
        }
        self.step(Event::Tick, now);
        if self.scanner.makes_progress(now.uptime) {
            self.supervisor.alive(now.uptime);
        }
        let health = self.health.borrow().reason.clone();
        let open = self.sentinel.open_count();
        self.supervisor.status(&format!("{open} drifts open; {health}"));
    }

    /// Lets the sentinel take in an event, and does what it says.
    fn step(&mut self, event: Event, now: Now) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Daemon { sentinel, spool, mention, scanner, first_boot, health, .. } = self;
            let mut dropped = Dropped::default();
            sentinel.step(event, now, &mut |action| match action {
                Action::Keep(report) => {
                    // What waits has a lower number than this, and says less.
                    *mention = None;
                    let lost = keep(spool, &report);
                    dropped.states |= lost.states;
                    dropped.moments += lost.moments;
                }
                Action::Mention(report) => *mention = Some((name(&report), body(&report))),
                Action::Scan(pass) => {
                    tracing::info!(?pass, "scan begins");
                    let holds = first_boot.is_over(now.uptime);
                    scanner.order(pass, holds, now.uptime);
                }
                Action::Probe(answer) => {
                    tracing::info!(healthy = answer.healthy, reason = answer.reason, "health probe");
                    health.send_replace(answer);
                }
            });
            events.extend(self.lost(dropped));
        }
    }

    /// Says that reports were lost, and makes an event of it.
    fn lost(&self, dropped: Dropped) -> Option<Event> {
        if dropped.is_nothing() {
            return None;
        }
        tracing::warn!(states = dropped.states, moments = dropped.moments, "no room in the spool: reports are lost");
        Some(Event::Dropped { states: dropped.states, moments: dropped.moments })
    }

    fn hear(&mut self, said: Said) {
        let now = Now::read();
        match said {
            Said::Opened { image, build_time } => {
                self.knows_image = true;
                self.build_time = build_time;
                self.clock.not_before(build_time.unwrap_or(0));
                tracing::info!(image = image.name, version = image.version, build = image.build, "the manifest verified");
                self.step(Event::BaselineOpened(image), now);
            }
            Said::Refused(reason) => {
                self.knows_image = true;
                self.scanner.rests();
                tracing::error!(reason, "this instance cannot be verified");
                self.step(Event::BaselineRefused(reason), now);
            }
            Said::Finished(outcome) => {
                self.scanner.rests();
                let coverage = &outcome.coverage;
                let (drifts, gaps, verified) = (outcome.drifts.len(), coverage.gap_count, coverage.verified_entries);
                tracing::info!(pass = ?outcome.pass, drifts, gaps, verified, "scan ended");
                self.step(Event::ScanFinished(outcome), now);
            }
            Said::Failed(reason) => {
                self.scanner.rests();
                tracing::error!(reason, "scan did not finish");
                self.step(Event::ScanFailed(reason), now);
            }
        }
    }

    /// Starts whatever is due and can be done.
    fn drive(&mut self) {
        let now = Now::read();
        if self.link.is_none() {
            self.enrol(now);
            return;
        }
        self.renew(now);
        self.report(now);
    }

    fn enrol(&mut self, now: Now) {
        let token_file = self.config.token_file.clone().filter(|file| file.exists());
        let (Some(token_file), true) = (token_file, self.knows_image && self.enrolling.is_due(now.uptime)) else {
            return;
        };
        let arguments = EnrollArguments {
            collector: self.config.collector_url.clone(),
            ca_file: self.config.ca_file.clone(),
            token_file,
            state_directory: self.config.state_directory.clone(),
            cloud_id: self.config.cloud_id_file.as_deref().and_then(read_cloud_id),
            image: self.sentinel.image().cloned(),
            build_time: self.build_time,
        };
        self.enrolling.is_running = true;
        match Applicant::prepare(&arguments, &self.clock) {
            Ok(applicant) => {
                let asking = async move { Done::Enrolled(applicant.apply().await.map_err(Box::new)) };
                self.tasks.spawn(asking);
            }
            Err(error) => self.enrolled(Err(Box::new(error)), now),
        }
    }

    fn enrolled(&mut self, outcome: Result<Enrolled, Box<EnrolError>>, now: Now) {
        self.enrolling.is_running = false;
        match outcome {
            Ok(enrolled) => {
                tracing::info!(instance = enrolled.instance, fleet = enrolled.fleet, "enrolled");
                self.reload();
            }
            Err(error) => {
                self.enrolling.fail(now.uptime);
                self.trouble(&*error, now);
            }
        }
    }

    fn renew(&mut self, now: Now) {
        let Some(link) = self.link.as_ref().filter(|link| now.uptime >= link.renew_at) else { return };
        if !self.renewing.is_due(now.uptime) {
            return;
        }
        match link.renewal_request() {
            Ok(request) => {
                let client = link.client.clone();
                self.renewing.is_running = true;
                self.tasks.spawn(async move { Done::Renewed(client.renew(&request).await) });
            }
            Err(error) => {
                self.renewing.fail(now.uptime);
                self.trouble(&error, now);
            }
        }
    }

    fn renewed(&mut self, outcome: Result<drift::enrolment::Identity, ClientError>, now: Now) {
        self.renewing.is_running = false;
        let Some(link) = &mut self.link else { return };
        let kept = match outcome {
            Ok(identity) => {
                let kept = link.store.save(&identity, &link.enrolled.url, now.clock_seconds());
                kept.map(drop).map_err(RunError::from)
            }
            Err(error) => Err(RunError::from(error)),
        };
        match kept {
            Ok(()) => {
                self.renewing.now();
                self.reload();
            }
            Err(error) => {
                self.renewing.fail(now.uptime);
                self.trouble(&error, now);
            }
        }
    }

    /// Takes over the identity that is on disk now: after enrolling, after renewing, after an operator was there.
    fn reload(&mut self) {
        let now = Now::read();
        let changed = match &mut self.link {
            Some(link) => link.reload(&self.clock, now),
            None => Link::open(&self.config, &self.store, &self.clock, now).map(|link| {
                self.link = link;
                self.link.is_some()
            }),
        };
        match changed {
            Ok(true) => {
                self.reporting.now();
                let ends = self.link.as_ref().map(|link| link.enrolled.certificates.not_after);
                tracing::info!(ends, "the certificate was loaded");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "the identity on disk cannot be used; the old one stays"),
        }
    }

    /// Sends what waits longest; a heartbeat only where nothing else waits.
    fn report(&mut self, now: Now) {
        let Some(link) = self.link.as_ref().filter(|_| self.reporting.is_due(now.uptime)) else { return };
        let client = link.client.clone();
        let mut dropped = Dropped::default();
        let head = self.spool.head(&mut dropped).map(|head| (head.name, head.body));
        if let Some(event) = self.lost(dropped) {
            self.step(event, now);
        }
        let Some((name, body)) = head.or_else(|| self.mention.clone()) else { return };
        self.reporting.is_running = true;
        self.tasks.spawn(async move { Done::Reported(name, client.report(body).await) });
    }

    fn reported(&mut self, name: Name, outcome: Result<Verdict, ClientError>, now: Now) {
        self.reporting.is_running = false;
        match outcome {
            Ok(mut verdict) => {
                // Nobody can acknowledge what was not sent.
                verdict.acknowledged = verdict.acknowledged.min(name.sequence);
                self.acknowledged(name, verdict, now);
            }
            Err(error) if error.remedy() == Remedy::Drop => {
                self.trouble(&error, now);
                self.reporting.fail(now.uptime);
                self.spool.discard(name);
                self.mention.take_if(|(waiting, _)| *waiting == name);
                if name.run == self.run {
                    self.step(Event::Refused, now);
                }
            }
            Err(error) => {
                self.reporting.fail(now.uptime);
                self.trouble(&error, now);
            }
        }
    }

    fn acknowledged(&mut self, name: Name, verdict: Verdict, now: Now) {
        if verdict.acknowledged < name.sequence {
            self.reporting.fail(now.uptime);
        } else {
            self.reporting.backoff.succeed();
            self.mention.take_if(|(waiting, _)| *waiting == name);
        }
        if self.trouble.take().is_some() {
            tracing::info!("the collector answers");
            self.logged = None;
        }
        self.spool.acknowledge(name.run, verdict.acknowledged);
        let is_of_this_run = name.run == self.run;
        self.step(if is_of_this_run { Event::Acknowledged(verdict) } else { Event::AcknowledgedEarlier(verdict) }, now);
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Now::read();
        match done {
            Ok(Done::Enrolled(outcome)) => self.enrolled(outcome, now),
            Ok(Done::Renewed(outcome)) => self.renewed(outcome, now),
            Ok(Done::Reported(name, outcome)) => self.reported(name, outcome, now),
            Err(error) => {
                // Only where panics unwind: whatever it was, it is tried again.
                tracing::error!(error = %Chain(&error), "a request ended in a panic");
                for retry in [&mut self.enrolling, &mut self.renewing, &mut self.reporting] {
                    retry.is_running = false;
                    retry.fail(now.uptime);
                }
            }
        }
    }

    /// Remembers what went wrong with the collector, and says so now and then.
    fn trouble(&mut self, error: &dyn std::error::Error, now: Now) {
        let text = Chain(error).to_string();
        if self.logged.is_none_or(|logged| now.uptime.saturating_sub(logged) >= LOG_PAUSE) {
            self.logged = Some(now.uptime);
            tracing::warn!(trouble = text, waiting = self.spool.len(), "the collector does not help");
        }
        self.trouble = Some(text);
    }

    /// Tells the collector that this is a stop and no silence, if it can be told soon.
    async fn say_goodbye(&mut self) {
        self.supervisor.stopping();
        self.scanner.interrupt();
        self.step(Event::Goodbye, Now::read());
        self.reporting.now();
        let told = async {
            while self.link.is_some() && (self.mention.is_some() || !self.spool.is_empty()) {
                self.drive();
                match self.tasks.join_next().await {
                    Some(done) => self.done(done),
                    None => return,
                }
                if self.trouble.is_some() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE, told).await;
        tracing::info!(waiting = self.spool.len(), "the agent stops");
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
            collector_heard_seconds_ago: self.sentinel.heard().map(|heard| now.uptime.saturating_sub(heard).as_secs()),
            collector_trouble: self.trouble.clone(),
            waiting_reports: self.spool.len() as u64,
            spool_bytes: self.spool.bytes(),
            dropped_moments: self.sentinel.dropped_moments(),
            certificate_ends: enrolled.map(|enrolled| enrolled.certificates.not_after),
            healthy: health.healthy,
            health_reason: health.reason,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn keep(spool: &mut Spool, report: &Report) -> Dropped {
    let kind = if report.moments.is_empty() { Kind::States } else { Kind::Moments };
    let moments = u32::try_from(report.moments.len()).unwrap_or(u32::MAX);
    spool.append(kind, name(report), moments, &body(report))
}

fn name(report: &Report) -> Name {
    Name { run: report.run, sequence: report.sequence }
}

fn body(report: &Report) -> Vec<u8> {
    serde_json::to_vec(report).expect("a plain struct")
}

fn build() -> AgentBuild {
    AgentBuild {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        minor: 0,
        features: ["held-values", "moments", "parts"].map(str::to_owned).into(),
    }
}
