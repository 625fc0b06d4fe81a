//! The same changes, side by side, as the agent, auditd, inotifywait and AIDE tell of them; what each misses, and what it costs.

mod changes;
mod ground;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use driftmark_tests::Collector;
use serde_json::Value;

use self::changes::{CHANGES, Change};
use self::ground::Ground;
use crate::agent::Agent;
use crate::aide::Aide;
use crate::machine;
use crate::peers::Peer;
use crate::spread::quantile;
use crate::watched::{self, Said, Watched, instance};
use crate::writer::write_each;

/// Whoever has not told of a change by then is late.
const WINDOW: Duration = Duration::from_secs(3);
/// Files that are written for the latency, one after the other.
const WRITES: usize = 200;
const APART: Duration = Duration::from_millis(20);
/// Files that are written for the cost, as fast as they can be.
const MANY: usize = 20_000;

/// What everybody said of one change.
struct Told {
    ours: BTreeSet<String>,
    peers: Vec<BTreeSet<String>>,
}

pub(super) fn measure(_: &Path) -> Result<String> {
    let ground = Ground::new()?;
    for change in &CHANGES {
        ground.prepare(change.name)?;
    }
    for nth in 0..WRITES {
        fs::write(ground.root().join(format!("plain/{nth}")), "as baked\n")
            .context("make the tree")?;
    }
    let agent = Agent::new(&ground.root())?;
    agent.bake()?;
    let aide = Aide::new(&ground.root(), machine::threads())?;
    aide.as_ref().map(Aide::init).transpose()?;
    let collector = watched::collector(&agent)?;
    let watched = Watched::start(&agent, "")?;
    instance(&collector, |row| row["state"] == "clean")?;
    let mut notes = Vec::new();
    let started = [
        Peer::auditd(&ground.beside("auditd"), &ground.root()),
        Peer::inotifywait(&ground.root()),
    ];
    let peers: Vec<Peer> = started
        .into_iter()
        .filter_map(|peer| peer.map_err(|why| notes.push(format!("{why:#}"))).ok())
        .collect();
    let mut told = Vec::new();
    for change in &CHANGES {
        eprintln!("  {}", change.what);
        told.push(one(change, &ground, &collector, &peers)?);
    }
    let latencies = latencies(&ground, &watched, &peers)?;
    // Whoever writes waits for nobody; what was written is told of meanwhile.
    let costs = costs(&ground, &watched, &peers)?;
    let late = ours(&collector)?;
    let checked = aide.as_ref().map(Aide::check).transpose()?;
    let reported = aide.as_ref().map(Aide::report).unwrap_or_default();
    let scanned = [agent.paths(&[])?, agent.paths(&["--disk"])?];
    let mut text = heading(&peers);
    for (change, told) in CHANGES.iter().zip(&told) {
        let own = match told.ours.is_empty() {
            false => listed(&told.ours),
            true => later(change, &late, &scanned),
        };
        let cells = told
            .peers
            .iter()
            .map(listed)
            .map(|cell| format!("| {cell} "));
        let by_aide = by_aide(&reported, &ground, change);
        let cells: String = cells.collect();
        text.push_str(&format!("| {} | {own} {cells}| {by_aide} |\n", change.what));
    }
    text.push_str(&format!(
        "\nEach change alone, in a directory of its own; told within {} s, or how else. AIDE is asked once, after all of them.\n\n",
        WINDOW.as_secs()
    ));
    text.push_str(&latencies);
    text.push_str(&costs);
    if let Some(run) = checked {
        text.push_str(&format!(
            "| `aide --check`, once | {:.2} s | {:.1} MiB |\n",
            run.wall.as_secs_f64(),
            run.peak_kib.unwrap_or_default() as f64 / 1024.0
        ));
    }
    text.push_str(&format!("\n{}\n", cost_note()));
    for note in notes {
        text.push_str(&format!("Not measured: {note}.\n"));
    }
    Ok(text)
}

