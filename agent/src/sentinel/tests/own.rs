//! What is done to the agent's own files is told before all else, however much that is.

use drift::class::classify;

use super::watched::{scanned, seen};
use super::*;

/// As a scan would class it.
fn classed(name: &str, kind: &DriftKind) -> Drift {
    let path = TreePath::new(name.as_bytes()).unwrap();
    let meaning = classify(&path, kind, AttributeSet::EMPTY, None);
    Drift {
        class: meaning.class,
        ..drift(name)
    }
}

const OWN: [&str; 7] = [
    "etc/driftmark/agent.d/50-mine.toml",
    "etc/systemd/system/driftmark-agent.service.d/quiet.conf",
    "usr/bin/driftmark-agent",
    "usr/lib/driftmark/image.manifest",
    "usr/lib/driftmark/image.manifest.sig",
    "usr/lib/driftmark/trust.d/image.pub",
    "usr/lib/systemd/system/driftmark-agent.service",
];

fn others() -> Vec<Drift> {
    let names = (0..3000).map(|nth| format!("etc/{nth:04}"));
    names
        .map(|name| classed(&name, &DriftKind::Changed))
        .collect()
}

/// The first drifts of these reports are those, and no later one is.
fn come_first(reports: &[Report]) {
    let opened = reports.iter().flat_map(|report| &report.opened);
    let opened: Vec<_> = opened.map(|open| &open.drift).collect();
    let (first, rest) = opened.split_at(OWN.len());
    let mut paths: Vec<_> = first.iter().map(|drift| drift.path.to_string()).collect();
    paths.sort();
    assert_eq!(paths, OWN.map(|name| format!("/{name}")));
    assert!(rest.iter().all(|drift| !is_own(drift)));
}

#[test]
fn drift_of_its_own_files_comes_first_in_whatever_is_told() {
    let own = OWN.map(|name| classed(name, &DriftKind::Changed));
    let mut sentinel = sentinel();
    steps(&mut sentinel, Event::Tick, at(0));
    let all = others().into_iter().chain(own.clone()).collect();
    let whole = kept(steps(&mut sentinel, outcome(Pass::Full, all), at(10)));
    assert!(whole.len() > 1, "one part is not all");
    come_first(&whole);

    let mut sentinel = scanned(&[]);
    let all = others().into_iter().chain(own).collect();
    let change = kept(steps(&mut sentinel, outcome(Pass::Quick, all), at(20)));
    assert_eq!(change[0].states, StateUpdate::Change);
    come_first(&change);
}

#[test]
fn drift_of_its_own_files_waits_for_no_other() {
    let mut sentinel = scanned(&[]);
    let others = others();
    let names: Vec<_> = (0..3000).map(|nth| format!("etc/{nth:04}")).collect();
    let storm = |sentinel: &mut Sentinel, drifts: &[Drift], names: &[String]| {
        let Event::Seen(mut sighting) = seen(names, &[""; 0]) else {
            unreachable!("it is one");
        };
        sighting.drifts = drifts.to_vec();
        kept(steps(sentinel, Event::Seen(sighting), at(20)))
    };
    assert!(!storm(&mut sentinel, &others[1..], &names[1..]).is_empty());
    let rests = storm(&mut sentinel, &others[..1], &names[..1]);
    assert!(rests.is_empty(), "told so much, it rests");
    let own = classed(OWN[2], &DriftKind::Changed);
    let told = storm(&mut sentinel, &[own], &[OWN[2].to_owned()]);
    let first = &told[0].opened[0].drift;
    assert_eq!(first.path.to_string(), format!("/{}", OWN[2]));
    assert_eq!(told[0].opened.len(), 2, "with what had waited");
}

#[test]
fn a_thousand_moments_hide_none_of_its_own_files() {
    let mut sentinel = scanned(&[]);
    for nth in 0..1000 {
        let moment = Box::new(classed(&format!("etc/{nth}"), &DriftKind::Changed));
        steps(&mut sentinel, Event::Happened(moment), at(20));
    }
    let moment = Box::new(classed(OWN[3], &DriftKind::Changed));
    let told = kept(steps(&mut sentinel, Event::Happened(moment), at(21)));
    assert_eq!(
        told[0].moments[0].drift.path.to_string(),
        format!("/{}", OWN[3])
    );
}
