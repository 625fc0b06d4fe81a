//! A tree that is baked and then watched, and what the watch has told of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use drift::TreePath;
use drift::attribution::{Attribution, Process};
use drift::compare::Finding;
use drift::finding::Drift;
use driftmark_agent::bake::{self, BakeArguments};
use driftmark_agent::baseline::{Baseline, BaselinePaths};
use driftmark_agent::keygen;
use driftmark_agent::scan::look::Covering;
use driftmark_agent::scan::{self, Pass, ScanRequest, Verified};
use driftmark_agent::sweep::{SweepRequest, Sweeper, Swept};
use driftmark_agent::watch::attribution::CommandLine;
use driftmark_agent::watch::{LiveWatch, Order, Told};

use crate::place::SOON;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    bake: BakeArguments,
}

/// What is open, by path.
pub(crate) type Open = BTreeMap<TreePath, Drift>;

pub(crate) struct World {
    pub(crate) root: PathBuf,
    pub(crate) open: Open,
    pub(crate) actors: BTreeMap<TreePath, Arc<Attribution>>,
    pub(crate) passed: Vec<Drift>,
    pub(crate) executed: Vec<Drift>,
    pub(crate) doubts: usize,
    /// How often it has begun to watch.
    pub(crate) beginnings: usize,
    pub(crate) blind: Vec<(Duration, Duration)>,
    /// What is seen less.
    pub(crate) limits: Vec<String>,
    baseline: Arc<Baseline>,
    told: Receiver<Told>,
    watch: LiveWatch,
}

impl World {
    /// Bakes what `script` makes in `top/root`, with these rules, and watches all of it.
    pub(crate) fn new(home: &Path, top: &Path, script: &str, rules: &str) -> World {
        let world = World::limited(home, top, script, rules);
        assert_eq!(world.limits, [""; 0]);
        world
    }

    /// The same, where not all can be seen.
    pub(crate) fn limited(home: &Path, top: &Path, script: &str, rules: &str) -> World {
        World::held_up(home, top, script, rules, |_| {})
    }

    /// The same, with a watch that is kept waiting by `hold` whenever it tells something.
    pub(crate) fn held_up(
        home: &Path,
        top: &Path,
        script: &str,
        rules: &str,
        hold: impl Fn(&Told) + Send + Sync + 'static,
    ) -> World {
        let root = top.join("root");
        std::fs::create_dir(&root).unwrap();
        sh(&root, script);
        let baseline = Arc::new(baked(home, &root, rules));
        let (tell, told) = channel();
        let order = Order {
            baseline: Arc::clone(&baseline),
            root: root.clone(),
            command_line: CommandLine::Redacted,
            keeper: Arc::default(),
            seen_until: None,
        };
        let watch = LiveWatch::start(order, move |told| {
            hold(&told);
            // Nobody listens once the test is over.
            let _ = tell.send(told);
        });
        let mut world = World {
            root,
            open: Open::new(),
            actors: BTreeMap::new(),
            passed: Vec::new(),
            executed: Vec::new(),
            doubts: 0,
            beginnings: 1,
            blind: Vec::new(),
            limits: Vec::new(),
            baseline,
            told,
            watch: watch.unwrap(),
        };
        match world.told.recv_timeout(SOON).unwrap() {
            Told::Watching { limits, .. } => world.limits = limits,
            other => panic!("{other:?}"),
        }
        world.open = world.scanned();
        world
    }

    /// Runs a script in the tree.
    pub(crate) fn sh(&self, script: &str) {
        sh(&self.root, script);
    }

    /// Sweeps the processes. Of the files that are named it is known that they are other than they should be.
    pub(crate) fn sweep(&self, sweeper: &mut Sweeper, drifted: &[&str]) -> Swept {
        let drifted = drifted
            .iter()
            .map(|path| TreePath::new(path.as_bytes()).unwrap());
        let request = SweepRequest {
            baseline: &self.baseline,
            drifted: &drifted.collect(),
        };
        sweeper.sweep(request).unwrap()
    }

    /// As the daemon does after a sweep.
    pub(crate) fn look_at(&self, swept: Swept) {
        self.watch.look_at(swept.mapped);
    }

    pub(crate) fn container_starts(&self) -> u64 {
        self.watch.container_starts()
    }

    /// Quick passes, one after the other: what is open after each.
    pub(crate) fn quick(&self) -> impl FnMut(&World) -> Open + use<> {
        let mut verified = Verified::default();
        self.found(Pass::Full, &mut verified);
        move |world| world.found(Pass::Quick, &mut verified)
    }

