//! Receives a token; hands on a machine with an identity: an agent's side of the wire, without the agent.

use anyhow::Result;
use drift::coverage::{Coverage, ScanRecord};
use drift::enrolment::{EnrolRequest, Identity, RenewRequest};
use drift::finding::{Drift, set_digest};
use drift::report::{
    AgentBuild, ImageRef, OpenDrift, Part, Phase, Report, RunId, StateUpdate, Verdict,
};
use rcgen::KeyPair;
use serde_json::json;

use crate::forge;
use crate::wire::{Answer, Credentials, Wire};
use crate::world::World;

/// A machine with an identity: an agent's side of the wire, without the agent.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) key: KeyPair,
    pub(crate) identity: Identity,
    pub(crate) wire: Wire,
    pub(crate) run: RunId,
    pub(crate) sequence: u64,
    pub(crate) generation: u64,
    pub(crate) image: Option<ImageRef>,
}

impl Machine {
    /// Enrols with a token's secret, claiming to be `cloud_id`.
    pub(crate) fn enrol(
        world: &World,
        secret: &str,
        cloud_id: Option<&str>,
        image: Option<ImageRef>,
    ) -> Result<Self> {
        let key = forge::p256()?;
        let answer = world.stranger()?.post(
            "/v1/enroll",
            &enrolment(secret, &key, cloud_id, image.clone())?,
        )?;
        Self::of(world, answer.granted()?, key, image)
    }

    /// A machine that got this identity.
    pub(crate) fn of(
        world: &World,
        identity: Identity,
        key: KeyPair,
        image: Option<ImageRef>,
    ) -> Result<Self> {
        let credentials = Credentials {
            chain: forge::certificates(&identity.certificate)?,
            key: forge::private(&key),
        };
        Ok(Self {
            id: identity.instance.clone(),
            wire: Wire::to(world.collector.agents(), Some(&credentials))?,
            run: fresh_run(),
            sequence: 0,
            generation: 0,
            key,
            identity,
            image,
        })
    }

    /// Its certificate and key.
    pub(crate) fn credentials(&self) -> Result<Credentials> {
        Ok(Credentials {
            chain: forge::certificates(&self.identity.certificate)?,
            key: forge::private(&self.key),
        })
    }

    /// Its next report: it runs, has scanned everything, and this is open.
    pub(crate) fn next(&mut self, open: &[Drift]) -> Report {
        self.sequence += 1;
        self.generation += 1;
        let mut opened: Vec<OpenDrift> = open
            .iter()
            .map(|drift| OpenDrift {
                id: drift.id(),
                drift: drift.clone(),
                host_package: None,
            })
            .collect();
        opened.sort_by_key(|open| open.id);
        let scan = ScanRecord {
            entries: 5,
            bytes: 40,
            took_milliseconds: 1,
            ..ScanRecord::default()
        };
        Report {
            run: self.run,
            sequence: self.sequence,
            previous_run: None,
            part: Part::only(self.generation),
            agent: AgentBuild {
                version: "0.1.0".to_owned(),
                minor: 1,
                features: Vec::new(),
            },
            boot_id: "a-boot".to_owned(),
            phase: Phase::Running,
            image: self.image.clone(),
            unverifiable: None,
            states: StateUpdate::Whole,
            open_count: opened.len() as u64,
            set_digest: set_digest(opened.iter().map(|open| open.id)),
            opened,
            closed: Vec::new(),
            moments: Vec::new(),
            dropped_moments: 0,
            held_whole: false,
            held: Vec::new(),
            coverage: Coverage {
                verified_entries: 5,
                expected_entries: 5,
                seen: Some(scan),
                ..Coverage::default()
            },
            agent_clock: 0,
            uptime_seconds: 1,
        }
    }

    /// Sends a report.
    pub(crate) fn send(&self, report: &Report) -> Result<Answer> {
        self.wire.post("/v1/reports", report)
    }

    /// Sends bytes as if they were a report.
    pub(crate) fn send_bytes(&self, body: impl Into<Vec<u8>>) -> Result<Answer> {
        self.wire.send(
            "POST",
            "/v1/reports",
            &[("content-type", "application/json")],
            body,
        )
    }

    /// Reports that nothing is open.
    pub(crate) fn report_clean(&mut self) -> Result<Verdict> {
        let report = self.next(&[]);
        self.send(&report)?.granted()
    }

    /// Reports that this is open.
    pub(crate) fn report_drift(&mut self, open: &[Drift]) -> Result<Verdict> {
        let report = self.next(open);
        self.send(&report)?.granted()
    }

    /// Asks for another certificate over `wire`, with a request by `key`.
    pub(crate) fn renew_over(
        wire: &Wire,
        key: &KeyPair,
        expired: Option<String>,
    ) -> Result<Answer> {
        wire.post(
            "/v1/renew",
            &RenewRequest {
                csr: forge::request(key)?,
                expired,
            },
        )
    }
}

/// What an agent sends to enrol.
pub(crate) fn enrolment(
    secret: &str,
    key: &KeyPair,
    cloud_id: Option<&str>,
    image: Option<ImageRef>,
) -> Result<EnrolRequest> {
    Ok(EnrolRequest {
        token: secret.to_owned(),
        csr: forge::request(key)?,
        cloud_id: cloud_id.map(str::to_owned),
        fleet: None,
        image,
        boot_id: "a-boot".to_owned(),
    })
}

/// A run that was not heard of.
pub(crate) fn fresh_run() -> RunId {
    use ring::rand::SecureRandom as _;
    let mut run = [0; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut run)
        .expect("the system gives random numbers");
    RunId(run)
}

/// A drift that is worth a replacement, told apart by its number.
pub(crate) fn intrusion(number: usize) -> Drift {
    let drift = json!({
        "path": format!("/usr/bin/added-{number}"), "kind": "added", "class": "program", "severity": "critical",
    });
    serde_json::from_value(drift).expect("a drift")
}
