//! The guard on file systems of the tests' own, in mounts that nobody else sees: whatever this machine runs itself is
//! asked about nowhere.

mod world;

use std::fs;
use std::process::Command;

use drift::attribution::Confidence;
use drift::finding::{Drift, DriftKind};

use super::*;
use world::{Outcome, World, in_own_mounts};

#[test]
fn what_the_image_does_not_hold_does_not_run_and_it_is_told_who_wanted_it() {
    in_own_mounts(
        "what_the_image_does_not_hold_does_not_run_and_it_is_told_who_wanted_it",
        |kind, top| {
            let mut world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
            assert_eq!(world.run("bin/known"), Outcome::Ran);
            world.copy("/bin/true", "tmp/unknown");
            assert_eq!(world.run("tmp/unknown"), Outcome::Refused);
            // By no other name of it either, and no other place.
            world.sh("ln tmp/unknown bin/alike; cp tmp/unknown bin/added; mkdir -p new/deep; cp tmp/unknown new/deep/it");
            for path in ["bin/alike", "bin/added", "new/deep/it"] {
                assert_eq!(world.run(path), Outcome::Refused, "{path}");
            }
            let told = world.told_of("tmp/unknown");
            assert_eq!(told.kind, DriftKind::Executed);
            assert_eq!(told.detail.as_deref(), Some(Drift::REFUSED));
            let by = told.attribution.unwrap();
            assert_eq!(by.confidence, Confidence::Certain);
            let by = by.process.unwrap();
            let shell = fs::canonicalize("/bin/sh").unwrap();
            assert_eq!(by.executable.unwrap().path, shell.to_str().unwrap());
            assert_eq!(by.ancestors[0].pid, world.runner());
            // Told once, refused each time.
            for _ in 0..5 {
                assert_eq!(world.run("tmp/unknown"), Outcome::Refused);
            }
            assert_eq!(world.run("bin/known"), Outcome::Ran);
            assert_eq!(world.count(|counts| &counts.foreign), 9);
            world.told_of("new/deep/it");
            assert_eq!(world.foreign.len(), 4, "{:?}", world.foreign);
        },
    );
}

#[test]
fn a_script_is_refused_as_itself_and_not_as_what_its_interpreter_reads() {
    in_own_mounts(
        "a_script_is_refused_as_itself_and_not_as_what_its_interpreter_reads",
        |kind, top| {
            let mut world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
            assert_eq!(world.run("bin/script"), Outcome::Ran);
            world.sh("cp bin/script tmp/script");
            assert_eq!(world.run("tmp/script"), Outcome::Refused);
            let shell = Command::new("/bin/sh")
                .arg(world.root.join("tmp/script"))
                .status();
            assert!(shell.unwrap().success());
            world.told_of("tmp/script");
        },
    );
}

#[test]
fn a_program_of_the_image_runs_whatever_it_is_called_and_nothing_runs_for_being_called_like_it() {
    in_own_mounts(
        "a_program_of_the_image_runs_whatever_it_is_called_and_nothing_runs_for_being_called_like_it",
        |kind, top| {
            let world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
            world.sh("touch tmp/empty; mount --bind bin/known tmp/empty");
            assert_eq!(world.run("tmp/empty"), Outcome::Ran);
            world.copy("/bin/true", "tmp/evil");
            world.sh("mount --bind tmp/evil bin/other");
            assert_eq!(world.run("bin/other"), Outcome::Refused);
            world.sh("umount bin/other");
            assert_eq!(world.run("bin/other"), Outcome::Ran);
            // Changed, replaced, without the right to run at bake: drift, and a program of the image.
            world.sh("echo more >> bin/known; cp bin/other bin/.new; mv bin/.new bin/other; chmod +x etc/text");
            for path in ["bin/known", "bin/other", "etc/text"] {
                assert_eq!(world.run(path), Outcome::Ran, "{path}");
            }
            // Started again by who has it open, though it was replaced, as service managers are.
            let open = fs::File::open(world.root.join("bin/third")).unwrap();
            world.sh("cp bin/third bin/.new; mv bin/.new bin/third");
            assert_eq!(world.run_open(&open), Outcome::Ran);
            let open = fs::File::open(world.root.join("tmp/evil")).unwrap();
            world.sh("rm tmp/evil");
            assert_eq!(world.run_open(&open), Outcome::Refused);
        },
    );
}

