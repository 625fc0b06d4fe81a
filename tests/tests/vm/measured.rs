//! fs-verity: what the kernel measured is not read, and whatever is another file is drift all the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::process::run;
use driftmark_tests::{Machine, MachineOptions, Recipe, vm};
use serde_json::Value;

use crate::world::World;

/// The whole mutation table, each row with a tree that is frozen and thawed, on an emulated processor that others share.
const TABLE_LIMIT: Duration = Duration::from_secs(90 * 60);
/// The stories of the mutation table that need nothing but what changed to be told.
const STORIES: [&str; 2] = [
    "mutations::every_mutation_is_reported_exactly_and_nothing_is_once_it_is_undone",
    "mutations::every_flag_kind_and_odd_name_is_reported_exactly_and_nothing_is_once_it_is_undone",
];
/// What these use, and what a story in a machine does.
const PACKAGES: [&str; 7] = [
    "fsverity",
    "attr",
    "acl",
    "libcap2-bin",
    "systemd-container",
    "strace",
    "e2fsprogs",
];

/// A tree of ordinary programs and libraries, all with fs-verity but one.
const TREE: &str = "mkdir -p /var/tmp/tree/bin /var/tmp/tree/lib /var/tmp/keep; cd /var/tmp/tree; \
    cp -a /usr/bin/. bin/; cp -aL /usr/lib/x86_64-linux-gnu/lib[a-f]*.so.* lib/; \
    seq 300000 >data; seq 300000 >twin; echo small >small; echo plain >plain; sync; \
    find . -type f ! -name plain ! -name twin -exec fsverity enable {} ';' 2>/dev/null; \
    fsverity enable --hash-alg=sha512 twin";

/// A machine with what these stories use, and with these disks; none where no machine can be had.
fn machine(
    story: &str,
    disks: impl FnOnce(&World) -> Result<Vec<PathBuf>>,
) -> Result<Option<(World, Machine)>> {
    if !vm::possible(story) {
        return Ok(None);
    }
    let world = World::of("", |recipe| {
        PACKAGES.into_iter().fold(recipe, Recipe::package)
    })?;
    let disks = disks(&world)?;
    let options = MachineOptions {
        disks,
        memory_mib: 768,
        kernel_arguments: "systemd.mask=driftmark-agent.service".to_owned(),
        ..MachineOptions::default()
    };
    let machine = world.boot("vm-1", options)?;
    Ok(Some((world, machine)))
}

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn the_whole_mutation_table_is_told_of_files_with_fs_verity() -> Result<()> {
    let disks = |world: &World| Ok(vec![disk_with_stories(world)?]);
    let Some((_world, machine)) = machine("the mutation table with fs-verity", disks)? else {
        return Ok(());
    };
    machine.exec(&format!(
        "mkdir /run/stories; mount -o ro /dev/nvme1n1 /run/stories; cd /var/tmp; \
         (DRIFTMARK_FS_VERITY=1 DRIFTMARK_NO_SKIPPING=1 DRIFTMARK_AGENT=/usr/bin/driftmark-agent TMPDIR=/var/tmp \
         /run/stories/detection --exact --nocapture --test-threads 1 {} >/run/told 2>&1 && echo 0 >/run/ended || echo 1 >/run/ended) \
         </dev/null >/dev/null 2>&1 &",
        STORIES.join(" ")
    ))?;
    let waited = until("the end of the mutation table", TABLE_LIMIT, || {
        pause(Duration::from_secs(5));
        let ended = machine.exec("cat /run/ended 2>/dev/null || true")?;
        match ended.trim() {
            "" => Ok(None),
            "0" => Ok(Some(())),
            code => bail!("it ended with {code}"),
        }
    });
    let told = machine.exec("cat /run/told")?;
    println!("{told}");
    waited.with_context(|| told.clone())?;
    ensure!(told.contains("2 passed"), "{told}");
    Ok(())
}

