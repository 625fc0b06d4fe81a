//! The mutation table again, live, on a machine: each row is known at the collector by events alone, with the program that did
//! it, and so is its undoing. What no event tells, the next pass or sweep does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use driftmark_tests::mutations::{self, Mutation, PRELUDE};
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, Recipe, fleet};
use serde_json::Value;

use crate::LIMIT;
use crate::watched::rarely_scanned;

/// The tree of the table, in the image, and what is kept beside it.
const TREE: &str = "/usr/share/tree";
const KEEP: &str = "/var/keep";
const RULES: &str =
    "[[rule]]\ntype = \"volatile\"\npath = \"/var/keep\"\nreason = \"beside the tree\"\n";
const TOOLS: [&str; 4] = ["acl", "attr", "e2fsprogs", "libcap2-bin"];
/// What a packed image does not keep of the tree: flags, ACLs, and what is deeper than a path can say.
const PACKED: &str =
    "chattr -R -idA data; setfacl -b etc/acl etc/acl.d; chmod 644 etc/acl; rm leaf";

/// What rows say that are not known by events alone: an event tells that something is mounted, or that a file has other names,
/// and a pass what they are. And ACLs, which a packed image's kind of file system does not take.
const NOT_BY_EVENTS: [&str; 7] = [
    "setfacl", "mount ", "outside", "ln data/", "ln lib/", "ln -f ", "mv lib/",
];

/// Stores through a mapping, long after the file was closed, and lives on: `mmap` and `read` are calls 9 and 0, or 222 and 63.
const MAPPED: &str = r#"perl -e 'my ($mmap, $read) = `uname -m` eq "x86_64\n" ? (9, 0) : (222, 63);
    open F, "+<", "lib/library"; my $at = syscall($mmap, 0, 4096, 3, 1, fileno(F), 0); close F; sleep 1;
    open Z, "<", "/dev/zero"; syscall($read, fileno(Z), $at, 8); sleep 600' > /dev/null 2>&1 & echo $! > $KEEP/mapper"#;
const UNMAPPED: &str = "kill $(cat $KEEP/mapper); seq 20000 > lib/library";

#[test]
fn each_mutation_is_known_without_a_scan_with_who_did_it_and_so_is_its_undoing() -> Result<()> {
    if !possible("watching an instance") {
        return Ok(());
    }
    let fleet = rarely_scanned(Some(recipe()))?;
    let machine = Mutated::of(&fleet)?;
    let is_by_events = |script: &String| NOT_BY_EVENTS.iter().all(|word| !script.contains(word));
    let rows = mutations::written();
    let rows = rows.iter().filter(|row| !row.drifts.is_empty());
    let rows = rows.filter(|row| is_by_events(&row.make) && is_by_events(&row.undo));
    let mut count = 0;
    for row in rows {
        let (name, line) = (&row.name, &row.make);
        machine
            .tells(row)
            .with_context(|| format!("{name}: {line}"))?;
        count += 1;
    }
    ensure!(count > 80, "{count} rows");
    machine.tells_what_no_event_shows()?;
    println!("the mutation table, live: {count} rows");
    Ok(())
}

fn recipe() -> Recipe {
    let script = shell(&format!("{}{PACKED}", mutations::base::script()));
    // `mknod` sets modes by way of `/proc`.
    let step = format!(
        "mkdir {TREE} {KEEP}; mount -t proc proc /proc; trap 'umount /proc' EXIT; bash -euc '{}'",
        script.replace('\'', r"'\''")
    );
    let recipe = Recipe::new(fleet::FLEET, "1").rules(RULES).step(&step);
    let with = |recipe: Recipe, tool| recipe.package(tool);
    TOOLS.into_iter().fold(recipe, with)
}

fn shell(script: &str) -> String {
    format!("KEEP={KEEP} DEPTH=0\n{PRELUDE}\ncd {TREE}\n{script}")
}

/// What is open, as the table says it, and which program did it.
type Open = BTreeMap<String, Option<String>>;

struct Mutated<'f> {
    fleet: &'f Fleet,
    vm: String,
    id: String,
}

