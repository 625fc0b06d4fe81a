//! Bytes as the kernel would write them, and as it never would.

use proptest::prelude::*;

use super::super::record::{METADATA_BYTES, MOUNT};
use super::super::{Fault, Handle, Info, Malformed, Mask, Place, Record, records};

/// What a test says of an event.
#[derive(Debug, Clone)]
struct Told {
    what: u64,
    pid: i32,
    infos: Vec<Say>,
}

#[derive(Debug, Clone)]
enum Say {
    /// With one of the kinds that name a directory and something in it.
    Named(u8, u64, Vec<u8>, Vec<u8>),
    Handle(u8, u64, Vec<u8>),
    Pidfd(i32),
    Mount(u64),
    Fault(i32, u32),
    Later(u8, Vec<u8>),
}

fn told() -> impl Strategy<Value = Told> {
    let handle = prop::collection::vec(any::<u8>(), 0..=128);
    let name = prop::collection::vec(any::<u8>().prop_map(|byte| byte.max(b'0')), 1..=255);
    let say = prop_oneof![
        (
            prop::sample::select(vec![2_u8, 10, 12]),
            any::<u64>(),
            handle.clone(),
            name
        )
            .prop_map(|(kind, id, handle, name)| Say::Named(kind, id, handle, name)),
        (prop::sample::select(vec![1_u8, 3]), any::<u64>(), handle)
            .prop_map(|(kind, id, handle)| Say::Handle(kind, id, handle)),
        any::<i32>().prop_map(Say::Pidfd),
        any::<u64>().prop_map(Say::Mount),
        (any::<i32>(), any::<u32>()).prop_map(|(errno, count)| Say::Fault(errno, count)),
        (20_u8.., prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(kind, body)| Say::Later(kind, body)),
    ];
    (any::<u64>(), any::<i32>(), prop::collection::vec(say, 0..6))
        .prop_map(|(what, pid, infos)| Told { what, pid, infos })
}

fn encode(told: &Told) -> Vec<u8> {
    let infos: Vec<u8> = told.infos.iter().flat_map(encode_info).collect();
    let mut bytes = Vec::new();
    bytes.extend(((METADATA_BYTES + infos.len()) as u32).to_ne_bytes());
    bytes.extend([3, 0]);
    bytes.extend((METADATA_BYTES as u16).to_ne_bytes());
    bytes.extend(told.what.to_ne_bytes());
    bytes.extend((-1_i32).to_ne_bytes());
    bytes.extend(told.pid.to_ne_bytes());
    bytes.extend(infos);
    bytes
}

