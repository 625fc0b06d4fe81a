//! Receives nothing; hands on the whole world of Driftmark in one place: image, lab, collector, cloud, fleet.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cloud::{self, Cloud};
use crate::collector::{Collector, CollectorOptions};
use crate::image::{Image, Keys, Recipe, Workshop};
use crate::lab::Lab;
use crate::patience::until;
use crate::process::Program;

/// The fleet's name, and that of its image.
pub const FLEET: &str = "web";

/// A fleet of real instances under a real collector.
#[derive(Debug)]
pub struct Fleet {
    /// Machines first: they are gone before their network is.
    pub cloud: Arc<Cloud>,
    /// The collector.
    pub collector: Arc<Collector>,
    /// Where all of it is.
    pub lab: Arc<Lab>,
    /// What the machines boot.
    pub image: Image,
    /// What signs images.
    pub keys: Keys,
}

/// What a story wants to be otherwise.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Lines of the fleet's policy, without `name`, `channel` and `replacer`.
    pub policy: String,
    /// Lines of the collector's configuration.
    pub configuration: String,
    /// Lines of the agents' configuration, baked into the image.
    pub agent: String,
    /// The image's version.
    pub version: String,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            policy: "mode = \"replace\"\ngrace = \"0s\"\nparallel = 1\nstop-above = \"50%\"\n".to_owned(),
            configuration: "heartbeat = \"1s\"\n".to_owned(),
            agent: "[scan]\nquick-interval = \"1s\"\n".to_owned(),
            version: "1".to_owned(),
        }
    }
}

impl Fleet {
    /// Makes the image, starts the collector with it as last good, and a cloud without machines.
    ///
    /// # Errors
    /// A step did not work.
    pub fn new(options: &FleetOptions) -> Result<Self> {
        let workshop = Workshop::open()?;
        let agent = Program::Agent.path()?;
        let keys = workshop.keys(&agent)?;
        let image = recipe(options).build(&workshop, &agent, &keys)?;
        let lab = Arc::new(Lab::new()?);
        let socket = lab.directory().join("cloud.sock");
        let fleets = format!(
            "[[fleet]]\nname = \"{FLEET}\"\nchannel = \"stable\"\n{}replacer = {{ command = {}, timeout = \"2m\" }}\n",
            options.policy,
            cloud::command(&socket)?
        );
        let configuration = options.configuration.clone();
        let collector = CollectorOptions { fleets, configuration, ..CollectorOptions::default() };
        let collector = Arc::new(Collector::in_lab(&lab, collector)?);
        collector.cli(["key", "add"].iter().map(AsRef::as_ref).chain([keys.public.as_os_str()]))?;
        let fleet = Self {
            cloud: Cloud::new(Arc::clone(&lab), Arc::clone(&collector), FLEET, image.clone()),
            collector,
            lab,
            image,
            keys,
        };
        fleet.register(&fleet.image)?;
        fleet.cloud.serve(&socket)?;
        Ok(fleet)
    }

    /// Registers an image and makes it the one that the fleet should run.
    ///
    /// # Errors
    /// The collector refuses it.
    pub fn register(&self, image: &Image) -> Result<()> {
        let manifest = image.manifest.to_str().context("a path that is text")?;
        self.collector.cli(["image", "add", manifest, "--channel", "stable"]).map(drop)
    }

    /// All instances as the collector has them.
    ///
    /// # Errors
    /// The collector does not answer.
    pub fn instances(&self) -> Result<Vec<Value>> {
        let listed = self.collector.json(["instance", "list"])?;
        let listed = listed.get("instances").cloned().unwrap_or(listed);
        Ok(listed.as_array().context("a list of instances")?.clone())
    }

    /// The collector's row of the machine that it knows by this cloud id, the newest.
    ///
    /// # Errors
    /// The collector does not answer, or knows no such machine.
    pub fn instance(&self, cloud_id: &str) -> Result<Value> {
        let found = self.instances()?.into_iter().find(|instance| instance["cloud_id"] == cloud_id);
        found.with_context(|| format!("the collector knows no machine {cloud_id}"))
    }

    /// Waits until the collector holds a machine to be in this state; gives its row.
    ///
    /// # Errors
    /// The time is over; the message has the last row.
    pub fn wait_for(&self, cloud_id: &str, state: &str, limit: Duration) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until(&format!("{cloud_id} to be {state}"), limit, || {
            last = self.instance(cloud_id).unwrap_or_default();
            Ok((last["state"] == state).then(|| last.clone()))
        });
        waited.with_context(|| format!("the last row: {last}\nthe collector:\n{}", self.collector.output()))
    }

    /// Launches so many machines and waits until all are clean; gives their cloud ids.
    ///
    /// # Errors
    /// One did not come up, or is not clean in time.
    pub fn launch_clean(&self, count: usize) -> Result<Vec<String>> {
        let ids: Vec<String> = std::thread::scope(|scope| {
            let booting: Vec<_> = (0..count).map(|_| scope.spawn(|| self.cloud.launch())).collect();
            booting.into_iter().map(|thread| thread.join().expect("launching does not panic")).collect::<Result<_>>()
        })?;
        for id in &ids {
            self.wait_for(id, "clean", Duration::from_secs(120))?;
        }
        Ok(ids)
    }
}

/// The image of a fleet with these options.
pub fn recipe(options: &FleetOptions) -> Recipe {
    let recipe = Recipe::new(FLEET, &options.version);
    recipe.file("/usr/lib/driftmark/agent.d/50-fleet.toml", 0o644, options.agent.clone())
}
