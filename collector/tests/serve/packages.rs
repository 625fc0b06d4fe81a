//! What a host's package database says of its drift: kept, shown, and good for nothing else.

use drift::entry::{AttributeSet, Entry, FileFlags, Node, Permissions, Shown, Xattrs};
use drift::finding::{DriftKind, HostPackage};
use drift::manifest::{BakedManifest, Builder, Package};
use drift::report::{ImageRef, InstanceState, OpenDrift, Report, StateUpdate};
use drift::rules::Rules;
use drift::{Blake3, Sha256, TreePath};
use serde_json::{Value, json};

use crate::images::{key, signature, trust};
use crate::world::{Agent, World};

/// A root with one file of openssl 3.0.11.
fn baked() -> BakedManifest {
    let mut builder = Builder::default();
    let package = Package {
        name: "openssl".into(),
        version: "3.0.11".into(),
    };
    for (path, owner) in [
        ("", None),
        ("etc", None),
        ("etc/shadow", None),
        ("usr", None),
        ("usr/bin", None),
        ("usr/bin/openssl", Some(package)),
    ] {
        let is_file = matches!(path, "etc/shadow" | "usr/bin/openssl");
        let node = if is_file {
            Node::file(1, Blake3::of(b"1"))
        } else {
            Node::Directory
        };
        let entry = Entry {
            path: TreePath::new(path.as_bytes()).unwrap(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            node,
            xattrs: Xattrs::default(),
            flags: FileFlags::default(),
            links: None,
        };
        let sha256 = is_file.then(|| Sha256::of(b"1"));
        builder.push(entry, sha256, owner, (0, 0));
    }
    builder
        .finish(Rules::none(), Vec::new(), AttributeSet::EMPTY)
        .unwrap()
}

fn drifted(path: &str, kind: &str, host: Option<(&str, &str, bool)>) -> OpenDrift {
    let changed = if kind == "changed" {
        json!(["content"])
    } else {
        json!([])
    };
    let found = Shown {
        kind: "file".into(),
        mode: Permissions::of(0o755),
        content: Some(Blake3::of(b"2")),
        ..Shown::default()
    };
    let drift: drift::finding::Drift = serde_json::from_value(json!({
        "path": path, "kind": kind, "changed": changed, "found": found, "class": "program", "severity": "high",
    }))
    .unwrap();
    assert_ne!(drift.kind, DriftKind::Unknown(kind.to_owned()));
    OpenDrift {
        id: drift.id(),
        drift,
        host_package: host.map(|(name, version, matches)| HostPackage {
            name: name.into(),
            version: version.into(),
            matches,
        }),
    }
}

async fn world() -> (World, Agent, ImageRef) {
    let (world, key, baked) = (World::start().await, key(), baked());
    trust(&world, &key).await;
    let signed = signature(&baked, "1", &key);
    let path = format!("/v1/images?signature_bytes={}", signed.len());
    let sent = world
        .anonymous()
        .post(world.operators(&path))
        .bearer_auth(crate::images::first_token(&world))
        .body([signed, baked.bytes.clone()].concat())
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let agent = world.agent("vm-1").await;
    let image = ImageRef {
        manifest: baked.identity.blake3,
        ..crate::world::image()
    };
    (world, agent, image)
}

async fn shown(world: &World, agent: &Agent, query: &str) -> Value {
    let id = &agent.identity.instance;
    world.get(&format!("/v1/instances/{id}{query}")).await
}

fn paths(shown: &Value) -> Vec<String> {
    let drifts = shown["drifts"].as_array().unwrap();
    let mut paths: Vec<_> = drifts
        .iter()
        .map(|open| {
            open["drift"]["path"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_one_line_and_what_does_not_fit_is_told_one_by_one() {
    let (world, mut agent, image) = world().await;
    let upgraded = Some(("openssl", "3.0.15", true));
    let by_dpkg = |mut open: OpenDrift| {
        open.drift.attribution = crate::who::by("/usr/bin/dpkg", 71);
        open
    };
    let report = Report {
        image: Some(image.clone()),
        ..agent.opening(vec![
            by_dpkg(drifted("/usr/bin/openssl", "changed", upgraded)),
            by_dpkg(drifted("/usr/bin/c_rehash", "added", upgraded)),
            drifted("/usr/bin/curl", "added", Some(("curl", "7.88.1", true))),
            drifted("/etc/shadow", "changed", upgraded),
            drifted(
                "/usr/bin/other",
                "added",
                Some(("openssl", "3.0.15", false)),
            ),
            drifted("/usr/bin/unlabelled", "added", None),
        ])
    };
    let verdict = agent.send(&report).await.unwrap();
    assert_eq!(verdict.state, InstanceState::Drifted);
    assert!(!verdict.resend_all);
    let whole = shown(&world, &agent, "").await;
    assert_eq!(whole["open"], 6);
    assert_eq!(paths(&whole).len(), 6, "JSON has the raw facts");
    let lines = whole["transactions"].clone();
    assert_eq!(
        lines,
        json!([
            {"name": "curl", "before": null, "version": "7.88.1", "files": 1, "severity": "high",
             "programs": [], "trust": "host database, unsigned"},
            {"name": "openssl", "before": "3.0.11", "version": "3.0.15", "files": 2, "severity": "high",
             "programs": ["/usr/bin/dpkg"], "trust": "host database, unsigned"},
        ])
    );
    let of = |path: &str| {
        let drifts = whole["drifts"].as_array().unwrap().clone();
        drifts
            .into_iter()
            .find(|open| open["drift"]["path"] == path)
            .unwrap()
    };
    let openssl = of("/usr/bin/openssl");
    assert_eq!(
        openssl["host_package"],
        json!({"name": "openssl", "version": "3.0.15", "matches": true})
    );
    assert_eq!(
        openssl["package"],
        json!({"name": "openssl", "version": "3.0.11"})
    );
    assert_eq!(of("/etc/shadow")["package"], Value::Null);
    let grouped = shown(&world, &agent, "?grouped=true&limit=3").await;
    assert_eq!(
        paths(&grouped),
        ["/etc/shadow", "/usr/bin/other", "/usr/bin/unlabelled"],
        "what does not fit is not crowded out by what does"
    );
    assert_eq!(grouped["transactions"], lines);
    assert_eq!(grouped["open"], 6);
    let table = crate::who::instance(&world, &agent, &[]);
    let line = table.lines().find(|line| line.contains("openssl 3.0.11"));
    assert!(
        line.is_some_and(|line| line.ends_with("/usr/bin/dpkg")),
        "{table}"
    );
    let listed = world.get("/v1/instances").await;
    assert_eq!(listed["instances"][0]["severity"], "high");
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_report_of_the_same_drift_may_change_its_label_and_nothing_else() {
    let (world, mut agent, image) = world().await;
    let first = drifted("/usr/bin/openssl", "changed", None);
    let report = Report {
        image: Some(image.clone()),
        ..agent.opening(vec![first.clone()])
    };
    agent.send(&report).await.unwrap();
    let before = shown(&world, &agent, "").await;
    assert_eq!(before["drifts"][0]["host_package"], Value::Null);
    for (states, host) in [
        (StateUpdate::Change, Some(("openssl", "3.0.15", true))),
        (StateUpdate::Whole, Some(("openssl", "3.0.16", true))),
        (StateUpdate::Change, None),
    ] {
        let report = Report {
            image: Some(image.clone()),
            states,
            opened: vec![drifted("/usr/bin/openssl", "changed", host)],
            ..agent.heartbeat()
        };
        assert!(!agent.send(&report).await.unwrap().resend_all);
        let mut after = shown(&world, &agent, "").await;
        let label = after["drifts"][0]["host_package"]["version"].clone();
        assert_eq!(label.as_str(), host.map(|(_, version, _)| version));
        after["drifts"][0]["host_package"] = Value::Null;
        for moving in ["transactions", "heard_at_ms", "sequence"] {
            after[moving] = before[moving].clone();
        }
        assert_eq!(after, before);
    }
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_too_long_is_refused_and_a_hostile_one_is_kept_as_data() {
    let (world, mut agent, image) = world().await;
    let long = "x".repeat(HostPackage::MAX_BYTES + 1);
    let refused = Report {
        image: Some(image.clone()),
        opened: vec![drifted("/usr/bin/a", "added", Some((&long, "1", true)))],
        ..agent.heartbeat()
    };
    assert_eq!(agent.send(&refused).await.unwrap_err().1, "bad-report");
    let hostile = "\u{1b}[2J'); DROP TABLE drifts; --\u{202e}";
    let report = Report {
        image: Some(image),
        ..agent.opening(vec![drifted(
            "/usr/bin/a",
            "added",
            Some((hostile, hostile, true)),
        )])
    };
    agent.send(&report).await.unwrap();
    let shown = shown(&world, &agent, "").await;
    assert_eq!(shown["transactions"][0]["name"], hostile);
    assert_eq!(shown["open"], 1);
    world.collector.stop().await;
}
