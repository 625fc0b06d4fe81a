//! A ledger that somebody rewrites with the database in hand: the first broken link is named, or a head is missing.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::Connection;
use serde_json::Value;

use crate::world::World;

/// Someone who goes around the collector first takes away what the database itself refuses.
const WITHOUT_TRIGGERS: &str = "DROP TRIGGER ledger_is_never_altered; DROP TRIGGER ledger_is_never_shortened; \
                                DROP TRIGGER ledger_only_grows_at_its_end;";

/// A stopped collector with some entries, its database as it was, and its head.
struct Stage {
    world: World,
    backup: Vec<u8>,
    entries: u64,
    head: String,
    /// The hash of every entry, the oldest first.
    hashes: Vec<String>,
}

impl Stage {
    fn new() -> Result<Self> {
        let world = World::new()?;
        for number in 0..4 {
            world.clean(&format!("vm-{number}"))?;
        }
        let verified = world.collector.json(["ledger", "verify"])?;
        let head = verified["head"].as_str().context("a head")?.to_owned();
        let entries = verified["entries"].as_u64().context("a count")?;
        let hash = |entry: &Value| entry["hash"].as_str().unwrap_or_default().to_owned();
        let hashes = world.ledger()?.iter().map(hash).collect();
        world.collector.kill_hard()?;
        let database = world.collector.data().join("collector.db");
        open(&database)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let backup = std::fs::read(&database)?;
        Ok(Self {
            world,
            backup,
            entries,
            head,
            hashes,
        })
    }

    /// Runs SQL on the stopped collector's database, starts it, and gives exit code and output of `ledger verify`.
    fn verify_after(&self, sql: &str, head: Option<&str>) -> Result<(Option<i32>, Value, String)> {
        let database = self.world.collector.data().join("collector.db");
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::write(&database, &self.backup)?;
        open(&database)?
            .execute_batch(sql)
            .with_context(|| sql.to_owned())?;
        self.world.collector.start()?;
        let mut arguments = vec!["ledger", "verify"];
        arguments.extend(head.into_iter().flat_map(|head| ["--head", head]));
        let shown = self.world.collector.try_cli(&arguments)?;
        arguments.push("--json");
        let told = self.world.collector.try_cli(&arguments)?;
        self.world.collector.kill_hard()?;
        assert_eq!(shown.status.code(), told.status.code());
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok((
            told.status.code(),
            serde_json::from_slice(&told.stdout)?,
            text,
        ))
    }
}

fn open(database: &Path) -> Result<Connection> {
    Connection::open(database).with_context(|| format!("open {}", database.display()))
}

