//! Receives first boots, real in form and hostile in part; holds proposals to what `bake` and `compare` make of them.

mod property;

use std::collections::BTreeSet;

use drift::compare::{Finding, compare};
use drift::entry::{AttributeSet, Entry, FileFlags, Node, Shown, Xattrs};
use drift::finding::{Drift, DriftKind};
use drift::manifest::{Builder, UnverifiedManifest};
use drift::observation::{Found, Observation};
use drift::rules::{RuleFile, Rules};
use drift::{Blake3, TreePath};

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn node(at: &str, mode: u16, node: Node) -> Entry {
    Entry {
        path: path(at),
        mode,
        uid: 0,
        gid: 0,
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn file(at: &str, content: &str) -> Entry {
    let content_of = Node::file(content.len() as u64, Blake3::of(content.as_bytes()));
    node(at, 0o644, content_of)
}

fn directory(at: &str) -> Entry {
    node(at, 0o755, Node::Directory)
}

fn image() -> Vec<Entry> {
    let mut image: Vec<Entry> = [
        "/", "/etc", "/etc/ssh", "/usr", "/usr/bin", "/var", "/var/lib", "/var/log",
    ]
    .map(directory)
    .into();
    image.extend([
        node("/usr/bin/ls", 0o755, Node::file(2, Blake3::of(b"ls"))),
        file("/etc/hostname", "image\n"),
        file("/etc/issue", "Debian\n"),
        file("/etc/machine-id", "uninitialized\n"),
        file("/etc/motd", "hello\n"),
        file("/etc/passwd", "root\n"),
        file("/var/lib/counter", "0"),
        file("/var/log/lastlog", ""),
    ]);
    image.sort_by(|a, b| a.path.cmp(&b.path));
    image
}

/// What holds a tree against the image and some rules, as `bake` and `check` do.
fn drifts(rules: &Rules, tree: &[Entry]) -> Vec<Drift> {
    let mut builder = Builder::default();
    for entry in image() {
        let is_file = matches!(entry.node, Node::File { .. });
        let sha256 = is_file.then(|| drift::Sha256::of(b"any"));
        builder.push(entry, sha256, None, (0, 0));
    }
    let baked = builder
        .finish(rules.clone(), Vec::new(), AttributeSet::EMPTY)
        .unwrap();
    let manifest = UnverifiedManifest::open(baked.bytes.clone()).unwrap();
    let mut found = Vec::new();
    let mut tree = tree.to_vec();
    tree.sort_by(|a, b| a.path.cmp(&b.path));
    let held = tree
        .into_iter()
        .filter(|entry| !rules.below_volatile(&entry.path));
    let observations = held.map(|entry| {
        let rule = rules
            .first_match(&entry.path)
            .map(|(_, rule)| rule.rule_type);
        // As a reader of the real content would have it: what was there is the beginning of what is there.
        let was = image().into_iter().find(|was| was.path == entry.path);
        let prefix = was.and_then(|was| match was.node {
            Node::File { content, .. } => Some(content),
            _ => None,
        });
        let shape = matches!(rule, Some(drift::rules::RuleType::Shape(_))).then_some(Ok(()));
        Observation::Found(Found {
            prefix,
            shape,
            ..Found::plain(entry)
        })
    });
    compare(&manifest, observations, &mut |finding| {
        if let Finding::Drift(difference) = finding {
            found.push(difference.drift);
        }
    })
    .unwrap();
    found
}

fn sights(tree: &[Entry]) -> Vec<Sight> {
    let entries = image();
    let sight = |drift: Drift| Sight {
        expected: entries
            .iter()
            .find(|entry| entry.path == drift.path)
            .map(Shown::from),
        path: drift.path,
        kind: drift.kind,
        changed: drift.changed,
        found: drift.found,
        detail: drift.detail,
    };
    drifts(&Rules::none(), tree)
        .into_iter()
        .map(sight)
        .collect()
}

/// Instances, each of one or several looks at its tree.
fn observed(instances: &[Vec<Vec<Entry>>]) -> Observations {
    let mut observations = Observations::default();
    observations.instances = instances
        .iter()
        .map(|looks| Instance {
            checks: looks.iter().map(|tree| sights(tree)).collect(),
        })
        .collect();
    observations
}

fn rules_of(observations: &Observations, proposal: &Proposal) -> Rules {
    let text = written::rule_file(observations, proposal);
    let file =
        RuleFile::parse("learned.toml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let built = Rules::build(vec![file], vec![]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(built.notes, [], "{text}");
    built.rules
}

fn proposed(observations: &Observations) -> (Vec<String>, Vec<String>) {
    let proposal = propose(observations).unwrap();
    let rules = rules_of(observations, &proposal);
    let shown = rules.as_slice().iter().map(ToString::to_string).collect();
    let refused = proposal
        .refused
        .iter()
        .map(|refused| refused.path.to_string());
    (shown, refused.collect())
}

fn with(changes: &[Entry]) -> Vec<Entry> {
    let mut tree = image();
    tree.retain(|entry| changes.iter().all(|change| change.path != entry.path));
    tree.extend(changes.iter().cloned());
    tree
}

#[test]
fn one_first_boot_gives_exact_rules_and_says_what_it_will_not_allow() {
    let mut tree = with(&[
        file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        file("/etc/hostname", "web-1\n"),
        file("/etc/ssh/ssh_host_ed25519_key", "key"),
        file("/etc/passwd", "root\neve\n"),
        file("/etc/cron.d/x", "job"),
        file("/var/lib/agent.db", "state"),
        node("/var/lib/tool", 0o755, file("/x", "tool").node),
        node("/var/lib/su", 0o4644, file("/x", "su").node),
        file("/usr/share-new", "x"),
        directory("/etc/cron.d"),
    ]);
    tree.retain(|entry| entry.path != path("/etc/motd"));
    let (rules, refused) = proposed(&observed(&[vec![tree]]));
    assert_eq!(
        rules,
        [
            "first-boot /etc/hostname",
            "machine-id /etc/machine-id",
            "absent /etc/motd",
            "host-key /etc/ssh/ssh_host_ed25519_key",
            "first-boot /var/lib/agent.db",
        ]
    );
    assert_eq!(
        refused,
        [
            "/etc/cron.d",
            "/etc/cron.d/x",
            "/etc/passwd",
            "/usr/share-new",
            "/var/lib/su",
            "/var/lib/tool",
        ]
    );
}

#[test]
fn what_changes_later_is_no_matter_of_the_first_boot() {
    let first = with(&[
        file("/var/log/lastlog", "one\n"),
        file("/var/log/new", "a"),
        file("/var/lib/counter", "1"),
        file("/etc/hostname", "web-1\n"),
        file("/etc/restless", "1"),
    ]);
    let later = with(&[
        file("/var/log/lastlog", "one\ntwo\n"),
        file("/var/log/new", "ab"),
        file("/var/lib/counter", "2"),
        file("/etc/hostname", "web-1\n"),
        file("/etc/restless", "2"),
    ]);
    let (rules, refused) = proposed(&observed(&[vec![first, later]]));
    assert_eq!(
        rules,
        [
            "first-boot /etc/hostname",
            "content /var/lib/counter",
            "append-only /var/log/lastlog",
            "append-only /var/log/new",
        ]
    );
    assert_eq!(refused, ["/etc/restless"]);
}

#[test]
fn names_that_differ_are_generalised_only_where_two_instances_show_that_they_do() {
    let boot = |id: &str| {
        vec![with(&[
            directory("/var/lib/app"),
            directory(&format!("/var/lib/app/{id}")),
            file(&format!("/var/lib/app/{id}/state"), id),
            file("/var/lib/app/config", "same"),
        ])]
    };
    let (rules, refused) = proposed(&observed(&[boot("0badcafe"), boot("1feedbee")]));
    assert_eq!(
        rules,
        [
            "first-boot /var/lib/app",
            "first-boot /var/lib/app/config",
            "first-boot /var/lib/app/????????",
            "first-boot /var/lib/app/????????/state",
        ]
    );
    assert_eq!(refused, [] as [&str; 0]);
    let (rules, _) = proposed(&observed(&[boot("0badcafe")]));
    assert!(rules.iter().all(|rule| !rule.contains('?')), "{rules:?}");
}

#[test]
fn only_a_new_directory_that_is_another_each_time_is_volatile() {
    let look = |seed: u32, inside: &str| {
        let mut changes = vec![directory(inside)];
        for nth in 0..10 {
            let name = (b'a' + (nth + seed as u8 * 7) % 26) as char;
            changes.push(directory(&format!("{inside}/{name}x")));
            changes.push(file(&format!("{inside}/{name}x/{name}"), "x"));
        }
        with(&changes)
    };
    let twice = |inside: &str| vec![look(1, inside), look(2, inside)];
    let (rules, refused) = proposed(&observed(&[twice("/var/lib/scratch")]));
    assert_eq!(
        (&*rules, refused.len()),
        (&["volatile /var/lib/scratch".to_owned()][..], 0)
    );
    // Nor is it a whole tree of the system, nor a place that the image has.
    for inside in ["/etc/scratch", "/var/scratch", "/var/lib"] {
        let (rules, _) = proposed(&observed(&[twice(inside)]));
        assert!(
            !rules.iter().any(|rule| rule.contains("volatile")),
            "{inside}: {rules:?}"
        );
    }
    // One program in it, and nothing of it is let go.
    let mut armed = twice("/var/lib/scratch");
    armed[1].push(node("/var/lib/scratch/run", 0o755, file("/x", "x").node));
    let (rules, refused) = proposed(&observed(&[armed]));
    assert!(
        !rules.iter().any(|rule| rule.contains("volatile")),
        "{rules:?}"
    );
    assert!(refused.contains(&"/var/lib/scratch/run".to_owned()));
}

/// The paths that an attacker on the learning instance would like a rule for.
#[test]
fn a_hostile_observation_is_not_talked_into_anything() {
    let hostile = [
        "/etc/x\n[[rule]]\ntype = \"volatile\"\npath = \"/etc",
        "/etc/x\" # ",
        "/etc/\x1b[2Kx",
        "/etc/\u{202e}x",
        "/etc/ld.so.preload",
        "/etc/sudoers.d/x",
        "/root/.ssh/authorized_keys",
        "/etc/systemd/system/x.timer",
        "/etc/pam.d/x",
        "/usr/lib/modules/x.ko",
        "/usr/lib/driftmark/trust.d/x.pub",
        "/var/lib/dpkg/info/x.postinst",
        "/etc/ssl/certs/x.pem",
        "/opt/x/libx.so",
    ];
    let changes: Vec<Entry> = hostile.iter().map(|at| file(at, "x")).collect();
    let tree = [
        with(&[file("/etc/a*b", "x"), file("/etc/back\\slash", "x")]),
        changes,
    ]
    .concat();
    let observations = observed(&[vec![tree]]);
    let proposal = propose(&observations).unwrap();
    let rules = rules_of(&observations, &proposal);
    let shown: Vec<String> = rules.as_slice().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "first-boot /etc/a\\*b",
            "first-boot /etc/back\\\\slash",
            "first-boot /etc/x\" # ",
        ]
    );
    assert_eq!(proposal.refused.len(), hostile.len() - 1);
    let text = written::rule_file(&observations, &proposal);
    assert!(
        !text
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\n')
    );
    assert!(!text.contains('\u{202e}'));
}

#[test]
fn what_an_observation_claims_about_a_path_counts_for_nothing() {
    let lines = "{\"path\":\"/etc/sudoers.d/x\",\"kind\":\"added\",\"changed\":[],\"expected\":null,\
        \"found\":{\"kind\":\"file\",\"mode\":\"0644\",\"uid\":0,\"gid\":0},\"class\":\"other\",\"severity\":\"info\",\"technique\":[],\"package\":null}\n";
    let image = "{\"name\":\"a\",\"version\":\"1\",\"build\":\"b\",\"manifest\":\"MANIFEST\"}"
        .replace("MANIFEST", &"0".repeat(64));
    let summary = format!("{{\"summary\":{{\"image\":{image}}}}}\n");
    let mut observations = Observations::default();
    observations
        .add((lines.to_owned() + &summary).as_bytes())
        .unwrap();
    let proposal = propose(&observations).unwrap();
    assert_eq!(proposal.rules, []);
    assert_eq!(
        proposal.refused[0].severity,
        drift::class::Severity::Critical
    );
    // What is no whole observation of one image is none at all.
    let other = summary.replace("\"1\"", "\"2\"");
    let unfinished = |error: &BadObservation| matches!(error, BadObservation::Unfinished);
    for (text, expected) in [
        (lines.to_owned(), true),
        (String::new(), true),
        ("not json\n".into(), false),
        (summary.clone() + &other, false),
        (
            summary.clone() + "{\"path\":\"/../x\",\"kind\":\"added\"}\n",
            false,
        ),
        (
            format!("{{\"path\":\"/{}\"}}\n", "x".repeat(1 << 20)),
            false,
        ),
    ] {
        let error = Observations::default().add(text.as_bytes()).unwrap_err();
        assert_eq!(unfinished(&error), expected, "{error}");
    }
}

#[test]
fn more_than_a_first_boot_can_be_is_refused_as_a_whole() {
    let many: Vec<Entry> = (0..600)
        .map(|nth| file(&format!("/var/lib/n{nth}x{nth}"), "x"))
        .collect();
    let outcome = propose(&observed(&[vec![with(&many)]]));
    assert!(matches!(outcome, Err(LearnError::TooMany(600))));
}
