//! Receives spools cut and damaged at every byte; holds them to losing nothing that was whole.

use super::*;

fn name(run: u8, sequence: u64) -> Name {
    Name {
        run: RunId([run; 16]),
        sequence,
    }
}

fn bodies(spool: &mut Spool) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut dropped = Dropped::default();
    while let Some(head) = spool.head(&mut dropped) {
        bodies.push(head.body);
        spool.discard(head.name);
    }
    bodies
}

fn open(directory: &Path) -> (Spool, Recovered) {
    Spool::open(directory, 64 * 1024 * 1024)
}

fn only_file(directory: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn reports_come_back_in_order_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path());
    assert!(
        spool
            .append(Kind::States, name(1, 1), 0, b"one")
            .is_nothing()
    );
    assert!(
        spool
            .append(Kind::Moments, name(1, 2), 1, b"two")
            .is_nothing()
    );
    drop(spool);
    let (mut spool, recovered) = open(home.path());
    assert_eq!(
        recovered,
        Recovered {
            reports: 2,
            damaged: 0
        }
    );
    assert!(
        spool
            .append(Kind::States, name(2, 1), 0, b"three")
            .is_nothing()
    );
    assert_eq!(bodies(&mut spool), [&b"one"[..], b"two", b"three"]);
}

#[test]
fn what_was_acknowledged_is_gone_from_disk() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path());
    for sequence in 1..=3 {
        spool.append(Kind::States, name(1, sequence), 0, b"body");
    }
    spool.append(Kind::States, name(2, 1), 0, b"other run");
    spool.acknowledge(RunId([1; 16]), 2);
    assert_eq!(spool.len(), 2);
    spool.acknowledge(RunId([1; 16]), 3);
    spool.acknowledge(RunId([2; 16]), 1);
    assert!(spool.is_empty());
    assert_eq!(
        (
            spool.bytes(),
            std::fs::read_dir(home.path()).unwrap().count()
        ),
        (0, 0)
    );
}

#[test]
fn a_crash_at_any_byte_keeps_every_record_that_was_whole() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path());
    let all = [&b"first body"[..], b"", b"the third"];
    let mut ends = vec![0];
    for (sequence, body) in (1..).zip(all) {
        spool.append(Kind::States, name(1, sequence), 0, body);
        ends.push(spool.bytes() as usize);
    }
    drop(spool);
    let whole = std::fs::read(only_file(home.path())).unwrap();
    for cut in 0..=whole.len() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(
            place.path().join("00000000000000000001-states.log"),
            &whole[..cut],
        )
        .unwrap();
        let (mut spool, _) = open(place.path());
        let complete = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(bodies(&mut spool), all[..complete], "cut at {cut}");
        assert!(
            spool
                .append(Kind::States, name(2, 1), 0, b"goes on")
                .is_nothing()
        );
        assert_eq!(bodies(&mut spool), [b"goes on"]);
    }
}

#[test]
fn a_damaged_record_is_passed_over_and_the_others_stay() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path());
    let all = [&b"first body"[..], b"second body", b"third body"];
    for (sequence, body) in (1..).zip(all) {
        spool.append(Kind::States, name(1, sequence), 0, body);
    }
    drop(spool);
    let whole = std::fs::read(only_file(home.path())).unwrap();
    let length = record::HEADER_BYTES + all[0].len();
    for at in 0..whole.len() {
        let place = tempfile::tempdir().unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(
            place.path().join("00000000000000000001-states.log"),
            &damaged,
        )
        .unwrap();
        let (mut spool, recovered) = open(place.path());
        let hit = if at < length {
            0
        } else if at < 2 * length + 1 {
            1
        } else {
            2
        };
        let left: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != hit)
            .map(|(_, body)| *body)
            .collect();
        assert_eq!(bodies(&mut spool), left, "byte {at}");
        assert!(recovered.damaged >= 1);
    }
}