/// Makes one change, and takes what everybody says of it.
fn one(change: &Change, ground: &Ground, collector: &Collector, peers: &[Peer]) -> Result<Told> {
    for peer in peers {
        let _ = peer.all_said();
    }
    let began = Instant::now();
    ground.run(change.name, change.script)?;
    let mut told = Told {
        ours: BTreeSet::new(),
        peers: vec![BTreeSet::new(); peers.len()],
    };
    // All of the window: what is told first need not be all, and what is put back is told of no longer.
    while began.elapsed() < WINDOW {
        let mut all = ours(collector)?;
        told.ours
            .append(all.entry(change.name.to_owned()).or_default());
        machine::let_pass(Duration::from_millis(10));
    }
    for (peer, told) in peers.iter().zip(&mut told.peers) {
        let said = peer.all_said();
        told.extend(words(peer, &said, &ground.at(change.name)));
    }
    Ok(told)
}

/// What the collector has, by the directory of the change.
fn ours(collector: &Collector) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (query, is_over) in [
        ("SELECT drift FROM drifts WHERE drift IS NOT NULL", ""),
        ("SELECT drift FROM moments", " and put back"),
    ] {
        for row in collector.database(query)? {
            let drift: Value = serde_json::from_str(&row).context("read a drift")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let path = text(&drift["path"]);
            let place = path.trim_start_matches('/').split('/').next();
            let program = text(&drift["attribution"]["process"]["executable"]["path"]);
            let by = match program.rsplit_once('/') {
                Some((_, name)) => format!(" by {name}"),
                None => String::new(),
            };
            let kind = text(&drift["kind"]);
            let over = match kind.as_str() {
                "executed" => "",
                _ => is_over,
            };
            all.entry(place.unwrap_or_default().to_owned())
                .or_default()
                .insert(format!("{kind}{over}{by}"));
        }
    }
    Ok(all)
}

/// How what the watch did not tell in time is told else.
fn later(
    change: &Change,
    late: &BTreeMap<String, BTreeSet<String>>,
    [scanned, swept]: &[BTreeSet<String>; 2],
) -> String {
    let is_in = |paths: &BTreeSet<String>| {
        let below = format!("/{}/", change.name);
        paths.iter().any(|path| path.starts_with(&below))
    };
    if let Some(late) = late.get(change.name).filter(|late| !late.is_empty()) {
        format!("later: {}", listed(late))
    } else if is_in(scanned) {
        "**no**; a scan finds it".to_owned()
    } else if is_in(swept) {
        "**no**; a sweep of the disk finds it".to_owned()
    } else {
        "**no**".to_owned()
    }
}

fn by_aide(report: &str, ground: &Ground, change: &Change) -> String {
    let below = format!("{}/", ground.at(change.name).display());
    let mut kinds = BTreeSet::new();
    for line in report.lines() {
        let Some((how, path)) = line.split_once(": ") else {
            continue;
        };
        if !path.starts_with(&below) || how.starts_with(' ') {
            continue;
        }
        let kind = match () {
            () if how.contains("++") => "added",
            () if how.contains("--") => "removed",
            () => "changed",
        };
        kinds.insert(kind.to_owned());
    }
    listed(&kinds)
}

/// What a peer's lines say of a change, in its own words.
fn words(peer: &Peer, said: &[Said], place: &Path) -> BTreeSet<String> {
    let place = place.display().to_string();
    let mut words = BTreeSet::new();
    for Said { line, .. } in said {
        if peer.name == "auditd" {
            let is_ours = line.starts_with("type=SYSCALL") && line.contains("driftmark-bench");
            let after = |key: &str| {
                let (_, rest) = line.split_once(key)?;
                rest.split([' ', '"', '\n']).next().map(str::to_owned)
            };
            if let (true, Some(call), Some(program)) =
                (is_ours, after(" SYSCALL="), after(" exe=\""))
            {
                let name = program.rsplit('/').next().unwrap_or_default();
                words.insert(format!("{call} by {name}"));
            }
        } else if let Some((_, events)) = line
            .strip_prefix(&place)
            .and_then(|rest| rest.rsplit_once(' '))
        {
            // Of these each says nothing that another does not.
            let is_said = |event: &&str| !["ISDIR", "CLOSE"].contains(event);
            let events = events.split(',').filter(is_said);
            words.extend(events.map(|event| event.trim().to_lowercase()));
        }
    }
    words
}