/// A disk with the stories of `detection`, as cargo built them.
fn disk_with_stories(world: &World) -> Result<PathBuf> {
    // Beside this test in cargo's tree, the newest: a cargo that is started by another builds everything anew.
    let own = std::env::current_exe().context("find the running test")?;
    let mut built = Vec::new();
    for entry in fs::read_dir(own.parent().context("it lies somewhere")?)?.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with("detection-") && !name.contains('.') {
            built.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    let (_, program) = built
        .into_iter()
        .max()
        .context("no stories of `detection` were built")?;
    let target = world.lab.directory().join("stories.image");
    let directory = world.lab.directory().join("stories");
    fs::create_dir(&directory).context("make a directory")?;
    run(Command::new("strip")
        .arg("-o")
        .arg(directory.join("detection"))
        .arg(&program))?;
    let bytes = fs::metadata(directory.join("detection"))
        .context("look at the stories")?
        .len();
    fs::File::create(&target)
        .and_then(|file| file.set_len((bytes + bytes / 4 + (32 << 20)).next_multiple_of(4096)))
        .context("make a disk")?;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&directory)
        .arg(&target))?;
    Ok(target)
}

/// What a check in the machine said.
struct Said {
    code: i32,
    drifts: Vec<String>,
    gaps: Vec<String>,
    summary: Value,
}

struct Tree<'m>(&'m Machine);