    /// Takes what is told until it comes to what a scan says.
    pub(crate) fn comes_to_what_a_scan_says(&mut self, story: &str) {
        let began = Instant::now();
        loop {
            while let Ok(told) = self.told.recv_timeout(Duration::from_millis(100)) {
                self.take(told);
            }
            let scanned = self.scanned();
            if self.open == scanned {
                return;
            }
            assert!(
                began.elapsed() < SOON,
                "{story}: the watch says {:#?}\na scan says {scanned:#?}",
                self.open
            );
        }
    }

    /// Takes what is told until `is_there`.
    pub(crate) fn until(&mut self, story: &str, is_there: impl Fn(&World) -> bool) {
        let began = Instant::now();
        while !is_there(self) {
            assert!(began.elapsed() < SOON, "{story}: {:#?}", self.open);
            if let Ok(told) = self.told.recv_timeout(Duration::from_millis(100)) {
                self.take(told);
            }
        }
    }

    /// The process that did something at a path.
    pub(crate) fn actor(&self, path: &str) -> Option<&Process> {
        let path = TreePath::new(path.as_bytes()).unwrap();
        let above = std::iter::successors(Some(path), TreePath::parent);
        let actor = above.into_iter().find_map(|path| self.actors.get(&path))?;
        actor.process.as_ref()
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Seen(seen) => {
                let covering = Covering::of(&seen.looks);
                let is_unseen = |path: &TreePath| seen.unseen.iter().any(|gap| path.is_within(gap));
                self.open
                    .retain(|path, _| !covering.covers(path) || is_unseen(path));
                for drift in seen.drifts {
                    self.open.insert(drift.path.clone(), drift);
                }
                self.actors.extend(seen.actors);
                self.passed.extend(seen.passed);
                if seen.is_in_doubt {
                    self.in_doubt();
                }
            }
            Told::InDoubt => self.in_doubt(),
            Told::Blind { from, until } => {
                self.blind.push((from, until));
                self.in_doubt();
            }
            Told::Executed(drift) => self.executed.push(*drift),
            Told::Watching { limits, .. } => {
                self.limits = limits;
                self.beginnings += 1;
                self.in_doubt();
            }
            Told::Ended(why) => panic!("{why}"),
        }
    }

    /// As the daemon does: a pass tells.
    fn in_doubt(&mut self) {
        self.doubts += 1;
        self.open = self.scanned();
    }

    fn scanned(&self) -> Open {
        self.found(Pass::Full, &mut Verified::default())
    }

    fn found(&self, pass: Pass, verified: &mut Verified) -> Open {
        let request = ScanRequest {
            baseline: &self.baseline,
            root: &self.root,
            pass,
            threads: 2,
            held_length: &|_| None,
            interrupt: &AtomicBool::new(false),
            pace: None,
            order: scan::Order::OfPaths,
            progress: &|_| {},
        };
        let mut open = Open::new();
        scan::scan(&request, verified, &mut |finding| {
            if let Finding::Drift(found) = finding {
                open.insert(found.drift.path.clone(), found.drift);
            }
        })
        .unwrap();
        open
    }
}

fn sh(directory: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-euc", script]).current_dir(directory);
    assert!(shell.status().unwrap().success(), "{script}");
}

fn baked(home: &Path, root: &Path, rules: &str) -> Baseline {
    let written = home.join("rules.toml");
    let rules = match rules {
        "" => PathBuf::from("none"),
        rules => {
            std::fs::write(&written, rules).unwrap();
            written
        }
    };
    let (output, keys) = (home.join("out"), home.join("keys"));
    let pair = keygen::keygen(&keys).unwrap();
    let flags = Flags::parse_from([
        "bake".as_ref(),
        "--root".as_ref(),
        root.as_os_str(),
        "--output".as_ref(),
        output.as_os_str(),
        "--key".as_ref(),
        pair.private.as_os_str(),
        "--name=watched".as_ref(),
        "--version=1".as_ref(),
        "--filesystem=none".as_ref(),
        "--rules".as_ref(),
        rules.as_os_str(),
    ]);
    bake::bake(&flags.bake, &AtomicBool::new(false), &|_| {}, &|_, _| {}).unwrap();
    let paths = BaselinePaths {
        manifest: output.join("image.manifest"),
        signature: output.join("image.manifest.sig"),
        trust: vec![pair.public],
    };
    Baseline::open(&paths).unwrap()
}
