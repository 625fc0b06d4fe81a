//! Reports that are too much, make no sense, or contradict each other: refused, and nobody else is any different.

use anyhow::Result;
use drift::report::{Part, Report, StateUpdate};
use serde_json::{Value, json};

use crate::machine::{Machine, intrusion};
use crate::world::World;

/// What an attacker does to a good report.
type Spoil = fn(&mut Report);

/// A world with a bystander, whose state must be the same at the end, and a machine that misbehaves.
fn stage() -> Result<(World, Machine, Machine)> {
    let world = World::new()?;
    let bystander = world.clean("vm-bystander")?;
    let attacker = world.clean("vm-attacker")?;
    Ok((world, bystander, attacker))
}

#[test]
fn a_report_beyond_its_limits_is_refused_and_changes_nothing() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let spoilt: [(&str, Spoil); 9] = [
        ("more drifts than a part holds", |report| {
            let open = report.opened[0].clone();
            report.opened = vec![open; Report::MAX_DRIFTS + 1];
        }),
        ("more closed ids", |report| {
            report.closed = vec![report.opened[0].id; Report::MAX_DRIFTS + 1];
        }),
        ("part 0", |report| report.part.index = 0),
        ("part 3 of 2", |report| {
            report.part = Part {
                generation: 9,
                index: 3,
                count: 2,
            }
        }),
        ("no parts at all", |report| {
            report.part = Part {
                generation: 9,
                index: 0,
                count: 0,
            }
        }),
        ("too many parts", |report| {
            report.part = Part {
                generation: 9,
                index: 1,
                count: Report::MAX_PARTS + 1,
            }
        }),
        ("parts without end", |report| {
            report.part = Part {
                generation: 9,
                index: u32::MAX,
                count: u32::MAX,
            }
        }),
        ("a boot id without end", |report| {
            report.boot_id = "b".repeat(65);
        }),
        ("report number 0", |report| report.sequence = 0),
    ];
    for (what, spoil) in spoilt {
        let mut report = attacker.next(&[intrusion(1)]);
        spoil(&mut report);
        println!("{what}");
        attacker.send(&report)?.is_refused(400, "bad-report");
    }
    assert_eq!(world.everybody()?, before);
    let refused = world.recorded(0, "report-refused")?;
    assert!(
        refused.iter().all(|entry| entry["subject"] == attacker.id),
        "{refused:#?}"
    );
    assert!(
        !refused.is_empty(),
        "nobody learns that an instance sends what cannot be"
    );
    Ok(())
}

#[test]
fn a_body_beyond_a_mebibyte_is_refused_before_it_is_understood() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let mut report = serde_json::to_value(attacker.next(&[]))?;
    report["padding"] = Value::String("x".repeat(Report::MAX_BYTES));
    attacker
        .send_bytes(serde_json::to_vec(&report)?)?
        .is_refused(413, "too-long");
    attacker
        .send_bytes(vec![b' '; 40 * 1024 * 1024])?
        .is_refused(413, "too-long");
    world
        .stranger()?
        .send("POST", "/v1/enroll", &[], vec![b'{'; 65 * 1024])?
        .is_refused(413, "too-long");
    report["padding"] = Value::String("x".repeat(900_000));
    let answer = attacker.send_bytes(serde_json::to_vec(&report)?)?;
    assert_eq!(answer.status, 200, "a field of a later version: {answer:?}");
    assert_eq!(world.everybody()?.len(), before.len());
    Ok(())
}