fn encode_info(say: &Say) -> Vec<u8> {
    let handle_of = |id: u64, handle: &[u8]| {
        let mut body = id.to_le_bytes().to_vec();
        body.extend((handle.len() as u32).to_ne_bytes());
        body.extend(7_i32.to_ne_bytes());
        body.extend(handle);
        body
    };
    let (kind, mut body) = match say {
        Say::Named(kind, id, handle, name) => {
            let mut body = handle_of(*id, handle);
            body.extend(name);
            body.push(0);
            (*kind, body)
        }
        Say::Handle(kind, id, handle) => (*kind, handle_of(*id, handle)),
        Say::Pidfd(number) => (4, number.to_ne_bytes().to_vec()),
        Say::Mount(number) => (MOUNT, [[0; 4].as_slice(), &number.to_ne_bytes()].concat()),
        Say::Fault(errno, count) => (5, [errno.to_ne_bytes(), count.to_ne_bytes()].concat()),
        Say::Later(kind, body) => (*kind, body.clone()),
    };
    if !matches!(say, Say::Later(..)) {
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut bytes = vec![kind, 0];
    bytes.extend(((body.len() + 4) as u16).to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn says_the_same(record: &Record<'_>, told: &Told) -> bool {
    let infos: Result<Vec<_>, _> = record.infos().collect();
    let infos = infos.expect("whole");
    record.what == Mask(told.what)
        && (record.pid, record.file) == (told.pid, -1)
        && infos.len() == told.infos.len()
        && infos
            .iter()
            .zip(&told.infos)
            .all(|(info, say)| is_said(info, say))
}

fn is_said(info: &Info<'_>, say: &Say) -> bool {
    let handle = |id: &u64, bytes| Handle {
        filesystem: *id,
        form: 7,
        bytes,
    };
    match say {
        Say::Named(kind, id, bytes, name) => {
            let place = Place {
                directory: handle(id, bytes),
                name,
            };
            *info
                == match kind {
                    2 => Info::Place(place),
                    10 => Info::From(place),
                    _ => Info::To(place),
                }
        }
        Say::Handle(1, id, bytes) => *info == Info::Object(handle(id, bytes)),
        Say::Handle(_, id, bytes) => *info == Info::Directory(handle(id, bytes)),
        Say::Pidfd(number) => *info == Info::Pidfd(*number),
        Say::Mount(number) => *info == Info::Mount(*number),
        Say::Fault(errno, count) => {
            *info
                == Info::Fault(Fault {
                    errno: *errno,
                    count: *count,
                })
        }
        Say::Later(kind, _) => *info == Info::Unknown(*kind),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in prop::collection::vec(told(), 0..8)) {
        let bytes: Vec<u8> = all.iter().flat_map(encode).collect();
        let read: Vec<_> = records(&bytes).map(|record| record.expect("whole")).collect();
        prop_assert_eq!(read.len(), all.len());
        prop_assert!(read.iter().zip(&all).all(|(record, told)| says_the_same(record, told)));
    }

    #[test]
    fn what_is_cut_off_loses_what_is_cut_off_alone(all in prop::collection::vec(told(), 1..6), at in any::<prop::sample::Index>()) {
        let ends: Vec<usize> = all.iter().scan(0, |end, told| { *end += encode(told).len(); Some(*end) }).collect();
        let mut bytes: Vec<u8> = all.iter().flat_map(encode).collect();
        let cut = at.index(bytes.len());
        bytes.truncate(cut);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let read: Vec<_> = records(&bytes).collect();
        prop_assert!(read[..whole].iter().zip(&all).all(|(record, told)| says_the_same(&record.expect("whole"), told)));
        let is_between = cut == 0 || ends.contains(&cut);
        prop_assert_eq!(read.len() - whole, usize::from(!is_between));
        prop_assert!(read[whole..].iter().all(|record| *record == Err(Malformed::Event)));
    }

    #[test]
    fn whatever_the_bytes_are_nothing_outside_them_is_read(bytes in prop::collection::vec(any::<u8>(), 0..512), spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), all in prop::collection::vec(told(), 1..4)) {
        let mut written: Vec<u8> = all.iter().flat_map(encode).collect();
        for (spot, byte) in spots {
            let at = spot.index(written.len());
            written[at] = byte;
        }
        for bytes in [bytes, written] {
            let most = bytes.len() / METADATA_BYTES + 1;
            let read: Vec<_> = records(&bytes).collect();
            prop_assert!(read.len() <= most);
            for record in read.into_iter().flatten() {
                for info in record.infos().flatten() {
                    if let Info::Place(place) = info {
                        prop_assert!(place.directory.bytes.len() <= Handle::MAX_BYTES);
                        prop_assert!(!place.name.is_empty() && !place.name.contains(&b'/') && !place.name.contains(&0));
                    }
                }
            }
        }
    }
}

#[test]
fn a_wrong_piece_of_information_spoils_no_other() {
    let mut told = Told {
        what: 1,
        pid: 1,
        infos: vec![Say::Pidfd(5), Say::Handle(1, 1, vec![1; 8]), Say::Pidfd(6)],
    };
    let mut bytes = encode(&told);
    // The length of the handle, behind metadata, the first piece, and what comes before it in the second.
    bytes[METADATA_BYTES + 8 + 12] = 200;
    told.infos.clear();
    bytes.extend(encode(&told));
    let read: Vec<_> = records(&bytes)
        .map(|record| record.expect("whole"))
        .collect();
    let infos: Vec<_> = read[0].infos().collect();
    assert_eq!(
        infos,
        [Ok(Info::Pidfd(5)), Err(Malformed::Info), Ok(Info::Pidfd(6))]
    );
    assert!(says_the_same(&read[1], &told));
}

#[test]
fn another_version_of_the_structure_ends_the_read() {
    let mut bytes = encode(&Told {
        what: 1,
        pid: 1,
        infos: Vec::new(),
    });
    bytes[4] = 4;
    let read: Vec<_> = records(&bytes).collect();
    assert_eq!(read, [Err(Malformed::Version(4))]);
}

#[test]
fn a_name_that_would_lead_elsewhere_is_none() {
    for name in [&b""[..], b"..", b"a/b", b"/"] {
        let told = Told {
            what: 1,
            pid: 1,
            infos: vec![Say::Named(2, 1, vec![0; 8], name.to_vec())],
        };
        let bytes = encode(&told);
        let record = records(&bytes).next().expect("a record").expect("whole");
        let infos: Vec<_> = record.infos().collect();
        assert_eq!(infos, [Err(Malformed::Info)], "{}", name.escape_ascii());
    }
}
