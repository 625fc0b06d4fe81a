//! Receives nothing; hands on the image that boots as a machine, and a collector that knows it.

use anyhow::{Context, Result};
use driftmark_tests::process::Program;
use driftmark_tests::{
    Collector, CollectorOptions, Image, Kernel, Lab, Machine, MachineOptions, Recipe, Workshop,
    packages,
};

/// The policy of a fleet in which nothing is replaced.
const FLEETS: &str = "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"observe\"\n";

/// A lab with a collector in it that knows the machine's image.
pub(crate) struct World {
    pub(crate) collector: Collector,
    pub(crate) lab: Lab,
    pub(crate) image: Image,
}

impl World {
    /// Makes it; `agent` is baked into the image as the agent's configuration.
    pub(crate) fn new(agent: &str) -> Result<Self> {
        // What is shipped: an emulated processor makes the tests' own build slower than it deserves.
        let shipped = packages::deb(Program::Agent)?;
        Self::of(agent, |recipe| recipe.agent_package(shipped))
    }

    /// The same with an image of this recipe, and the agent that cargo built.
    pub(crate) fn of(agent: &str, with: impl FnOnce(Recipe) -> Recipe) -> Result<Self> {
        let workshop = Workshop::open()?;
        let program = Program::Agent.path()?;
        let keys = workshop.keys(&program)?;
        let recipe = Recipe::new("web", "1")
            .kernel(&Kernel::newest(&workshop)?)
            .file("/usr/lib/driftmark/agent.d/50-story.toml", 0o644, agent);
        let recipe = with(recipe);
        let image = recipe.build(&workshop, &program, &keys)?;
        let lab = Lab::new()?;
        let options = CollectorOptions {
            fleets: FLEETS.to_owned(),
            configuration: "heartbeat = \"2s\"\n".to_owned(),
            ..CollectorOptions::default()
        };
        let collector = Collector::in_lab(&lab, options)?;
        let public = keys.public.to_str().context("a path that is text")?;
        collector.cli(["key", "add", public])?;
        let manifest = image.manifest.to_str().context("a path that is text")?;
        collector.cli(["image", "add", manifest, "--channel", "stable"])?;
        Ok(Self {
            collector,
            lab,
            image,
        })
    }

    /// Boots a machine of this cloud id with a token of its own.
    pub(crate) fn boot(&self, cloud_id: &str, options: MachineOptions) -> Result<Machine> {
        let options = MachineOptions {
            token: Some(self.collector.join_token("web", Some(cloud_id))?),
            cloud_id: Some(cloud_id.to_owned()),
            ..options
        };
        Machine::boot(&self.lab, &self.image, cloud_id, &options)
    }

    /// What the collector has of the machine with this cloud id.
    pub(crate) fn row(&self, cloud_id: &str) -> Result<serde_json::Value> {
        let listed = self.collector.json(["instance", "list"])?;
        let listed = listed.get("instances").cloned().unwrap_or(listed);
        let found = listed
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["cloud_id"] == cloud_id));
        found
            .cloned()
            .with_context(|| format!("{cloud_id} in {listed:#}"))
    }
}
