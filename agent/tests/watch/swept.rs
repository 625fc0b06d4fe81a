//! What no event tells, sweeps find: what processes run and have mapped, and what only some of them see mounted.

mod code;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use drift::TreePath;
use drift::attribution::Confidence;
use drift::finding::DriftKind;
use driftmark_agent::confine::Programs;
use driftmark_agent::sweep::{Sweeper, Swept};
use driftmark_agent::watch::attribution::CommandLine;
use rustix::fs::MemfdFlags;

use crate::place::{in_each, skip};
use crate::world::World;

/// Programs that sleep, each of its own content.
const TREE: &str = "
mkdir -p usr/bin usr/lib etc tmp var/data
cp /bin/sleep usr/bin/sleep; cp /bin/sleep usr/bin/other; echo 1 >> usr/bin/other
cp /bin/sleep usr/bin/runc; echo runc >> usr/bin/runc
cp -L /lib/x86_64-linux-gnu/libm.so.6 usr/lib/own.so 2> /dev/null || cp -L /lib64/libm.so.6 usr/lib/own.so
echo conf > etc/conf; seq 1000 > etc/mapped; seq 1000 > var/data/free
";
const RULES: &str = r#"
[[rule]]
type = "content"
path = "/var/data/free"
reason = "a database"
"#;

/// A process that ends with the test.
struct Runs(Child);

impl Runs {
    fn start(command: &mut Command) -> Runs {
        Runs(command.spawn().unwrap())
    }

    /// A program of the tree, asleep, once it runs.
    fn program(world: &World, path: &str) -> Runs {
        let program = world.root.join(path);
        let runs = Runs::start(Command::new(&program).arg("1000"));
        runs.until_it_runs(&program);
        runs
    }

    /// `spawn` returns as soon as the program is open, which `/proc` may not say yet.
    fn until_it_runs(&self, program: &Path) {
        let link = format!("/proc/{}/exe", self.0.id());
        while fs::read_link(&link).ok().as_deref() != Some(program) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sweeper(world: &World) -> Sweeper {
    Sweeper::new(&world.root, CommandLine::Redacted)
}

/// Kind, path and sentence of each moment.
fn told(swept: &Swept) -> Vec<(DriftKind, String, &str)> {
    let moments = swept.moments.iter();
    let one = |drift: &drift::finding::Drift| (drift.kind.clone(), drift.path.to_text());
    moments
        .map(|drift| {
            let (kind, path) = one(drift);
            (kind, path, drift.detail.as_deref().unwrap_or_default())
        })
        .collect()
}

const NOTHING: [(DriftKind, String, &str); 0] = [];

fn executed<'d>(path: &str, detail: &'d str) -> (DriftKind, String, &'d str) {
    (DriftKind::Executed, path.to_owned(), detail)
}

/// Maps the file that it is given, and stores in it when it is told to.
const MAPS: &str = "
import mmap, sys
file = open(sys.argv[1], 'r+b')
memory = mmap.mmap(file.fileno(), 0)
print('mapped', flush=True)
for line in sys.stdin:
    memory[0:4] = b'evil'
    print('stored', flush=True)
";

#[test]
fn what_is_stored_through_a_mapping_is_seen_by_a_sweep_and_that_it_is_mapped_is_said() {
    let name =
        "swept::what_is_stored_through_a_mapping_is_seen_by_a_sweep_and_that_it_is_mapped_is_said";
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("python3");
    }
    in_each(name, &["ext4", "tmpfs"], |kind, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        let mut sweeper = sweeper(&world);
        let maps = |path: &str| {
            let mut command = Command::new("python3");
            command.args(["-c", MAPS]).arg(world.root.join(path));
            let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut runs = Runs::start(command);
            let mut says = BufReader::new(runs.0.stdout.take().unwrap()).lines();
            assert_eq!(says.next().unwrap().unwrap(), "mapped");
            (runs, says)
        };
        let (mut runs, mut says) = maps("etc/mapped");
        // What may change is nobody's business.
        let _free = maps("var/data/free");
        let swept = world.sweep(&mut sweeper, &[]);
        let path = TreePath::new(b"/etc/mapped").unwrap();
        assert_eq!(swept.mapped.keys().collect::<Vec<_>>(), [&path], "{kind}");
        assert_eq!(
            (swept.record.mapped, &swept.record.mapped_paths[..]),
            (1, &[path.clone()][..])
        );
        let is_said = |swept: &Swept| {
            swept
                .record
                .limits()
                .any(|limit| limit.contains("/etc/mapped"))
        };
        assert!(is_said(&swept), "{kind}");
        world.comes_to_what_a_scan_says(kind);
        assert!(
            !world.open.contains_key(&path),
            "{kind}: nothing was stored yet"
        );

        runs.0
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"store\n")
            .unwrap();
        assert_eq!(says.next().unwrap().unwrap(), "stored");
        let swept = world.sweep(&mut sweeper, &[]);
        world.look_at(swept);
        world.until(kind, |world| world.open.contains_key(&path));
        let by = world.actor("/etc/mapped").unwrap();
        assert_eq!(by.pid, runs.0.id(), "{kind}: {by:?}");
        drop(runs);
        let swept = world.sweep(&mut sweeper, &[]);
        assert_eq!(swept.record.mapped, 0, "{kind}");
        assert!(!is_said(&swept), "{kind}");
    });
}