#[test]
fn permissive_refuses_nothing_and_tells_what_would_be_refused() {
    in_own_mounts(
        "permissive_refuses_nothing_and_tells_what_would_be_refused",
        |kind, top| {
            let mut world = World::guarded(kind, top, Mode::Permissive, &[]);
            world.copy("/bin/true", "tmp/unknown");
            assert_eq!(world.run("tmp/unknown"), Outcome::Ran);
            assert_eq!(world.run("bin/known"), Outcome::Ran);
            let told = world.told_of("tmp/unknown");
            assert_eq!(told.detail.as_deref(), Some(Drift::WOULD_BE_REFUSED));
            assert_eq!(world.count(|counts| &counts.foreign), 1);
        },
    );
}

#[test]
fn nothing_is_refused_while_it_is_switched_off_nor_where_anything_may_be_run() {
    in_own_mounts(
        "nothing_is_refused_while_it_is_switched_off_nor_where_anything_may_be_run",
        |kind, top| {
            let world = World::guarded(kind, top, Mode::ImagePrograms, &["opt/app"]);
            world.sh("mkdir -p opt/app/bin opt/apple");
            for path in ["opt/app/bin/it", "opt/apple/it", "tmp/unknown"] {
                world.copy("/bin/true", path);
            }
            assert_eq!(world.run("opt/app/bin/it"), Outcome::Ran);
            assert_eq!(world.run("opt/apple/it"), Outcome::Refused);
            assert_eq!(world.run("tmp/unknown"), Outcome::Refused);
            fs::write(&world.off_switch, "").unwrap();
            assert_eq!(world.run("tmp/unknown"), Outcome::Ran);
            fs::remove_file(&world.off_switch).unwrap();
            assert_eq!(world.run("tmp/unknown"), Outcome::Refused);
        },
    );
}

#[test]
fn a_file_system_that_is_mounted_later_is_guarded_and_a_part_of_one_is_a_limit() {
    in_own_mounts(
        "a_file_system_that_is_mounted_later_is_guarded_and_a_part_of_one_is_a_limit",
        |kind, top| {
            let mut world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
            world.sh("mkdir data part; mount -t tmpfs tmpfs data");
            world.copy("/bin/true", "data/unknown");
            world.until("it is guarded", |world| {
                world.run("data/unknown") == Outcome::Refused
            });
            // What others have more of: they would wait for this agent.
            let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
            let part = world.root.join("part");
            let bound = Command::new("mount")
                .arg("--bind")
                .arg(elsewhere.path())
                .arg(&part)
                .status();
            assert!(bound.unwrap().success());
            world.until("it is a limit", |world| {
                world.limits.iter().any(|limit| limit.contains("part of"))
            });
            world.copy("/bin/true", "part/unknown");
            assert_eq!(world.run("part/unknown"), Outcome::Ran);
            world.sh("umount part; umount data");
            world.until("it is none any more", |world| world.limits.is_empty());
        },
    );
}

