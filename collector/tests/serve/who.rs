//! Who did it: told with a drift or after it, in one part or in several, and shown to operators from then on.

use std::process::Command;

use drift::TreePath;
use drift::attribution::{Attribution, Confidence, Executable, Origin, Process};
use drift::finding::DriftKind;
use drift::report::{Moment, OpenDrift, Part, Report, StateUpdate};
use serde_json::Value;

use crate::world::{Agent, World, drift};

pub(crate) fn by(program: &str, pid: u32) -> Option<Box<Attribution>> {
    let executable = Executable {
        path: program.to_owned(),
        origin: Origin::Image,
    };
    let process = Process {
        pid,
        executable: Some(executable),
        ..Process::default()
    };
    Some(Box::new(Attribution {
        confidence: Confidence::Certain,
        process: Some(process),
    }))
}

/// Sends what is open once more, one drift a part or all in one.
async fn send_again(agent: &mut Agent, states: StateUpdate, parts: &[&[OpenDrift]]) {
    let generation = agent.sequence + 1;
    for (part, index) in parts.iter().zip(1..) {
        let report = Report {
            states,
            part: Part {
                generation,
                index,
                count: parts.len() as u32,
            },
            opened: part.to_vec(),
            ..agent.heartbeat()
        };
        assert!(!agent.send(&report).await.unwrap().resend_all);
    }
}

/// What `instance show` prints.
pub(crate) fn instance(world: &World, agent: &Agent, flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftmark-collector"));
    command.args(["instance", "show", &agent.identity.instance]);
    let data = world.directory.path().join("data");
    let output = command.args(flags).arg("--data").arg(data).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whom `instance show` names for each of the three drifts, in a table and in JSON alike.
fn named(world: &World, agent: &Agent) -> [Option<String>; 3] {
    let table = instance(world, agent, &[]);
    let json: Value = serde_json::from_str(&instance(world, agent, &["--json"])).unwrap();
    [1, 2, 3].map(|number| {
        let path = drift(number).drift.path.to_text();
        let drifts = json["drifts"].as_array().unwrap();
        let open = drifts.iter().find(|open| open["drift"]["path"] == path);
        let process = &open.unwrap()["drift"]["attribution"]["process"];
        let line = table.lines().find(|line| line.contains(&path)).unwrap();
        let Some(program) = process["executable"]["path"].as_str() else {
            assert!(!line.contains('['), "{line}");
            return None;
        };
        let shown = format!("{program}[{}]", process["pid"]);
        assert!(line.contains(&shown), "{line}");
        Some(shown)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_it_is_shown_however_it_came_and_stays_when_the_agent_no_longer_knows() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let nobody = [drift(1), drift(2), drift(3)];
    let opening = agent.opening(nobody.to_vec());
    agent.send(&opening).await.unwrap();
    assert_eq!(named(&world, &agent), [None, None, None]);
    let state = |shown: &Value| {
        [&shown["open"], &shown["set_digest"], &shown["severity"]].map(Value::clone)
    };
    let path = format!("/v1/instances/{}", agent.identity.instance);
    let before = state(&world.get(&path).await);

    let mut one = drift(1);
    one.drift.attribution = by("/usr/bin/dpkg", 71);
    send_again(&mut agent, StateUpdate::Change, &[&[one]]).await;
    let dpkg = Some("/usr/bin/dpkg[71]".to_owned());
    assert_eq!(named(&world, &agent), [dpkg.clone(), None, None]);

    let (mut two, mut three) = (drift(2), drift(3));
    two.drift.attribution = by("/usr/bin/vim", 72);
    three.drift.attribution = by("/usr/bin/curl", 73);
    send_again(&mut agent, StateUpdate::Change, &[&[two], &[three]]).await;
    let vim = Some("/usr/bin/vim[72]".to_owned());
    let curl = Some("/usr/bin/curl[73]".to_owned());
    let all = [dpkg, vim, curl];
    assert_eq!(named(&world, &agent), all);

    send_again(
        &mut agent,
        StateUpdate::Whole,
        &[&nobody[..1], &nobody[1..]],
    )
    .await;
    assert_eq!(named(&world, &agent), all);
    send_again(&mut agent, StateUpdate::Whole, &[&nobody]).await;
    assert_eq!(named(&world, &agent), all);
    assert_eq!(state(&world.get(&path).await), before);
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_and_is_over_is_shown_with_who_did_it() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let opening = agent.opening(vec![drift(1)]);
    agent.send(&opening).await.unwrap();
    let mut happened = drift(2).drift;
    happened.kind = DriftKind::Executed;
    happened.path = TreePath::new(b"tmp/stranger\x1b[2J").unwrap();
    happened.attribution = by("/usr/bin/bash", 77);
    let moment = Moment {
        number: 1,
        drift: happened,
        agent_clock_milliseconds: 0,
    };
    let report = Report {
        moments: vec![moment],
        ..agent.heartbeat()
    };
    agent.send(&report).await.unwrap();
    let table = instance(&world, &agent, &[]);
    let line = table.lines().find(|line| line.contains("/tmp/stranger"));
    let line = line.unwrap_or_else(|| panic!("{table}"));
    assert!(
        line.contains("executed") && line.contains("/usr/bin/bash[77]"),
        "{line}"
    );
    assert!(!table.contains('\u{1b}'), "{table}");
    world.collector.stop().await;
}