#[test]
fn what_only_some_processes_see_mounted_over_the_image_is_told() {
    let name = "swept::what_only_some_processes_see_mounted_over_the_image_is_told";
    in_each(name, &["ext4"], |_, home, top| {
        let world = World::new(home, top, TREE, RULES);
        world.sh("echo evil > tmp/evil");
        let with_mounts = |script: &str| {
            let script = format!("set -eu; {script}; echo mounted; exec sleep 1000");
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
            command.current_dir(&world.root).stdout(Stdio::piped());
            let mut runs = Runs::start(&mut command);
            let mut says = BufReader::new(runs.0.stdout.take().unwrap()).lines();
            assert_eq!(says.next().unwrap().unwrap(), "mounted");
            runs
        };
        let mut sweeper = sweeper(&world);
        // As services have them: what is there anyway, and what covers nothing.
        let _service = with_mounts(
            "mount --bind usr usr; mount -o remount,bind,ro usr; mount -t tmpfs none tmp; mount --bind etc/conf etc/conf",
        );
        let swept = world.sweep(&mut sweeper, &[]);
        assert_eq!(told(&swept), NOTHING);
        assert!(swept.record.namespaces > 0);
        let hider = with_mounts(
            "mount --bind usr usr; mount --bind tmp/evil etc/conf; mount -t tmpfs none usr/bin",
        );
        let swept = world.sweep(&mut sweeper, &[]);
        let found: Vec<_> = told(&swept)
            .into_iter()
            .map(|(kind, path, _)| (kind, path))
            .collect();
        let covered = |path: &str| (DriftKind::Covered, path.to_owned());
        assert_eq!(
            found,
            [covered("/etc/conf"), covered("/usr/bin")],
            "{swept:?}"
        );
        for drift in &swept.moments {
            let by = drift
                .attribution
                .as_ref()
                .unwrap()
                .process
                .as_ref()
                .unwrap();
            assert_eq!(by.pid, hider.0.id());
            let detail = drift.detail.as_ref().unwrap();
            assert!(
                detail.ends_with("in a mount namespace of their own"),
                "{detail}"
            );
        }
        assert_eq!(
            told(&world.sweep(&mut sweeper, &[])),
            NOTHING,
            "told before"
        );
    });
}

#[test]
fn flags_that_no_event_tells_are_found_by_a_quick_pass() {
    let name = "swept::flags_that_no_event_tells_are_found_by_a_quick_pass";
    in_each(name, &["ext4"], |_, home, top| {
        let mut world = World::new(home, top, TREE, RULES);
        let mut quick = world.quick();
        // What was hashed just after it was written is not trusted.
        world.sh("sleep 0.05");
        assert!(quick(&world).is_empty());
        world.sh("chattr +i etc/conf");
        let found = quick(&world);
        let path = TreePath::new(b"/etc/conf").unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&path]);
        assert_eq!(found[&path].kind, DriftKind::Changed);
        world.sh("chattr -i etc/conf");
        assert!(quick(&world).is_empty());
        world.comes_to_what_a_scan_says("the watch saw neither");
        assert!(world.open.is_empty());
    });
}