fn listed(words: &BTreeSet<String>) -> String {
    match words.is_empty() {
        true => "**no**".to_owned(),
        false => words.iter().cloned().collect::<Vec<_>>().join(", "),
    }
}

fn heading(peers: &[Peer]) -> String {
    let names: String = peers
        .iter()
        .map(|peer| format!("| {} ", peer.name))
        .collect();
    let columns = "---|".repeat(peers.len() + 3);
    format!("| change | Driftmark {names}| AIDE |\n|{columns}\n")
}

/// How soon each tells of a file that was written.
fn latencies(ground: &Ground, watched: &Watched, peers: &[Peer]) -> Result<String> {
    let _ = watched.all_said();
    for peer in peers {
        let _ = peer.all_said();
    }
    // In a process of its own: the kernel audits none that was there before auditd.
    let closed = write_each(&ground.at("plain"), WRITES, WRITES, APART)?;
    machine::let_pass(WINDOW);
    let mut text = format!(
        "| `close(2)` returns → told, {WRITES} files, one each {} ms | told of | p50 | p99 |\n|---|---|---|---|\n",
        APART.as_millis()
    );
    let ours = (
        "Driftmark (its log, which names the first of several)",
        watched.all_said(),
    );
    let theirs = peers.iter().map(|peer| (peer.name, peer.all_said()));
    for (name, said) in std::iter::once(ours).chain(theirs) {
        let ends = |line: &str, nth: usize| {
            let path = format!("plain/{nth}");
            line.match_indices(&path).any(|(at, _)| {
                let after = line[at + path.len()..].bytes().next();
                !after.is_some_and(|after| after.is_ascii_digit())
            }) && !line.starts_with("type=CWD")
        };
        let times: Vec<u64> = closed
            .iter()
            .enumerate()
            .filter_map(|(nth, closed)| {
                // The last word on it; audit tells when it is opened, before it is written.
                let mut of_it = said.iter().filter(|said| ends(&said.line, nth));
                let told = of_it.next_back()?;
                Some(told.at.saturating_sub(*closed) / 1000)
            })
            .collect();
        let at = |per_mille| quantile(times.clone(), per_mille).unwrap_or_default() as f64 / 1000.0;
        text.push_str(&format!(
            "| {name} | {} of {WRITES} | {:.2} ms | {:.2} ms |\n",
            times.len(),
            at(500),
            at(990)
        ));
    }
    text.push('\n');
    Ok(text)
}

/// What each takes while files are written as fast as they can be, until it is still again.
fn costs(ground: &Ground, watched: &Watched, peers: &[Peer]) -> Result<String> {
    let own = watched.daemon().id();
    let all = || {
        let peers = peers.iter().map(Peer::cpu);
        std::iter::once(machine::cpu_of(own))
            .chain(peers)
            .collect::<Result<Vec<_>>>()
    };
    let before = all()?;
    write_each(&ground.at("plain"), MANY, WRITES, Duration::ZERO)?;
    machine::let_pass(2 * WINDOW);
    let after = all()?;
    let mut text =
        format!("| {MANY} writes of {WRITES} files | CPU | peak memory |\n|---|---|---|\n");
    let ours = ("Driftmark", watched.daemon().peak_kib()?);
    let theirs = peers
        .iter()
        .map(|peer| Ok((peer.name, peer.peak_kib()?)))
        .collect::<Result<Vec<_>>>()?;
    let named = std::iter::once(ours).chain(theirs);
    for ((name, peak), (before, after)) in named.zip(before.into_iter().zip(after)) {
        text.push_str(&format!(
            "| {name} | {:.2} s | {:.1} MiB |\n",
            after.saturating_sub(before).as_secs_f64(),
            peak as f64 / 1024.0
        ));
    }
    Ok(text)
}

fn cost_note() -> &'static str {
    "Processes alone: what an event costs whoever causes it is in none of these. auditd's has the kernel's thread `kauditd`, and none of what \
     each system call of the machine costs that its rule is held against."
}
