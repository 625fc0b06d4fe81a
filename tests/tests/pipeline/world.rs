//! Receives an image; hands on a collector that knows it, in a lab of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use driftmark_tests::patience::until;
use driftmark_tests::{Collector, CollectorOptions, Image, Instance, Lab};
use serde_json::Value;

/// A first boot with cloud-init, on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The scripts for image builders, in this source tree.
pub(crate) fn scripts() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image")).to_owned()
}

/// A collector of two fleets that look on, and a lab for their machines.
pub(crate) struct World {
    pub(crate) collector: Collector,
    pub(crate) lab: Lab,
}

impl World {
    /// One that knows `image`, signed with the pair of this public key.
    pub(crate) fn of(image: &Image, public: &Path) -> Result<Self> {
        let lab = Lab::new()?;
        let fleet = |name: &str| {
            format!("[[fleet]]\nname = \"{name}\"\nchannel = \"stable\"\nmode = \"observe\"\n")
        };
        let options = CollectorOptions {
            fleets: format!("{}{}", fleet("web"), fleet("db")),
            configuration: "heartbeat = \"1s\"\n".to_owned(),
            ..CollectorOptions::default()
        };
        let collector = Collector::in_lab(&lab, options)?;
        collector.cli([Path::new("key"), Path::new("add"), public])?;
        let (add, stable) = (["image", "add"], ["--channel", "stable"]);
        let arguments = add.iter().map(Path::new).chain([image.manifest.as_path()]);
        collector.cli(arguments.chain(stable.iter().map(Path::new)))?;
        Ok(Self { collector, lab })
    }

    /// Waits for the one instance to be clean, and shows it.
    pub(crate) fn clean(&self, instance: &Instance) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until("a clean instance", LIMIT, || {
            let listed = self.collector.json(["instance", "list"])?;
            let listed = listed.get("instances").cloned().unwrap_or(listed);
            let Some(id) = listed[0]["id"].as_str() else {
                return Ok(None);
            };
            last = self
                .collector
                .json(["instance", "show", id, "--limit", "1000"])?;
            Ok((last["state"] == "clean").then(|| last.clone()))
        });
        waited.with_context(|| {
            format!(
                "the collector has: {last:#}\nthe agent said:\n{}\nits status:\n{}",
                instance.journal("driftmark-agent").unwrap_or_default(),
                instance
                    .exec("driftmark-agent status 2>&1 || true")
                    .unwrap_or_default()
            )
        })
    }
}
