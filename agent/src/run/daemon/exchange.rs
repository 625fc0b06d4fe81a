//! The collector's side of the loop: receives what is due and what came back; enrols, renews, reports, says goodbye.
//!
//! One request of each kind at a time. Whatever fails is tried again, later and later; whatever may have changed the
//! odds (a clock that was set, another certificate) tries at once.

use std::time::Duration;

use drift::report::Verdict;

use super::super::link::Link;
use super::super::waiting::Waiting;
use super::super::{RunError, Sources};
use super::Daemon;
use crate::client::{ClientError, Remedy};
use crate::clock::Now;
use crate::config::Config;
use crate::enrol::{Applicant, EnrolError, EnrollArguments, first_there, read_cloud_id};
use crate::identity::Enrolled;
use crate::log::Chain;
use crate::sentinel::Event;
use crate::spool::{Dropped, Name};

/// How long a goodbye may take: systemd waits longer, a shutdown should not.
const GOODBYE: Duration = Duration::from_secs(3);
/// The same trouble is logged at most this often.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// A request that came back.
pub(super) enum Done {
    Enrolled(Result<Enrolled, Box<EnrolError>>),
    Renewed(Result<drift::enrolment::Identity, ClientError>),
    Reported(Name, Result<Verdict, ClientError>),
}

impl Daemon {
    /// Starts whatever is due and can be done.
    pub(super) fn drive(&mut self) {
        let now = Now::read();
        if self.link.is_none() {
            self.enrol(now);
            return;
        }
        self.renew(now);
        self.report(now);
    }

    /// Whether the instance is not enrolled and has nothing to enrol with.
    pub(super) fn lacks_a_token(&self) -> bool {
        self.link.is_none() && first_there(&self.config.token_files).is_none()
    }

    /// Where a join token is looked for, for people.
    pub(super) fn token_places(&self) -> String {
        let places: Vec<_> = self
            .config
            .token_files
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        places.join(" or ")
    }

    /// The configuration that holds now, if it is another one than ours. Looked at now and then and before each attempt
    /// to enrol, for it says where and as what; with one that is refused nothing is enrolled.
    pub(super) fn another_configuration(
        &mut self,
        waiting: &mut Waiting,
        sources: Sources<'_>,
    ) -> Option<Config> {
        let now = Now::read();
        if self.link.is_some() || self.enrolling.is_running {
            return None;
        }
        let is_about_to_enrol = self.enrolling.is_due(now.uptime) && !self.lacks_a_token();
        if !waiting.is_due(now.uptime) && !is_about_to_enrol {
            return None;
        }
        match sources.load() {
            Ok(other) => (other != self.config).then_some(other),
            Err(error) => {
                // It may be half written: what holds is what was read before, and this is looked at again.
                self.enrolling.fail(now.uptime);
                self.trouble(&error, now);
                None
            }
        }
    }

    fn enrol(&mut self, now: Now) {
        if !self.knows_image || !self.enrolling.is_due(now.uptime) {
            return;
        }
        let Some(token_file) = first_there(&self.config.token_files) else {
            return;
        };
        let arguments = EnrollArguments {
            collector: self.config.collector_url.clone(),
            ca_file: self.config.ca_file.clone(),
            fleet: self.config.fleet.clone(),
            token_file: token_file.to_owned(),
            state_directory: self.state.path().to_owned(),
            cloud_id: first_there(&self.config.cloud_id_files).and_then(read_cloud_id),
            image: self.sentinel.image().cloned(),
            build_time: self.build_time,
        };
        self.enrolling.is_running = true;
        match Applicant::prepare(&arguments, &self.clock) {
            Ok(applicant) => {
                let asking =
                    async move { Done::Enrolled(applicant.apply().await.map_err(Box::new)) };
                self.tasks.spawn(asking);
            }
            Err(error) => self.enrolled(Err(Box::new(error)), now),
        }
    }

    fn enrolled(&mut self, outcome: Result<Enrolled, Box<EnrolError>>, now: Now) {
        self.enrolling.is_running = false;
        match outcome {
            Ok(enrolled) => {
                tracing::info!(
                    instance = enrolled.instance,
                    fleet = enrolled.fleet,
                    "enrolled"
                );
                self.trouble = None;
                self.reload();
            }
            Err(error) => {
                self.enrolling.fail(now.uptime);
                self.trouble(&*error, now);
            }
        }
    }

    fn renew(&mut self, now: Now) {
        let Some(link) = self
            .link
            .as_ref()
            .filter(|link| now.uptime >= link.renew_at)
        else {
            return;
        };
        if !self.renewing.is_due(now.uptime) {
            return;
        }
        match link.renewal_request() {
            Ok(request) => {
                let client = link.client.clone();
                self.renewing.is_running = true;
                self.tasks
                    .spawn(async move { Done::Renewed(client.renew(&request).await) });
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
        let taken = match outcome {
            Ok(identity) => link.take(&identity, &self.clock, now),
            Err(error) => Err(RunError::from(error)),
        };
        match taken {
            Ok(()) => {
                self.renewing.now();
                self.loaded();
            }
            Err(error) => {
                self.renewing.fail(now.uptime);
                self.trouble(&error, now);
            }
        }
    }

    /// Takes over the identity that is on disk now: after enrolling, after renewing, after an operator was there.
    pub(super) fn reload(&mut self) {
        let now = Now::read();
        let changed = match &mut self.link {
            Some(link) => link.reload(&self.clock, now),
            None => Link::open(&self.config, &self.store, &self.clock, now).map(|link| {
                self.link = link;
                self.link.is_some()
            }),
        };
        match changed {
            Ok(true) => self.loaded(),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the identity on disk cannot be used; the old one stays");
            }
        }
    }

    fn loaded(&mut self) {
        self.reporting.now();
        let ends = self
            .link
            .as_ref()
            .map(|link| link.enrolled.certificates.not_after);
        tracing::info!(ends, "the certificate was loaded");
    }

    /// Sends what waits longest; a heartbeat only where nothing else waits.
    fn report(&mut self, now: Now) {
        let Some(link) = self
            .link
            .as_ref()
            .filter(|link| self.reporting.is_due(now.uptime) && !link.has_expired())
        else {
            return;
        };
        let client = link.client.clone();
        let mut dropped = Dropped::default();
        let head = self
            .spool
            .head(&mut dropped)
            .map(|head| (head.name, head.body));
        if let Some(event) = self.lost(dropped) {
            self.step(event, now);
        }
        let Some((name, body)) = head.or_else(|| self.mention.clone()) else {
            return;
        };
        self.reporting.is_running = true;
        self.tasks
            .spawn(async move { Done::Reported(name, client.report(body).await) });
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
        self.step(
            if is_of_this_run {
                Event::Acknowledged(verdict)
            } else {
                Event::AcknowledgedEarlier(verdict)
            },
            now,
        );
    }

    pub(super) fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
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
        if self
            .logged
            .is_none_or(|logged| now.uptime.saturating_sub(logged) >= LOG_PAUSE)
        {
            self.logged = Some(now.uptime);
            tracing::warn!(
                trouble = text,
                waiting = self.spool.len(),
                "the collector does not help"
            );
        }
        self.trouble = Some(text);
    }

    /// Tells the collector that this is a stop and no silence, if it can be told soon.
    pub(super) async fn say_goodbye(&mut self) {
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
}
