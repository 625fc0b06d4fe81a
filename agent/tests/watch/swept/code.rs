//! Programs and libraries that are none of the image's: told once, with who runs them.

use super::*;

#[test]
fn programs_that_are_not_the_images_are_told_once_with_who_runs_them() {
    let name = "swept::programs_that_are_not_the_images_are_told_once_with_who_runs_them";
    in_each(name, &["ext4", "overlay"], |kind, home, top| {
        let world = World::new(home, top, TREE, RULES);
        let mut sweeper = sweeper(&world);
        let own = Runs::program(&world, "usr/bin/sleep");
        let swept = world.sweep(&mut sweeper, &[]);
        assert_eq!(told(&swept), NOTHING, "{kind}: what is the image's");
        assert!(swept.record.processes > 1, "{kind}: {:?}", swept.record);
        // On some machines the first process says nothing.
        let refused = Programs::of_others().refused;
        assert!(
            swept.record.unread <= refused.into(),
            "{kind}: {:?}",
            swept.record
        );

        // A package was upgraded to just what it was.
        world.sh("cp usr/bin/sleep usr/bin/.new; mv usr/bin/.new usr/bin/sleep");
        let swept = world.sweep(&mut sweeper, &[]);
        assert_eq!(told(&swept), NOTHING, "{kind}: deleted, and the image's");

        // Something ran in its place, which then was put right again.
        world.sh("cp usr/bin/sleep keep; cp usr/bin/sleep evil; echo evil >> evil; mv evil usr/bin/sleep");
        let evil = Runs::program(&world, "usr/bin/sleep");
        world.sh("mv keep usr/bin/sleep; cp usr/bin/sleep tmp/brought");
        let brought = Runs::program(&world, "tmp/brought");
        let swept = world.sweep(&mut sweeper, &[]);
        let mut found = told(&swept);
        found.sort();
        let expected = [
            executed(
                "/tmp/brought",
                "a process runs it, and it is not in the image",
            ),
            executed(
                "/usr/bin/sleep",
                "a process runs it, and the file was deleted and was none of the image's",
            ),
        ];
        assert_eq!(found, expected, "{kind}");
        for (drift, runs) in swept
            .moments
            .iter()
            .map(|drift| match drift.path.to_text().as_str() {
                "/tmp/brought" => (drift, &brought),
                _ => (drift, &evil),
            })
        {
            let by = drift.attribution.as_ref().unwrap();
            assert_eq!(by.confidence, Confidence::Certain);
            assert_eq!(by.process.as_ref().unwrap().pid, runs.0.id());
        }
        let swept = world.sweep(&mut sweeper, &[]);
        assert_eq!(told(&swept), NOTHING, "{kind}: told before");

        let _other = Runs::program(&world, "usr/bin/other");
        let swept = world.sweep(&mut sweeper, &["usr/bin/other"]);
        let detail = "a process runs it, and it is other than in the image";
        assert_eq!(told(&swept), [executed("/usr/bin/other", detail)], "{kind}");
        drop(own);
    });
}

#[test]
fn code_that_was_loaded_from_elsewhere_is_told() {
    let name = "swept::code_that_was_loaded_from_elsewhere_is_told";
    in_each(name, &["ext4"], |_, home, top| {
        let world = World::new(home, top, TREE, RULES);
        world.sh("cp usr/lib/own.so tmp/brought.so; cp usr/lib/own.so tmp/gone.so");
        let loaded = |library: &str| {
            let program = world.root.join("usr/bin/sleep");
            let mut command = Command::new(&program);
            command
                .arg("1000")
                .env("LD_PRELOAD", world.root.join(library));
            let runs = Runs::start(&mut command);
            let maps = format!("/proc/{}/maps", runs.0.id());
            while !fs::read_to_string(&maps).is_ok_and(|maps| maps.contains(library)) {
                std::thread::yield_now();
            }
            runs
        };
        let mut sweeper = sweeper(&world);
        let _own = loaded("usr/lib/own.so");
        // The image's own, upgraded beneath who has it.
        world.sh("cp usr/lib/own.so usr/lib/.new; mv usr/lib/.new usr/lib/own.so");
        assert_eq!(told(&world.sweep(&mut sweeper, &[])), NOTHING);
        let _brought = loaded("tmp/brought.so");
        let _gone = loaded("tmp/gone.so");
        world.sh("rm tmp/gone.so");
        let swept = world.sweep(&mut sweeper, &[]);
        let mut found = told(&swept);
        found.sort();
        let detail = "a process has loaded it as code, and ";
        let foreign = format!("{detail}it is not in the image");
        let deleted = format!("{detail}the file was deleted and was none of the image's");
        let expected = [
            executed("/tmp/brought.so", &foreign),
            executed("/tmp/gone.so", &deleted),
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn a_program_in_memory_is_told_unless_it_is_a_copy_of_the_images_runtime() {
    let name = "swept::a_program_in_memory_is_told_unless_it_is_a_copy_of_the_images_runtime";
    in_each(name, &["ext4"], |_, home, top| {
        let world = World::new(home, top, TREE, RULES);
        let in_memory = |name: &std::ffi::CStr, more: &[u8]| {
            let memory = rustix::fs::memfd_create(name, MemfdFlags::empty()).unwrap();
            let mut memory = File::from(memory);
            let content = fs::read(world.root.join("usr/bin/runc")).unwrap();
            memory.write_all(&[&content, more].concat()).unwrap();
            let mut command = Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd()));
            Runs::start(command.arg0("sleep").arg("1000"))
        };
        let _runs = [
            in_memory(c"evil", b""),
            in_memory(c"runc_cloned:/proc/self/exe", b""),
            in_memory(c"runc_cloned:/evil", b"evil"),
        ];
        // Memory belongs to no tree but the machine's own, where nothing else is the image's: all is told in turn.
        let mut sweeper = Sweeper::new(Path::new("/"), CommandLine::Redacted);
        let mut found = BTreeSet::new();
        loop {
            let swept = world.sweep(&mut sweeper, &[]);
            let in_memory = told(&swept)
                .into_iter()
                .filter(|(_, path, _)| path.starts_with("/memfd:"));
            found.extend(in_memory.map(|(_, path, detail)| (path, detail.to_owned())));
            if swept.moments.is_empty() {
                break;
            }
        }
        let detail = "a process runs it, and it is in memory alone and in no file";
        let expected = ["/memfd:evil", "/memfd:runc_cloned:/evil"];
        let expected = expected.map(|path| (path.to_owned(), detail.to_owned()));
        assert!(found.is_superset(&BTreeSet::from(expected)), "{found:?}");
        let copy = |(path, _): &(String, String)| path.ends_with("/proc/self/exe");
        assert!(!found.iter().any(copy), "{found:?}");
    });
}