#[test]
fn what_is_no_report_is_refused_whatever_it_is() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let good = serde_json::to_string(&attacker.next(&[intrusion(1)]))?;
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1).into_bytes()
    };
    let sequence = format!("\"sequence\":{}", attacker.sequence);
    let deep = |depth: usize| {
        format!("{{\"run\":{}1{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
    };
    let deep_beside = format!("{{\"later\":{}", "{\"a\":".repeat(100_000)).into_bytes();
    let mut not_text = good.clone().into_bytes();
    let at = good.find("a-boot").expect("a boot id");
    not_text[at] = 0xff;
    let endless = format!("\"open_count\":\"\\u001b[2J{}\"", "x".repeat(900_000));
    let cases: [(&str, Vec<u8>); 22] = [
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        (
            "compressed",
            [&[0x1f, 0x8b, 8, 0][..], &[0xaa; 500]].concat(),
        ),
        ("zeros", vec![0; 10_000]),
        ("nested deeply", deep(200_000)),
        ("nested deeply beside what is known", deep_beside),
        ("not UTF-8", not_text),
        ("cut off", good.as_bytes()[..good.len() / 2].to_vec()),
        ("followed by more", format!("{good}{good}").into_bytes()),
        (
            "not a number",
            with("\"open_count\":1", "\"open_count\":NaN"),
        ),
        (
            "an infinite number",
            with("\"open_count\":1", "\"open_count\":1e999"),
        ),
        ("a fraction", with("\"open_count\":1", "\"open_count\":1.5")),
        ("less than nothing", with(&sequence, "\"sequence\":-1")),
        (
            "more than 64 bits",
            with(&sequence, "\"sequence\":18446744073709551616"),
        ),
        (
            "a number without end",
            with(&sequence, &format!("\"sequence\":{}", "9".repeat(100_000))),
        ),
        (
            "a key twice",
            with(&sequence, &format!("{sequence},\"sequence\":1")),
        ),
        ("a lone surrogate", with("a-boot", "\\ud800")),
        (
            "a path that leaves",
            with("/usr/bin/added-1", "/usr/../../etc/shadow"),
        ),
        (
            "a text without end in place of a number",
            with("\"open_count\":1", &endless),
        ),
        ("another run", with("\"run\":\"", "\"run\":\"zz")),
    ];
    for (what, body) in cases {
        println!("{what}");
        attacker.send_bytes(body)?.is_refused(400, "bad-request");
    }
    assert_eq!(world.everybody()?, before);
    let answer = attacker.wire.send(
        "POST",
        "/v1/reports",
        &[("content-encoding", "gzip")],
        good.clone(),
    )?;
    assert!(answer.status == 200 || answer.status == 415, "{answer:?}");
    Ok(())
}

#[test]
fn a_report_that_names_somebody_else_is_about_its_sender_all_the_same() -> Result<()> {
    let (world, bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let mut report = serde_json::to_value(attacker.next(&[intrusion(1)]))?;
    let names = [
        "instance",
        "id",
        "subject",
        "cloud_id",
        "fleet",
        "common_name",
    ];
    for name in names {
        report[name] = json!(bystander.id);
    }
    report["proven"] = json!(true);
    let path = format!("/v1/reports?instance={}", bystander.id);
    let headers = [
        ("x-instance", bystander.id.as_str()),
        ("x-forwarded-client-cert", bystander.id.as_str()),
    ];
    let answer = attacker
        .wire
        .send("POST", &path, &headers, serde_json::to_vec(&report)?)?;
    assert_eq!(answer.granted::<Value>()?["state"], "drifted");
    let after = world.everybody()?;
    assert_eq!(after[&bystander.id], before[&bystander.id]);
    assert_eq!(after[&attacker.id]["state"], "drifted");
    Ok(())
}

#[test]
fn parts_that_disagree_are_refused_and_stay_refused() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let mut first = attacker.next(&[intrusion(1)]);
    first.part = Part {
        generation: first.part.generation,
        index: 1,
        count: 3,
    };
    assert_eq!(attacker.send(&first)?.status, 200);
    let mut second = attacker.next(&[intrusion(2)]);
    second.part = Part {
        generation: first.part.generation,
        index: 2,
        count: 2,
    };
    attacker.send(&second)?.is_refused(400, "bad-part");
    attacker.send(&second)?.is_refused(400, "bad-part");
    let state =
        |world: &World| -> Result<Value> { Ok(world.instance(&attacker.id)?["state"].clone()) };
    assert_eq!(state(&world)?, "clean", "half a generation is none");
    let after = world.everybody()?;
    assert!(
        before
            .iter()
            .filter(|(id, _)| **id != attacker.id)
            .all(|(id, row)| after[id] == *row)
    );
    Ok(())
}