impl<'f> Mutated<'f> {
    fn of(fleet: &'f Fleet) -> Result<Self> {
        let vm = fleet.launch_clean(1)?.remove(0);
        let id = fleet.id(&vm)?;
        until("the watch to begin", LIMIT, || {
            let journal =
                (fleet.cloud).with(&vm, |machine| machine.journal("driftmark-agent.service"))?;
            Ok(journal.contains("the watch begins").then_some(()))
        })?;
        Ok(Self { fleet, vm, id })
    }

    fn tells(&self, row: &Mutation) -> Result<()> {
        self.exec(&row.make)?;
        let drifts: Vec<_> = row.drifts.iter().map(String::as_str).collect();
        let does = |program: &Option<String>| {
            let program = program.as_ref();
            program.is_some_and(|program| runs(&row.make, program))
        };
        self.comes_to(&drifts, |open| open.values().all(does))?;
        self.exec(&row.undo)?;
        self.comes_to(&[], |_| true).context("it is undone")?;
        ensure!(!self.was_scanned()?, "a pass was needed");
        Ok(())
    }

    fn tells_what_no_event_shows(&self) -> Result<()> {
        let flags = "changed /data/plain flags";
        let covered = "covered /opt/empty";
        let mapped = "changed /lib/library content";
        let mode = "changed /etc/hosts mode";
        self.exec(&format!("chattr +i data/plain; {MAPPED}"))?;
        // By the sweep of the processes, which is due every minute.
        let perl = Some("/usr/bin/perl".to_owned());
        self.comes_to(&[mapped], |open| open[mapped] == perl)?;
        self.exec("chmod 600 etc/hosts")?;
        self.comes_to(&[mapped, mode], |_| true)?;
        ensure!(!self.was_scanned()?, "a pass was needed");
        // The pass that a mount asks for.
        self.exec("mount -t tmpfs none opt/empty")?;
        let all = [flags, covered, mapped, mode];
        self.comes_to(&all, |open| open[flags].is_none())?;
        ensure!(self.was_scanned()?, "what tells it?");
        self.exec(&format!(
            "{UNMAPPED}; chmod 644 etc/hosts; chattr -i data/plain; umount opt/empty"
        ))?;
        self.comes_to(&[], |_| true)
    }

    fn exec(&self, script: &str) -> Result<()> {
        let line = shell(script);
        self.fleet.cloud.with(&self.vm, |machine| {
            run(machine.command("bash")?.args(["-euc", &line])).map(drop)
        })
    }

    /// Waits until just these are open, and whoever did it is known.
    fn comes_to(&self, drifts: &[&str], is_known: impl Fn(&Open) -> bool) -> Result<()> {
        let mut last = Open::new();
        let waited = until("just what was done", LIMIT, || {
            last = open(&self.fleet.show(&self.id)?)?;
            let are_these = drifts.iter().all(|drift| last.contains_key(*drift));
            let are_these = are_these && last.len() == drifts.len();
            Ok((are_these && is_known(&last)).then_some(()))
        });
        waited.with_context(|| format!("{drifts:?}, and not {last:?}"))
    }

    /// Whether any pass came after that of the start.
    fn was_scanned(&self) -> Result<bool> {
        Ok(!self.fleet.show(&self.id)?["coverage"]["quick"].is_null())
    }
}

fn open(shown: &Value) -> Result<Open> {
    let one = |open: &Value| {
        let drift = &open["drift"];
        let path = match drift["path"].as_str()?.strip_prefix(TREE)? {
            "" => "/",
            path => path,
        };
        let changed = drift["changed"].as_array().into_iter().flatten();
        let words = [drift["kind"].as_str()?, path].into_iter();
        let words: Vec<_> = words.chain(changed.filter_map(Value::as_str)).collect();
        let program = &drift["attribution"]["process"]["executable"]["path"];
        Some((words.join(" "), program.as_str().map(str::to_owned)))
    };
    let drifts = shown["drifts"].as_array().context("a list of drifts")?;
    let each = drifts
        .iter()
        .map(|open| one(open).with_context(|| format!("{open:#}")));
    each.collect()
}

/// Whether a line of the table runs this program; most run just one.
fn runs(line: &str, program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_it = |word: &str| match word {
        "keep" | "back" => name == "mv",
        "poke" => matches!(name, "dd" | "touch"),
        "socket" => name == "perl",
        word => word == name,
    };
    (name == "bash" && line.contains('>')) || words.any(is_it)
}