impl Tree<'_> {
    /// Checks the tree, with nothing remembered.
    fn check(&self, more: &str) -> Result<Said> {
        let output = self.0.try_exec(&format!(
            "driftmark-agent check --root /var/tmp/tree --manifest /var/tmp/baked/image.manifest \
             --trust /var/tmp/keys/driftmark.pub --state /var/tmp/state --json {more} 2>/var/tmp/trouble"
        ))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut said = Said {
            code: output.status.code().context("it was not killed")?,
            drifts: Vec::new(),
            gaps: Vec::new(),
            summary: Value::Null,
        };
        for line in text.lines() {
            let mut line: Value = serde_json::from_str(line).with_context(|| text.clone())?;
            if line["summary"].is_object() {
                said.summary = line["summary"].take();
            } else if line["gap"].is_object() {
                said.gaps.push(line["gap"]["path"].to_string());
            } else {
                let changed = line["changed"].as_array().context("a list")?;
                let words = changed.iter().filter_map(Value::as_str).collect::<Vec<_>>();
                let (kind, path) = (line["kind"].as_str(), line["path"].as_str());
                let (kind, path) = kind.zip(path).context("kind and path")?;
                said.drifts
                    .push(format!("{kind} {path} {}", words.join(" ")));
            }
        }
        Ok(said)
    }

    /// Checks the tree: clean, and all of it measured.
    fn is_clean(&self, all: u64, when: &str, readers: &str) -> Result<()> {
        let said = self.check("")?;
        println!(
            "{when}: {readers:?}; check: {} drifts {:?} gaps {:?}",
            said.code, said.drifts, said.gaps
        );
        ensure!(
            said.code == 0 && said.summary["measured"] == all,
            "{}",
            said.summary
        );
        Ok(())
    }

    /// Makes a change, checks, undoes it; gives what was told and how many files were measured.
    fn told(&self, make: &str, undo: &str) -> Result<(Vec<String>, u64)> {
        self.0.exec(&format!("cd /var/tmp/tree; {make}"))?;
        let said = self.check("")?;
        self.0.exec(&format!("cd /var/tmp/tree; {undo}"))?;
        Ok((
            said.drifts,
            said.summary["measured"].as_u64().context("a count")?,
        ))
    }
}

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn what_the_kernel_measured_is_not_read_and_another_file_is_drift() -> Result<()> {
    let Some((_world, machine)) = machine("fs-verity", |_| Ok(Vec::new()))? else {
        return Ok(());
    };
    let tree = Tree(&machine);
    machine.exec(TREE)?;
    let baked = machine.exec(
        "cd /var/tmp; driftmark-agent keygen --output keys >/dev/null; \
         driftmark-agent bake --root tree --rules none --name web --version 1 --key keys/driftmark.key --output baked",
    )?;
    println!("{baked}");
    let with_verity = machine.exec(
        "cd /var/tmp/tree; find . -type f -exec lsattr {} + | awk '$1 ~ /V/' | wc -l; find . -type f | wc -l; \
         find . -type f -printf '%s\\n' | awk '{sum += $1} END {print sum}'",
    )?;
    let counts: Vec<u64> = with_verity
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    let [with_verity, files, bytes] = counts[..] else {
        bail!("three numbers: {with_verity:?}");
    };

    // What bake holds is what the kernel measures.
    for (name, word) in [
        ("data", "sha256:"),
        ("twin", "sha512:"),
        ("small", "sha256:"),
    ] {
        let shown = machine.exec(&format!(
            "driftmark-agent inspect --json /var/tmp/baked/image.manifest /{name}; fsverity measure /var/tmp/tree/{name}"
        ))?;
        let (entry, measured) = shown.trim().split_once('\n').context("two lines")?;
        let entry: Value = serde_json::from_str(entry).context("an entry")?;
        let measured = measured.split(' ').next().unwrap_or_default();
        ensure!(
            entry["verity"] == measured && measured.starts_with(word),
            "{shown}"
        );
    }
    let plain =
        machine.exec("driftmark-agent inspect --json /var/tmp/baked/image.manifest /plain")?;
    ensure!(!plain.contains("\"verity\""), "{plain}");

    let said = tree.check("")?;
    println!(
        "{with_verity} of {files} files have fs-verity, of {bytes} bytes; measured {}, read {} bytes: {}",
        said.summary["measured"], said.summary["bytes"], said.summary["coverage"]["notes"]
    );
    ensure!(
        said.code == 0 && said.drifts.is_empty(),
        "{:?} {}",
        said.drifts,
        said.summary
    );
    ensure!(said.summary["measured"] == with_verity, "{}", said.summary);
    let measured = said.summary["coverage"]["seen"]["measured_bytes"]
        .as_u64()
        .context("a count")?;
    ensure!(
        said.summary["bytes"] == bytes - measured && measured > bytes / 10 * 9,
        "{}",
        said.summary
    );
    ensure!(
        said.summary["coverage"]["notes"]
            .to_string()
            .contains("fs-verity"),
        "{}",
        said.summary
    );
    ensure!(
        said.summary["coverage"]["limits"].is_null(),
        "{}",
        said.summary
    );

    let enable = "fsverity enable new; mv -f new data";
    let back = "cp -a twin new; fsverity enable new; mv -f new data";
    let altered = "cp -a twin new; printf X | dd of=new bs=1 seek=1000000 conv=notrunc status=none";
    let all = with_verity;
    let rows: [(&str, String, &[&str], u64); 7] = [
        (
            "a new file of that content is that file",
            format!("cp -a twin new; {enable}"),
            &[],
            all,
        ),
        (
            "another content",
            format!("{altered}; {enable}"),
            &["changed /data content"],
            all - 1,
        ),
        (
            "another content and no verity",
            format!("{altered}; mv -f new data"),
            &["changed /data content flags"],
            all - 1,
        ),
        (
            "another size",
            format!("{altered}; echo more >>new; {enable}"),
            &["changed /data size content"],
            all - 1,
        ),
        (
            "verity lost",
            "cp -a twin new; mv -f new data".to_owned(),
            &["changed /data flags"],
            all - 1,
        ),
        (
            "another tree over that content is read, and is that content",
            "cp -a twin new; fsverity enable --salt=abcd new; mv -f new data".to_owned(),
            &[],
            all - 1,
        ),
        (
            "another algorithm over that content is read, and is that content",
            "cp -a twin new; fsverity enable --hash-alg=sha512 new; mv -f new data".to_owned(),
            &[],
            all - 1,
        ),
    ];
    for (name, make, drifts, measured) in rows {
        let told = tree.told(&make, back).context(name)?;
        ensure!(
            told == (
                drifts.iter().map(|&drift| drift.to_owned()).collect(),
                measured
            ),
            "{name}: {told:?}"
        );
        println!("{name}: {told:?}");
    }
    let metadata = tree.told(
        "chmod 600 data; chown 1:1 small",
        "chmod 644 data; chown 0:0 small",
    )?;
    ensure!(
        metadata.0 == ["changed /data mode", "changed /small uid gid"] && metadata.1 == all,
        "{metadata:?}"
    );
    let written = machine.try_exec("echo more >>/var/tmp/tree/data")?;
    let written = String::from_utf8_lossy(&written.stdout).into_owned();
    ensure!(written.contains("Operation not permitted"), "{written}");

    for (word, file) in [("measured", "small"), ("read", "plain")] {
        let calls = machine.exec(&format!(
            "rm -rf /var/tmp/one; mkdir /var/tmp/one; cd /var/tmp/one; mkdir tree; \
             for n in $(seq 100); do cp /var/tmp/tree/{file} tree/$n; done; \
             [ {word} = read ] || for n in $(seq 100); do fsverity enable tree/$n; done; \
             driftmark-agent bake --root tree --rules none --name web --version 1 --key ../keys/driftmark.key --output baked >/dev/null; \
             strace -f -c -U calls,name -o counted driftmark-agent check --threads 1 --root tree --manifest baked/image.manifest \
             --trust ../keys/driftmark.pub --state state >/dev/null; \
             awk '$1 >= 99 && NF == 2 {{print $2, $1}}' counted"
        ))?;
        println!("100 files that are {word}: {}", calls.replace('\n', "; "));
        ensure!(
            calls.contains("pread") == (word == "read"),
            "{word}: {calls}"
        );
    }
    raw_write(&machine, &tree, all)
}