#[test]
fn a_refused_part_leaves_nothing_behind() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    let mut first = attacker.next(&[]);
    first.part = Part {
        generation: first.part.generation,
        index: 1,
        count: 3,
    };
    assert_eq!(attacker.send(&first)?.status, 200);
    // Its other manifest is noticed with a part that is refused for another reason: it must count all the same later.
    let swapped = drift::Blake3::of(b"another manifest");
    let mut second = attacker.next(&[]);
    second.part = Part {
        generation: first.part.generation,
        index: 2,
        count: 2,
    };
    second.image.as_mut().expect("an image").manifest = swapped;
    attacker.send(&second)?.is_refused(400, "bad-part");
    let mut third = attacker.next(&[]);
    third.image.as_mut().expect("an image").manifest = swapped;
    let verdict: Value = attacker.send(&third)?.granted()?;
    assert_eq!(
        verdict["state"],
        "drifted",
        "{:#}",
        world.instance(&attacker.id)?
    );
    Ok(())
}

#[test]
fn a_generation_that_is_never_completed_never_counts() -> Result<()> {
    let (world, _bystander, mut attacker) = stage()?;
    for _ in 0..20 {
        let mut report = attacker.next(&[intrusion(1)]);
        report.part.count = Report::MAX_PARTS;
        assert_eq!(attacker.send(&report)?.status, 200);
        assert_eq!(world.instance(&attacker.id)?["open"], 0);
    }
    attacker.report_drift(&[intrusion(2)])?;
    let shown = world.instance(&attacker.id)?;
    assert_eq!(
        (&shown["state"], &shown["open"]),
        (&json!("drifted"), &json!(1)),
        "{shown:#}"
    );
    Ok(())
}

#[test]
fn numbers_at_the_end_of_their_range_hurt_their_sender_alone() -> Result<()> {
    let (world, bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    let mut report = attacker.next(&[intrusion(1)]);
    report.sequence = u64::MAX;
    report.part = Part::only(u64::MAX);
    report.open_count = u64::MAX;
    report.dropped_moments = u64::MAX;
    report.agent_clock = i64::MIN;
    report.uptime_seconds = u64::MAX;
    report.coverage.verified_entries = u64::MAX;
    if let Some(seen) = &mut report.coverage.seen {
        (seen.age_seconds, seen.bytes) = (u64::MAX, u64::MAX);
    }
    report.states = StateUpdate::Change;
    for _ in 0..2 {
        let answer = attacker.send(&report)?;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    }
    report.opened.clear();
    let answer = attacker.send(&report)?;
    assert!(answer.status < 500, "{answer:?}");
    world.collector.cli(["instance", "show", &attacker.id])?;
    world.collector.cli(["instance", "list"])?;
    assert_eq!(world.everybody()?[&bystander.id], before[&bystander.id]);
    Ok(())
}

#[test]
fn a_report_with_any_bytes_altered_is_taken_or_refused_and_never_a_fault() -> Result<()> {
    let (world, bystander, mut attacker) = stage()?;
    let before = world.everybody()?;
    // Numbers by xorshift, the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a usize")
    };
    for _ in 0..400 {
        let mut body = serde_json::to_vec(&attacker.next(&[intrusion(1), intrusion(2)]))?;
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(4) {
                0 => body[at] ^= 1 << random(8),
                1 => drop(body.remove(at)),
                2 => body.insert(at, b"\0\"{}[],:9e-\\\xff"[random(13)]),
                _ => body.truncate(at.max(1)),
            }
        }
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = attacker.send_bytes(body)?;
        assert!(
            matches!(answer.status, 200 | 400 | 409),
            "{}: {shown}",
            answer.status
        );
    }
    let after = world.everybody()?;
    assert_eq!(after[&bystander.id], before[&bystander.id]);
    assert!(!world.collector.output().contains("panicked"));
    world.collector.cli(["instance", "show", &attacker.id])?;
    Ok(())
}