/// A control group that is called as docker calls those of its containers.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Group> {
        let name = format!("docker-{}.scope", std::process::id());
        let tops = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let top = tops
            .map(Path::new)
            .into_iter()
            .find(|top| top.join("cgroup.controllers").exists())?;
        let group = top.join(name);
        fs::create_dir(&group).ok().map(|()| Group(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever was in it has ended, which the kernel may not know yet.
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_runs_in_containers_is_counted_and_what_only_has_another_root_is_told() {
    let name = "swept::what_runs_in_containers_is_counted_and_what_only_has_another_root_is_told";
    in_each(name, &["ext4"], |kind, home, top| {
        let Some(group) = Group::new() else {
            return skip("a control group");
        };
        let mut world = World::new(home, top, TREE, RULES);
        let jail = "mkdir tmp/jail; ldd /bin/sleep | grep -o '/[^ ]*' | xargs cp -L --parents -t tmp/jail; \
                    mkdir tmp/jail/bin; cp /bin/sleep tmp/jail/bin/contained; cp /bin/sleep tmp/jail/bin/free";
        world.sh(jail);
        let join = format!("echo $$ > {}/cgroup.procs", group.0.display());
        world.sh(&format!(
            "for again in 1 2 3; do sh -c '{join}; exec tmp/jail/bin/contained 3' & done; wait"
        ));
        world.until(kind, |world| world.container_starts() == 3);
        let jailed = |script: &str, program: &str| {
            let script = format!("{script}; exec chroot tmp/jail /bin/{program} 1000");
            let mut command = Command::new("sh");
            command.args(["-c", &script]).current_dir(&world.root);
            let runs = Runs::start(&mut command);
            runs.until_it_runs(&world.root.join("tmp/jail/bin").join(program));
            runs
        };
        let mut sweeper = sweeper(&world);
        let _contained = jailed(&join, "contained");
        let _free = jailed(":", "free");
        let swept = world.sweep(&mut sweeper, &[]);
        // Others of this machine may have some too.
        assert!(swept.record.containers >= 2, "{:?}", swept.record);
        let detail = "a process runs it, and it is not in the image";
        assert_eq!(told(&swept), [executed("/tmp/jail/bin/free", detail)]);
        world.until(kind, |world| !world.executed.is_empty());
        let told: Vec<String> = world
            .executed
            .iter()
            .map(|drift| drift.path.to_text())
            .collect();
        assert_eq!(told, ["/tmp/jail/bin/free"], "the watch tells the same");
    });
}

#[test]
fn a_loaded_module_that_no_file_of_the_image_brings_is_told() {
    let name = "swept::a_loaded_module_that_no_file_of_the_image_brings_is_told";
    in_each(name, &["ext4"], |_, home, top| {
        let tree = "mkdir -p usr/lib/modules/6.1/kernel/net usr/lib/modules/6.1/updates; cd usr/lib/modules/6.1
            echo 1 > kernel/nf-tables.ko.xz; echo 2 > updates/own.ko; echo 3 > kernel/net/not-loaded.ko.zst; echo evil > modules.dep";
        let world = World::new(home, top, tree, "");
        let [proc, sys] = ["proc", "sys"].map(|name| home.join(name));
        let mut sweeper = sweeper(&world).with_kernel(proc.clone(), sys.clone());
        assert_eq!(
            told(&world.sweep(&mut sweeper, &[])),
            NOTHING,
            "it has none"
        );
        fs::create_dir(&proc).unwrap();
        let load = |names: &[&str]| {
            let lines = names
                .iter()
                .map(|name| format!("{name} 4096 0 - Live 0x0\n"));
            fs::write(proc.join("modules"), lines.collect::<String>()).unwrap();
        };
        load(&["nf_tables", "own"]);
        assert_eq!(told(&world.sweep(&mut sweeper, &[])), NOTHING);
        load(&["nf_tables", "own", "evil"]);
        fs::create_dir_all(sys.join("module/hidden")).unwrap();
        fs::write(sys.join("module/hidden/initstate"), "live\n").unwrap();
        let detail = "a loaded kernel module that no file of the image brings";
        let expected =
            ["evil", "hidden"].map(|name| executed(&format!("/sys/module/{name}"), detail));
        assert_eq!(told(&world.sweep(&mut sweeper, &[])), expected);
        assert_eq!(
            told(&world.sweep(&mut sweeper, &[])),
            NOTHING,
            "told before"
        );
    });
}

#[test]
#[ignore = "tells what a sweep costs, and holds nothing to it"]
fn what_a_sweep_of_300_processes_costs() {
    let name = "swept::what_a_sweep_of_300_processes_costs";
    in_each(name, &["ext4"], |_, home, top| {
        let world = World::new(home, top, TREE, RULES);
        let _many: Vec<Runs> = (0..300)
            .map(|_| Runs::program(&world, "usr/bin/sleep"))
            .collect();
        let mut sweeper = Sweeper::new(Path::new("/"), CommandLine::Redacted);
        for _ in 0..20 {
            world.sweep(&mut sweeper, &[]);
        }
        let cpu = || {
            let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            let first = stat.split(' ').next().unwrap();
            first.parse::<u64>().unwrap() / 1000
        };
        let before = cpu();
        for _ in 0..20 {
            let swept = world.sweep(&mut sweeper, &[]);
            println!("{:?}", swept.record);
        }
        println!("{} us of processor each", (cpu() - before) / 20);
    });
}