/// What is written to the disk beneath a file with fs-verity: readers get an error, a measurement does not know, and
/// what reads tells a gap.
fn raw_write(machine: &Machine, tree: &Tree<'_>, all: u64) -> Result<()> {
    machine.exec("sync; cat /var/tmp/tree/data >/dev/null")?;
    let block = machine
        .exec("filefrag -v -b4096 /var/tmp/tree/data | awk '$1 == \"0:\" {print $4}' | tr -d .:")?;
    let block: u64 = block
        .trim()
        .parse()
        .with_context(|| format!("a block: {block:?}"))?;
    machine.exec(&format!(
        "dd if=/dev/nvme0n1 of=/var/tmp/block bs=4096 skip={block} count=1 iflag=direct status=none; \
         dd if=/dev/zero of=/dev/nvme0n1 bs=4096 seek={block} count=1 oflag=direct conv=notrunc status=none"
    ))?;
    let cached =
        machine.try_exec("cat /var/tmp/tree/data | md5sum; cat /var/tmp/tree/twin | md5sum")?;
    let cached = String::from_utf8_lossy(&cached.stdout).into_owned();
    tree.is_clean(all, "a raw write beneath cached pages", &cached)?;
    machine.exec("echo 3 >/proc/sys/vm/drop_caches")?;
    let read = machine.try_exec("cat /var/tmp/tree/data >/dev/null")?;
    let read = String::from_utf8_lossy(&read.stdout).into_owned();
    ensure!(read.contains("Input/output error"), "{read}");
    tree.is_clean(all, "the same with nothing cached", &read)?;
    machine.exec(&format!(
        "dd if=/var/tmp/block of=/dev/nvme0n1 bs=4096 seek={block} count=1 oflag=direct conv=notrunc status=none; \
         echo 3 >/proc/sys/vm/drop_caches; cmp /var/tmp/tree/data /var/tmp/tree/twin"
    ))?;
    Ok(())
}