#[test]
fn what_has_another_root_is_not_the_image_s_to_judge() {
    in_own_mounts(
        "what_has_another_root_is_not_the_image_s_to_judge",
        |kind, top| {
            let world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
            world.sh("mkdir -p tmp/box/bin; cp /bin/true tmp/box/bin/own
            for file in $(ldd /bin/true | grep -o '/[^ ]*'); do mkdir -p tmp/box/${file%/*}; cp $file tmp/box/$file; done");
            assert_eq!(world.run("tmp/box/bin/own"), Outcome::Refused);
            let mut inside = Command::new("chroot");
            let inside = inside
                .arg(world.root.join("tmp/box"))
                .arg("/bin/own")
                .status();
            assert!(inside.unwrap().success());
            // The program and its loader.
            assert_eq!(world.count(|counts| &counts.containers), 2);
        },
    );
}

#[test]
fn an_answer_that_takes_too_long_closes_the_gate_and_everything_runs() {
    in_own_mounts(
        "an_answer_that_takes_too_long_closes_the_gate_and_everything_runs",
        |kind, top| {
            let world = World::baked(kind, top);
            world.copy("/bin/true", "tmp/unknown");
            let (tell, told) = std::sync::mpsc::channel();
            let tell = std::sync::Mutex::new(tell);
            let guarding = Guarding {
                order: world.order(Mode::ImagePrograms, &[]),
                tell: &|told| tell.lock().unwrap().send(told).unwrap(),
                ending: &Ending::new().unwrap(),
                counts: &Counts::default(),
            };
            let gate = Gate::open().unwrap();
            let (go_on, stuck) = std::sync::mpsc::channel::<()>();
            let judge = move |_: u32, _: std::os::fd::BorrowedFd<'_>| {
                let _ = stuck.recv();
                judge::Judgement::Foreign(drift::TreePath::new(b"tmp/unknown").unwrap())
            };
            let outcome = guarding.answer(
                &gate,
                judge,
                |_| {},
                |ending| {
                    let top = fs::File::open(&world.root).unwrap();
                    gate.guard(std::os::fd::AsFd::as_fd(&top)).unwrap();
                    // Waits for the one that is stuck, and then runs; what comes after waits for nobody.
                    assert_eq!(world.run("tmp/unknown"), Outcome::Ran);
                    assert_eq!(world.run("tmp/unknown"), Outcome::Ran);
                    match told.recv_timeout(world::SOON).unwrap() {
                        Told::Ended(reason) => assert!(reason.contains("500 ms"), "{reason}"),
                        other => panic!("{other:?}"),
                    }
                    assert!(ending.is_over());
                    drop(go_on);
                    Ok(())
                },
            );
            assert_eq!(outcome, Ok(None));
        },
    );
}

#[test]
fn when_the_guard_goes_everything_runs() {
    in_own_mounts("when_the_guard_goes_everything_runs", |kind, top| {
        let mut world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
        world.copy("/bin/true", "tmp/unknown");
        assert_eq!(world.run("tmp/unknown"), Outcome::Refused);
        world.guard = None;
        world.until("it is over", |world| {
            world.run("tmp/unknown") == Outcome::Ran
        });
    });
}

#[test]
fn many_that_run_at_once_are_all_answered() {
    in_own_mounts("many_that_run_at_once_are_all_answered", |kind, top| {
        let mut world = World::guarded(kind, top, Mode::ImagePrograms, &[]);
        for number in 0..40 {
            world.copy("/bin/true", &format!("tmp/unknown-{number}"));
        }
        world.sh("
            ran() { code=0; \"$@\" 2> /dev/null || code=$?; echo $code >> out; }
            for number in $(seq 0 39); do ran bin/known & ran tmp/unknown-$number & done; wait");
        let out = fs::read_to_string(world.root.join("out")).unwrap();
        let count = |code| out.lines().filter(|line| *line == code).count();
        assert_eq!((count("0"), count("126")), (40, 40));
        let told =
            |world: &World| world.foreign.len() as u64 + world.count(|counts| &counts.unnamed);
        world.until("all are told, or counted", |world| told(world) == 40);
        assert_eq!(world.count(|counts| &counts.lost), 0);
    });
}

#[test]
fn a_machine_that_is_not_this_image_s_is_not_guarded() {
    let known = Known::default();
    let refused = holds_what_runs(Path::new("/"), &known).unwrap_err();
    assert!(refused.contains("/proc/1/exe"), "{refused}");
    assert_eq!(holds_what_runs(Path::new("/elsewhere"), &known), Ok(()));
}
