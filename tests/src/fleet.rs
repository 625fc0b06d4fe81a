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
    replacer: String,
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
    /// What the image is made of, where it is not the smallest that boots.
    pub recipe: Option<Recipe>,
    /// The replacer as TOML, where it is not the lab's cloud.
    pub replacer: Option<String>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            policy: "mode = \"replace\"\ngrace = \"0s\"\nparallel = 1\nstop-above = \"50%\"\n"
                .to_owned(),
            configuration: "heartbeat = \"1s\"\n".to_owned(),
            agent: "[scan]\nquick-interval = \"1s\"\n".to_owned(),
            version: "1".to_owned(),
            recipe: None,
            replacer: None,
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
        let replacer = match &options.replacer {
            Some(replacer) => replacer.clone(),
            None => format!(
                "{{ command = {}, timeout = \"2m\" }}",
                cloud::command(&socket)?
            ),
        };
        let fleets = fleets(&options.policy, &replacer);
        let configuration = options.configuration.clone();
        let collector = CollectorOptions {
            fleets,
            configuration,
            ..CollectorOptions::default()
        };
        let collector = Arc::new(Collector::in_lab(&lab, collector)?);
        collector.cli(
            ["key", "add"]
                .iter()
                .map(AsRef::as_ref)
                .chain([keys.public.as_os_str()]),
        )?;
        let fleet = Self {
            cloud: Cloud::new(
                Arc::clone(&lab),
                Arc::clone(&collector),
                FLEET,
                image.clone(),
            ),
            collector,
            lab,
            image,
            keys,
            replacer,
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
        self.collector
            .cli(["image", "add", manifest, "--channel", "stable"])
            .map(drop)
    }

    /// Has another policy hold from the collector's next look at it, which is within a second.
    ///
    /// # Errors
    /// The fleets file cannot be written.
    pub fn set_policy(&self, policy: &str) -> Result<()> {
        self.collector.set_fleets(&fleets(policy, &self.replacer))
    }

    /// All orders as the collector has them, the newest first.
    ///
    /// # Errors
    /// The collector does not answer.
    pub fn orders(&self) -> Result<Vec<Value>> {
        let listed = self.collector.json(["order", "list", "--all"])?;
        Ok(listed.as_array().context("a list of orders")?.clone())
    }

    /// Waits until the newest order for an instance is in this state; gives it.
    ///
    /// # Errors
    /// The time is over; the message has all orders.
    pub fn wait_for_order(&self, instance: &str, state: &str, limit: Duration) -> Result<Value> {
        let mut all = Vec::new();
        let waited = until(
            &format!("an order for {instance} to be {state}"),
            limit,
            || {
                all = self.orders()?;
                let newest = all.iter().find(|order| order["instance"] == instance);
                Ok(newest.filter(|order| order["state"] == state).cloned())
            },
        );
        waited.with_context(|| {
            format!(
                "the orders: {all:#?}\nthe collector:\n{}",
                self.collector.output()
            )
        })
    }

    /// The ledger, the oldest entry first; a story has fewer entries than a page.
    ///
    /// # Errors
    /// The collector does not answer.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        let listed = self.collector.json(["ledger", "list", "--limit", "1000"])?;
        let mut entries = listed.as_array().context("a list of entries")?.clone();
        entries.reverse();
        Ok(entries)
    }

    /// The kinds of the ledger's entries about one instance, order, image or key, the oldest first.
    ///
    /// # Errors
    /// The collector does not answer.
    pub fn ledger_about(&self, subject: &str) -> Result<Vec<String>> {
        let about = |entry: &Value| {
            (entry["subject"] == subject)
                .then(|| entry["kind"].as_str().unwrap_or_default().to_owned())
        };
        Ok(self.ledger()?.iter().filter_map(about).collect())
    }

    /// One instance with everything that the collector knows of it.
    ///
    /// # Errors
    /// The collector does not know it.
    pub fn show(&self, id: &str) -> Result<Value> {
        self.collector
            .json(["instance", "show", id, "--limit", "1000"])
    }

    /// The paths that are open on an instance, sorted.
    ///
    /// # Errors
    /// The collector does not know it.
    pub fn open_paths(&self, id: &str) -> Result<Vec<String>> {
        let shown = self.show(id)?;
        let drifts = shown["drifts"].as_array().context("a list of drifts")?;
        let path = |drift: &Value| {
            drift["drift"]["path"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut paths: Vec<_> = drifts.iter().map(path).collect();
        paths.sort();
        Ok(paths)
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
        let found = self
            .instances()?
            .into_iter()
            .rfind(|instance| instance["cloud_id"] == cloud_id);
        found.with_context(|| format!("the collector knows no machine {cloud_id}"))
    }

    /// The collector's id of a machine.
    ///
    /// # Errors
    /// The collector does not answer, or knows no such machine.
    pub fn id(&self, vm: &str) -> Result<String> {
        let id = self.instance(vm)?["id"].as_str().map(str::to_owned);
        id.context("an instance has an id")
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
        waited.with_context(|| {
            format!(
                "the last row: {last}\nthe collector:\n{}",
                self.collector.output()
            )
        })
    }

    /// Launches so many machines, all at once; gives their cloud ids.
    ///
    /// # Errors
    /// One did not come up.
    pub fn launch(&self, count: usize) -> Result<Vec<String>> {
        std::thread::scope(|scope| {
            let booting: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| self.cloud.launch()))
                .collect();
            booting
                .into_iter()
                .map(|thread| thread.join().expect("launching does not panic"))
                .collect()
        })
    }

    /// Launches so many machines and waits until all are clean; gives their cloud ids.
    ///
    /// # Errors
    /// One did not come up, or is not clean in time.
    pub fn launch_clean(&self, count: usize) -> Result<Vec<String>> {
        let ids = self.launch(count)?;
        for id in &ids {
            self.wait_for(id, "clean", Duration::from_secs(120))?;
        }
        Ok(ids)
    }
}

/// The text of a fleets file with the one fleet.
fn fleets(policy: &str, replacer: &str) -> String {
    format!("[[fleet]]\nname = \"{FLEET}\"\nchannel = \"stable\"\n{policy}replacer = {replacer}\n")
}

/// The image of a fleet with these options.
pub fn recipe(options: &FleetOptions) -> Recipe {
    let plain = || Recipe::new(FLEET, &options.version);
    options.recipe.clone().unwrap_or_else(plain).file(
        "/usr/lib/driftmark/agent.d/50-fleet.toml",
        0o644,
        options.agent.clone(),
    )
}