#[test]
fn states_go_before_moments_and_lost_moments_are_counted() {
    let home = tempfile::tempdir().unwrap();
    let megabyte = vec![b'x'; 1024 * 1024];
    let (mut spool, _) = Spool::open(home.path(), 8 * 1024 * 1024);
    for sequence in 1..=3 {
        assert!(
            spool
                .append(Kind::Moments, name(1, sequence), 2, &megabyte)
                .is_nothing()
        );
    }
    let mut lost_states = false;
    for sequence in 4..=20 {
        let dropped = spool.append(Kind::States, name(1, sequence), 0, &megabyte);
        assert_eq!(dropped.moments, 0, "states never push out moments");
        lost_states |= dropped.states;
        assert!(spool.bytes() <= 8 * 1024 * 1024);
    }
    assert!(lost_states);
    let mut lost_moments = 0;
    for sequence in 21..=40 {
        lost_moments += spool
            .append(Kind::Moments, name(1, sequence), 2, &megabyte)
            .moments;
    }
    assert!(lost_moments > 0 && lost_moments % 2 == 0, "{lost_moments}");
    assert_eq!(
        lost_moments
            + 2 * spool
                .waiting
                .values()
                .filter(|waiting| waiting.moments > 0)
                .count() as u64,
        46
    );
}

#[test]
fn where_no_disk_takes_them_reports_wait_in_memory_within_a_limit() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("spool");
    let (mut spool, _) = open(&directory);
    std::fs::remove_dir(&directory).unwrap();
    let megabyte = vec![b'x'; 1024 * 1024];
    for sequence in 1..=4 {
        assert!(
            spool
                .append(Kind::States, name(1, sequence), 0, &megabyte)
                .is_nothing()
        );
    }
    let dropped = spool.append(Kind::Moments, name(1, 5), 3, &megabyte);
    assert_eq!(
        dropped,
        Dropped {
            states: false,
            moments: 3
        }
    );
    spool.acknowledge(RunId([1; 16]), 4);
    assert!(spool.is_empty() && spool.memory_bytes == 0);
}

#[test]
fn what_does_not_belong_into_a_spool_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("README"), "mine").unwrap();
    std::fs::write(home.path().join("7-other.log"), "mine").unwrap();
    let (spool, recovered) = open(home.path());
    assert_eq!((spool.len(), recovered.damaged), (0, 0));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn a_disk_that_takes_nothing_keeps_what_it_has_and_gets_the_rest_when_it_is_well() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("spool");
    let (mut spool, _) = open(&directory);
    assert!(
        spool
            .append(Kind::States, name(1, 1), 0, b"one")
            .is_nothing()
    );
    // What a directory is gone from takes nothing, as a read-only disk does; root passes any mode.
    spool.open = [None, None];
    let aside = home.path().join("aside");
    std::fs::rename(&directory, &aside).unwrap();
    std::fs::write(&directory, "").unwrap();
    assert!(
        spool
            .append(Kind::States, name(1, 2), 0, b"two")
            .is_nothing(),
        "nothing is thrown away for a disk that is not full"
    );
    assert_eq!(spool.len(), 2);
    assert!(
        spool
            .trouble()
            .is_some_and(|trouble| trouble.contains("spool")),
        "{:?}",
        spool.trouble()
    );
    assert!(!spool.try_disk());
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    assert!(spool.try_disk());
    assert_eq!((spool.trouble(), spool.memory_bytes), (None, 0));
    drop(spool);
    let (mut spool, recovered) = open(&directory);
    assert_eq!((recovered.reports, recovered.damaged), (2, 0));
    assert_eq!(bodies(&mut spool), [&b"one"[..], b"two"]);
}

#[test]
fn a_spool_without_a_disk_still_hands_on_reports() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("spool"), "").unwrap();
    let (mut spool, _) = open(&home.path().join("spool"));
    assert!(spool.trouble().is_some());
    spool.append(Kind::Moments, name(1, 1), 1, b"one");
    assert_eq!(bodies(&mut spool), [&b"one"[..]]);
}
