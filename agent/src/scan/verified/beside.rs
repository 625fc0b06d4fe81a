//! Marks of a full pass, which may take half an hour, in; out what a quick pass may trust when quick passes went on
//! beside it: whatever either of them found wrong is looked at again.

use super::{Key, Mark, Verified};

impl Verified {
    /// Has nothing be trusted that was marked before, nor what a full pass marks that goes on.
    pub fn begin_anew(&mut self) {
        *self = Verified {
            key: Key::drawn(),
            context: std::mem::take(&mut self.context),
            ..Verified::default()
        };
    }

    /// Place for the marks of a full pass that begins now, and goes on while others go by these.
    pub fn beside(&mut self) -> Self {
        self.full_began = true;
        Verified {
            context: self.context.clone(),
            latest: self.latest,
            key: self.key,
            ..Verified::default()
        }
    }

    /// Trusts, from now on, what a full pass marked that began with [`Verified::beside`] and has ended; but not an entry
    /// that has no mark here: the last quick pass looked at it and was not content, perhaps long after the full one.
    ///
    /// If these were begun anew meanwhile, it is the other way round: what they mark was all read since then, and some of
    /// what the full pass marked is not to be trusted any more.
    pub fn take_over(&mut self, full: Verified) {
        let own = std::mem::take(self);
        let (trusted, other) = match own.full_began {
            true => (full, own),
            false => (own, full),
        };
        *self = trusted;
        self.full_began = false;
        if self.context.manifest == other.context.manifest {
            for (mark, other) in self.marks.iter_mut().zip(other.marks) {
                if other == Mark::default() {
                    *mark = other;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use drift::Blake3;
    use driftmark_kernel::{FileKind, Stat};
    use proptest::prelude::*;

    use super::super::{Context, Portrait};
    use super::*;

    const ENTRIES: usize = 6;
    /// Times are far enough apart to be settled.
    const STEP: i64 = 1_000_000_000;

    fn context(mount: u64) -> Context {
        Context {
            manifest: Some(Blake3::of(b"m")),
            boot_id: "b".into(),
            mounts: vec![mount],
        }
    }

    #[test]
    fn portraits_are_kept_with_the_marks_that_they_go_with() {
        let drawn = |word: &[u8]| {
            vec![Portrait {
                ordinals: 0..ENTRIES as u64,
                looks: Some(Blake3::of(word)),
                is_linked: false,
            }]
        };
        for is_begun_anew in [false, true] {
            let mut own = Verified::default();
            own.prepare(context(1), ENTRIES as u64, STEP);
            own.keep(drawn(b"before"));
            let mut full = own.beside();
            full.prepare(context(1), ENTRIES as u64, STEP);
            full.keep(drawn(b"full"));
            full.all().mark(0, &stat(1), 2 * STEP);
            if is_begun_anew {
                own.begin_anew();
                own.prepare(context(1), ENTRIES as u64, STEP);
                own.keep(drawn(b"quick"));
            }
            own.all().mark(0, &stat(1), 2 * STEP);
            let trusted = if is_begun_anew {
                own.clone()
            } else {
                full.clone()
            };
            own.take_over(full);
            assert_eq!(own.portraits, trusted.portraits);
            assert!(own.all().trust(0, &stat(1)));
        }
    }

    /// A file: what is in it, and what its inode says of that.
    #[derive(Debug, Clone, Copy, Default)]
    struct File {
        is_as_baked: bool,
        changed: i64,
    }

    impl File {
        fn stat(self, ino: u64) -> Stat {
            Stat {
                ctime: (self.changed / STEP, (self.changed % STEP) as u32),
                ..stat(ino)
            }
        }
    }

    fn stat(ino: u64) -> Stat {
        Stat {
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 1,
            ino,
            dev: (8, 1),
            rdev: (0, 0),
            mtime: (0, 0),
            ctime: (0, 0),
            btime: None,
            mount_id: 1,
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Turn {
        /// With another `ctime`, as nearly everything that happens to a file.
        Change { file: usize, as_baked: bool },
        /// Without.
        Slip { file: usize, as_baked: bool },
        /// A quick pass, from its beginning to its end.
        Quick,
        /// The full pass comes to so many more files; at its end a quick pass follows.
        Full(usize),
        /// Something says that no mark is to be trusted.
        Doubt,
        /// The file system is mounted anew.
        Mount,
    }

    #[derive(Debug)]
    struct World {
        files: [File; ENTRIES],
        now: i64,
        mount: u64,
        verified: Verified,
        /// The full pass that goes on, and how many files it has been to.
        full: Option<(Verified, usize)>,
        /// What is open: files that the last quick pass, or the one at the end of a full pass, has found.
        open: [bool; ENTRIES],
        /// What the full pass has found and nobody has changed since.
        missed: [bool; ENTRIES],
    }

    impl World {
        fn new() -> Self {
            let files = [File {
                is_as_baked: true,
                changed: 0,
            }; ENTRIES];
            let mut world = World {
                files,
                now: STEP,
                mount: 1,
                verified: Verified::default(),
                full: None,
                open: [false; ENTRIES],
                missed: [false; ENTRIES],
            };
            world.full(ENTRIES);
            world
        }

        /// Looks at one file as a pass does; says whether it is drift.
        fn look(file: File, nth: usize, now: i64, verified: &mut Verified, trusts: bool) -> bool {
            let (stat, ordinal) = (file.stat(nth as u64), nth as u64);
            let mut marks = verified.all();
            if trusts && marks.trust(ordinal, &stat) {
                return false;
            }
            match file.is_as_baked {
                true => marks.mark(ordinal, &stat, now),
                false => marks.forget(ordinal),
            }
            verified.read_until(now);
            !file.is_as_baked
        }

        fn quick(&mut self) {
            let entries = ENTRIES as u64;
            self.verified
                .prepare(context(self.mount), entries, self.now);
            for (nth, file) in self.files.into_iter().enumerate() {
                let found = Self::look(file, nth, self.now, &mut self.verified, true);
                let was_open = std::mem::replace(&mut self.open[nth], found);
                assert!(
                    found || !was_open || file.is_as_baked,
                    "{nth} is closed and is not as it was baked"
                );
            }
        }

        fn full(&mut self, more: usize) {
            let (mut own, mut at) = self.full.take().unwrap_or_else(|| {
                let mut own = self.verified.beside();
                own.prepare(context(self.mount), ENTRIES as u64, self.now);
                self.missed = [false; ENTRIES];
                (own, 0)
            });
            for nth in at..ENTRIES.min(at + more) {
                let found = Self::look(self.files[nth], nth, self.now, &mut own, false);
                self.missed[nth] = found;
            }
            at += more;
            if at < ENTRIES {
                self.full = Some((own, at));
                return;
            }
            self.verified.take_over(own);
            self.quick();
            for nth in 0..ENTRIES {
                assert!(
                    !self.missed[nth] || self.open[nth],
                    "the full pass has found {nth} and nobody has touched it since"
                );
            }
        }

        fn turn(&mut self, turn: Turn) {
            self.now += STEP;
            match turn {
                Turn::Change { file, as_baked } => {
                    self.missed[file] = false;
                    self.files[file] = File {
                        is_as_baked: as_baked,
                        changed: self.now,
                    };
                    self.now += STEP;
                }
                Turn::Slip { file, as_baked } => {
                    self.missed[file] = false;
                    self.files[file].is_as_baked = as_baked;
                }
                Turn::Quick => self.quick(),
                Turn::Full(more) => self.full(more),
                Turn::Doubt => self.verified.begin_anew(),
                Turn::Mount => self.mount += 1,
            }
        }
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let file = || (0..ENTRIES, any::<bool>());
        prop_oneof![
            4 => file().prop_map(|(file, as_baked)| Turn::Change { file, as_baked }),
            2 => file().prop_map(|(file, as_baked)| Turn::Slip { file, as_baked }),
            4 => Just(Turn::Quick),
            5 => (1..4_usize).prop_map(Turn::Full),
            1 => Just(Turn::Doubt),
            1 => Just(Turn::Mount),
        ]
    }

    proptest! {
        #[test]
        fn what_either_pass_found_is_open_after_both_until_it_is_as_it_was_baked(
            turns in prop::collection::vec(turn(), 1..60),
        ) {
            let mut world = World::new();
            for turn in turns {
                world.turn(turn);
            }
            // In the end a full scan has to see everything, whatever was before.
            world.full(ENTRIES);
            world.now += STEP;
            world.full(ENTRIES);
            let open: Vec<bool> = world.files.iter().map(|file| !file.is_as_baked).collect();
            prop_assert_eq!(&world.open[..], &open[..]);
        }
    }

    fn marked(world: &World) -> Vec<bool> {
        let stats = (0..ENTRIES).map(|nth| world.files[nth].stat(nth as u64));
        let mut verified = world.verified.clone();
        let marks = verified.all();
        let trusts = stats.enumerate();
        trusts
            .map(|(nth, stat)| marks.trust(nth as u64, &stat))
            .collect()
    }

    #[test]
    fn what_nobody_touched_is_not_read_again_after_a_full_pass() {
        let mut world = World::new();
        world.turn(Turn::Full(3));
        world.turn(Turn::Quick);
        let before = world.verified.clone();
        let (mut own, at) = world.full.take().unwrap();
        for nth in at..ENTRIES {
            World::look(world.files[nth], nth, world.now, &mut own, false);
        }
        world.verified.take_over(own);
        assert_eq!(marked(&world), [true; ENTRIES]);
        assert_eq!(
            before.marks, world.verified.marks,
            "of the same key and inodes"
        );
    }

    #[test]
    fn drift_that_slipped_in_behind_the_full_pass_is_looked_at_after_it() {
        let mut world = World::new();
        world.turn(Turn::Change {
            file: 0,
            as_baked: false,
        });
        world.turn(Turn::Quick);
        world.turn(Turn::Slip {
            file: 0,
            as_baked: true,
        });
        world.turn(Turn::Full(1));
        world.turn(Turn::Slip {
            file: 0,
            as_baked: false,
        });
        world.turn(Turn::Full(ENTRIES));
        assert!(world.open[0], "the full pass itself saw nothing wrong");
    }

    #[test]
    fn what_the_full_pass_alone_saw_is_looked_at_though_marks_began_anew_beside_it() {
        for anew in [Turn::Mount, Turn::Doubt] {
            let mut world = World::new();
            world.turn(Turn::Full(1));
            world.turn(anew);
            world.turn(Turn::Quick);
            let file = 3;
            world.turn(Turn::Slip {
                file,
                as_baked: false,
            });
            world.turn(Turn::Full(ENTRIES));
            assert!(world.open[file], "{anew:?}");
        }
    }
}
