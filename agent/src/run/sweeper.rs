//! Receives when to sweep the processes, and against what; hands back what was found. On a thread of its own, at the lowest
//! priority, that is waked by nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as orders;

use drift::{Blake3, TreePath};
use tokio::sync::mpsc;

use crate::baseline::Baseline;
use crate::config::Config;
use crate::log::Chain;
use crate::scan::filesystems::canonical;
use crate::sweep::{SweepRequest, Sweeper, Swept};
use crate::watch::attribution::CommandLine;

/// What came of a sweep, or why nothing did.
pub(super) type Sweeping = Result<Box<Swept>, String>;

/// The thread, from outside.
#[derive(Debug)]
pub(super) struct Sweeps {
    orders: orders::SyncSender<Ordered>,
    /// What holds now.
    pub(super) baseline: Option<Arc<Baseline>>,
}

#[derive(Debug)]
struct Ordered {
    baseline: Arc<Baseline>,
    drifted: BTreeSet<TreePath>,
}

impl Sweeps {
    pub(super) fn start(config: &Config) -> std::io::Result<(Self, mpsc::Receiver<Sweeping>)> {
        let (orders, received) = orders::sync_channel(1);
        let (told, hearing) = mpsc::channel(1);
        let (root, command_line) = (config.root.clone(), config.command_line);
        std::thread::Builder::new()
            .name("processes".into())
            .spawn(move || until_closed(&root, command_line, &received, &told))?;
        let sweeps = Sweeps {
            orders,
            baseline: None,
        };
        Ok((sweeps, hearing))
    }

    /// Orders a sweep. Whether there is anything to hold processes against.
    pub(super) fn order(&self, drifted: BTreeSet<TreePath>) -> bool {
        let Some(baseline) = self.baseline.clone() else {
            return false;
        };
        let ordered = Ordered { baseline, drifted };
        self.orders.try_send(ordered).is_ok()
    }
}

fn until_closed(
    root: &Path,
    command_line: CommandLine,
    orders: &orders::Receiver<Ordered>,
    told: &mpsc::Sender<Sweeping>,
) {
    let _ = rustix::process::setpriority_process(None, 19);
    let mut sweeper: Option<(Blake3, Sweeper)> = None;
    while let Ok(order) = orders.recv() {
        let manifest = order.baseline.manifest.identity().blake3;
        let is_it = |(of, _): &(Blake3, Sweeper)| *of == manifest;
        let sweeping = match (sweeper.take().filter(is_it), canonical(root)) {
            (Some((_, sweeper)), _) => Ok(sweeper),
            (None, Ok(root)) => Ok(Sweeper::new(&root, command_line)),
            (None, Err(error)) => Err(format!("open the root: {}", Chain(&error))),
        };
        let swept = sweeping.and_then(|mut own| {
            let request = SweepRequest {
                baseline: &order.baseline,
                drifted: &order.drifted,
            };
            let swept = own.sweep(request);
            sweeper = Some((manifest, own));
            swept
                .map(Box::new)
                .map_err(|error| Chain(&error).to_string())
        });
        drop(order);
        if told.blocking_send(swept).is_err() {
            return;
        }
    }
}