#[test]
fn a_ledger_that_was_rewritten_names_its_first_broken_link() -> Result<()> {
    let stage = Stage::new()?;
    let (entries, head) = (stage.entries, stage.head.as_str());
    assert!(entries >= 8, "{entries} entries");
    let cut = format!(
        "{WITHOUT_TRIGGERS} DELETE FROM ledger WHERE sequence > {}",
        entries - 2
    );
    let cases: [(&str, String, u64, &str); 7] = [
        ("altered", "UPDATE ledger SET entry = replace(entry, 'web', 'wob') WHERE sequence = 5".into(), 5, "altered"),
        ("given another hash", "UPDATE ledger SET hash = zeroblob(32) WHERE sequence = 4".into(), 4, "altered"),
        ("no JSON any more", "UPDATE ledger SET entry = '{\"sequence\":6}' WHERE sequence = 6".into(), 6, "altered"),
        ("removed", "DELETE FROM ledger WHERE sequence = 3".into(), 3, "missing"),
        ("removed from the start", "DELETE FROM ledger WHERE sequence <= 2".into(), 1, "missing"),
        ("numbered anew after one was removed",
            "DELETE FROM ledger WHERE sequence = 3; UPDATE ledger SET sequence = sequence - 1 WHERE sequence > 3".into(),
            3, "displaced"),
        ("swapped", "UPDATE ledger SET sequence = 1000 WHERE sequence = 4; UPDATE ledger SET sequence = 4 WHERE \
            sequence = 5; UPDATE ledger SET sequence = 5 WHERE sequence = 1000".into(), 4, "displaced"),
    ];
    for (what, sql, sequence, broken) in cases {
        let (code, told, text) = stage.verify_after(&format!("{WITHOUT_TRIGGERS} {sql}"), None)?;
        println!("{what}: {text}");
        assert_eq!(code, Some(1), "{what}: {told:#}");
        assert_eq!(
            (&told["holds"], &told["broken"]["sequence"]),
            (&false.into(), &sequence.into()),
            "{what}: {told:#}"
        );
        assert_eq!(
            told["entries"],
            sequence - 1,
            "{what}: what comes before it holds"
        );
        let head = (sequence > 1).then(|| stage.hashes[sequence as usize - 2].clone());
        assert_eq!(
            told["head"],
            head.unwrap_or_else(|| "0".repeat(64)),
            "{what}: the head of what holds"
        );
        assert_eq!(told["broken"]["broken"], broken, "{what}");
        assert!(
            text.contains(&format!("entry {sequence} of the ledger")),
            "{what}: {text}"
        );
    }
    let (code, told, _) = stage.verify_after("SELECT 1", Some(head))?;
    assert_eq!(
        (code, &told["found_at"]),
        (Some(0), &entries.into()),
        "untouched: {told:#}"
    );
    let (code, ..) = stage.verify_after(&cut, None)?;
    assert_eq!(
        code,
        Some(0),
        "a chain alone cannot show that its end was cut off"
    );
    let (code, told, text) = stage.verify_after(&cut, Some(head))?;
    assert_eq!(
        (code, &told["holds"]),
        (Some(1), &false.into()),
        "cut off: {told:#}"
    );
    assert!(text.contains("cut off or rewritten"), "{text}");
    let (code, ..) = stage.verify_after(
        &format!("{WITHOUT_TRIGGERS} DELETE FROM ledger"),
        Some(head),
    )?;
    assert_eq!(code, Some(1), "emptied");
    Ok(())
}

#[test]
fn the_database_itself_refuses_to_change_what_is_written() -> Result<()> {
    let world = World::new()?;
    world.clean("vm-1")?;
    world.collector.kill_hard()?;
    let database = open(&world.collector.data().join("collector.db"))?;
    for sql in [
        "UPDATE ledger SET entry = '{}' WHERE sequence = 1",
        "UPDATE ledger SET hash = zeroblob(32)",
        "UPDATE OR REPLACE ledger SET sequence = sequence + 1",
        "DELETE FROM ledger WHERE sequence = 1",
        "DELETE FROM ledger",
        "INSERT OR REPLACE INTO ledger (sequence, entry, hash) SELECT sequence, entry, hash FROM ledger WHERE sequence = 2",
        "REPLACE INTO ledger (sequence, entry, hash) VALUES (1, '{}', zeroblob(32))",
        "INSERT INTO ledger (sequence, entry, hash) VALUES (1000000, '{}', zeroblob(32))",
        "INSERT INTO ledger (sequence, entry, hash) VALUES (0, '{}', zeroblob(32))",
        "INSERT INTO ledger (sequence, entry, hash) VALUES (NULL, '{}', zeroblob(32))",
    ] {
        let refused = database.execute_batch(sql).expect_err(sql).to_string();
        assert!(refused.contains("the ledger"), "{sql}: {refused}");
    }
    drop(database);
    world.collector.start()?;
    world.collector.cli(["ledger", "verify"])?;
    Ok(())
}

#[test]
fn a_head_that_is_no_head_is_refused() -> Result<()> {
    let world = World::new()?;
    for head in ["", "x", &"0".repeat(63), &"g".repeat(64), "'; --"] {
        let output = world
            .collector
            .try_cli(["ledger", "verify", "--head", head])?;
        assert_eq!(output.status.code(), Some(1), "{head:?}: {output:?}");
    }
    let output = world
        .collector
        .try_cli(["ledger", "verify", "--head", &"f".repeat(64)])?;
    assert_eq!(output.status.code(), Some(1), "a head that never was");
    Ok(())
}
