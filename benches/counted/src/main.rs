//! `driftmark-counted STEP`: the pure code once over a seeded image, for whoever counts instructions.
//!
//! Everything is made first, whatever the step, and `nothing` is a step too: what a step costs is the difference between
//! the two. The image fits the manifest's cache of blocks and one pass warms it, so no hash is among what is counted:
//! which instructions those are depends on the processor.

#![forbid(unsafe_code)]

mod image;

use std::hint::black_box;
use std::process::ExitCode;

use drift::compare::{Merge, compare};
use drift::observation::Observation;

use image::Image;

/// Something to do with an image and what was found on an instance of it.
type Step = fn(&Image, Vec<Observation>);

/// What is counted, by the word on the command line.
const STEPS: [(&str, Step); 6] = [
    ("nothing", |_, observations| drop(observations)),
    ("decode", decode),
    ("look-up", look_up),
    ("merge", merge),
    ("compare", compare_all),
    ("rules", rules),
];

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let Some((_, step)) = STEPS.iter().find(|(name, _)| *name == word) else {
        let words: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        eprintln!("count one of: {}", words.join(" "));
        return ExitCode::from(64);
    };
    let image = Image::seeded();
    let observations = image.observations();
    // Every block is verified, and in the cache.
    decode(&image, Vec::new());
    step(&image, observations);
    println!("{}", image.entries.len());
    ExitCode::SUCCESS
}

/// Every entry of the manifest, in order.
fn decode(image: &Image, _: Vec<Observation>) {
    for entry in image.manifest.entries() {
        black_box(entry.expect("a good manifest"));
    }
}

/// Every so many entries are looked up: one goes through half a block.
const LOOKED_UP_EVERY: usize = 101;

/// Some entries by their paths.
fn look_up(image: &Image, _: Vec<Observation>) {
    for entry in image.entries.iter().step_by(LOOKED_UP_EVERY) {
        black_box(image.manifest.lookup(&entry.path).expect("a good manifest"));
    }
}

/// Every path meets its entry.
fn merge(image: &Image, _: Vec<Observation>) {
    let mut merge = Merge::new(&image.manifest);
    let missing = &mut |missing| panic!("{missing:?} is there");
    for entry in &image.entries {
        black_box(merge.meet(&entry.path, missing).expect("a good manifest"));
    }
    merge.finish(missing).expect("a good manifest");
}

/// Everything that was found against everything that is expected, some of it drifted.
fn compare_all(image: &Image, observations: Vec<Observation>) {
    let mut findings = 0;
    compare(&image.manifest, observations, &mut |finding| {
        black_box(finding);
        findings += 1;
    })
    .expect("a good manifest");
    assert!(findings > 0, "some of it drifted");
}

/// Which rule counts at every path, and what it allows.
fn rules(image: &Image, _: Vec<Observation>) {
    let rules = image.manifest.rules();
    for entry in &image.entries {
        black_box(rules.first_match(&entry.path));
        black_box(rules.below_volatile(&entry.path));
        black_box(rules.allowance(&entry.path, entry.node.kind()));
    }
}
