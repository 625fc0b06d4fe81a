//! Receives what is to be told; hands on reports, in as many parts as the limits ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use drift::TreePath;
use drift::attribution::Attribution;
use drift::coverage::Coverage;
use drift::finding::{DriftId, HostPackage};
use drift::report::{HeldValue, OpenDrift, Part, Report, StateUpdate};

use super::news::News;
use super::{Action, Identified, Sentinel, is_own};
use crate::clock::Now;

/// What is left of [`Report::MAX_BYTES`] for lists: commas, digits of numbers that grow, and a margin.
const MARGIN_BYTES: usize = 4 * 1024;
/// A report without lists is shorter than this, whatever its coverage is (see [`bounded_coverage`]).
const GAPS_BYTES: usize = 128 * 1024;
/// One drift with everything that the kernel lets an attacker hang on it must still fit.
const MAX_DRIFT_BYTES: usize = 256 * 1024;
/// A sentence on why an instance cannot verify itself.
const MAX_SENTENCE_BYTES: usize = 1024;
/// The hexadecimal digits of an id, quotes and comma.
const CLOSED_BYTES: usize = 67;

/// Which items go into one part.
#[derive(Debug, Default, Clone)]
struct Cut {
    opened: Range<usize>,
    closed: Range<usize>,
    held: Range<usize>,
    bytes: usize,
}

impl Sentinel {
    /// An empty report with the next number, in a generation of its own.
    pub(super) fn report(&mut self, now: Now) -> Report {
        self.sequence += 1;
        self.generation += 1;
        self.spoken = Some(now.uptime);
        Report {
            run: self.setup.run,
            sequence: self.sequence,
            previous_run: self.setup.previous_run,
            part: Part::only(self.generation),
            agent: self.setup.agent.clone(),
            boot_id: self.setup.boot_id.clone(),
            phase: self.phase,
            image: self.image.clone(),
            unverifiable: self.unverifiable.as_deref().map(bounded_sentence),
            states: StateUpdate::Change,
            opened: Vec::new(),
            closed: Vec::new(),
            open_count: self.open.len() as u64,
            set_digest: drift::finding::set_digest(self.open.ids()),
            moments: Vec::new(),
            dropped_moments: self.dropped_moments,
            held_whole: false,
            held: Vec::new(),
            coverage: bounded_coverage(self.coverage(now)),
            agent_clock: now.clock_seconds(),
            uptime_seconds: now.uptime.as_secs(),
        }
    }

    /// Tells everything that is open and held.
    pub(super) fn tell_whole(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        let open = std::mem::take(&mut self.open);
        let packages = std::mem::take(&mut self.packages);
        let held = self.held.take();
        self.news = News::default();
        let lists = Lists {
            packages: &packages,
            opened: told(open.iter()),
            closed: Vec::new(),
            held: held.as_ref(),
        };
        let digest = drift::finding::set_digest(open.ids());
        self.tell(StateUpdate::Whole, &lists, (open.len(), digest), now, act);
        self.whole_sequence = self.sequence;
        self.open = open;
        self.packages = packages;
        self.held = held;
    }

    /// Tells what is new. Of held values that is always the whole set.
    pub(super) fn tell_change(&mut self, news: News, now: Now, act: &mut dyn FnMut(Action)) {
        let open = std::mem::take(&mut self.open);
        let packages = std::mem::take(&mut self.packages);
        let held = self.held.take();
        let lists = Lists {
            packages: &packages,
            opened: told(news.opened.iter().filter_map(|id| open.get(id))),
            closed: news.closed.into_iter().collect(),
            held: held.as_ref().filter(|_| news.held),
        };
        let digest = drift::finding::set_digest(open.ids());
        self.tell(StateUpdate::Change, &lists, (open.len(), digest), now, act);
        self.open = open;
        self.packages = packages;
        self.held = held;
    }

    fn tell(
        &mut self,
        states: StateUpdate,
        lists: &Lists<'_>,
        (open_count, set_digest): (usize, drift::Blake3),
        now: Now,
        act: &mut dyn FnMut(Action),
    ) {
        let mut template = self.report(now);
        template.states = states;
        template.open_count = open_count as u64;
        template.set_digest = set_digest;
        template.held_whole = lists.held.is_some();
        let held: Vec<&HeldValue> = lists.held.iter().flat_map(|held| held.values()).collect();
        let room =
            Report::MAX_BYTES - MARGIN_BYTES - json_length(&template).min(Report::MAX_BYTES / 2);
        let (cuts, too_long) = lists.cut(&held, room);
        let count = u32::try_from(cuts.len())
            .unwrap_or(Report::MAX_PARTS)
            .min(Report::MAX_PARTS);
        for (cut, index) in cuts.into_iter().zip(1..=count) {
            let mut report = template.clone();
            if index > 1 {
                self.sequence += 1;
            }
            report.sequence = self.sequence;
            report.part = Part {
                generation: template.part.generation,
                index,
                count,
            };
            report.opened = lists.opened[cut.opened]
                .iter()
                .map(|told| match lists.sendable(told) {
                    open if too_long.contains(&open.id) => shortened(open),
                    open => open,
                })
                .collect();
            report.closed = lists.closed[cut.closed].to_vec();
            report.held = held[cut.held].iter().map(|held| (*held).clone()).collect();
            act(Action::Keep(Box::new(report)));
        }
    }
}

/// A drift that is told.
struct ToldDrift<'a> {
    it: &'a Identified,
    by: Option<&'a Attribution>,
    /// Whether all is told of who did it. One process may have made a hundred thousand drifts: all that is known of it is
    /// told with its first ones, and with the others no more than which process it was.
    in_full: bool,
}

/// Of one actor, in one telling.
const TOLD_IN_FULL: u32 = 16;

/// What is done to the agent itself comes before all else, in the first part of a telling: whoever does that may end it
/// before the last one.
fn told<'a>(
    opened: impl Iterator<Item = (&'a Arc<Identified>, Option<&'a Arc<Attribution>>)>,
) -> Vec<ToldDrift<'a>> {
    let all = opened.map(|(it, by)| ToldDrift {
        it,
        by: by.map(|by| &**by),
        in_full: false,
    });
    let mut all: Vec<ToldDrift<'a>> = all.collect();
    all.sort_by_key(|told| !is_own(&told.it.drift));
    let mut counts: BTreeMap<*const Attribution, u32> = BTreeMap::new();
    for told in &mut all {
        if let Some(by) = told.by {
            let count = counts.entry(by).or_default();
            *count += 1;
            told.in_full = *count <= TOLD_IN_FULL;
        }
    }
    all
}

struct Lists<'a> {
    packages: &'a BTreeMap<TreePath, HostPackage>,
    opened: Vec<ToldDrift<'a>>,
    closed: Vec<DriftId>,
    /// The whole set of held values, if it is told.
    held: Option<&'a BTreeMap<TreePath, HeldValue>>,
}

impl Lists<'_> {
    /// The drift as it is sent.
    fn sendable(&self, told: &ToldDrift<'_>) -> OpenDrift {
        let ToldDrift { it, by, in_full } = told;
        let mut open = OpenDrift {
            id: it.id,
            drift: it.drift.clone(),
            host_package: self.packages.get(&it.drift.path).cloned(),
        };
        let by = by.map(|by| match in_full {
            true => by.clone(),
            false => by.in_short(),
        });
        open.drift.attribution = by.map(Box::new);
        open
    }

    /// Cuts the lists into parts of at most `room` bytes and the limits of [`Report`]. At least one part; and the drifts that
    /// have to be [`shortened`].
    fn cut(&self, held: &[&HeldValue], room: usize) -> (Vec<Cut>, BTreeSet<DriftId>) {
        let (mut cuts, mut too_long) = (vec![Cut::default()], BTreeSet::new());
        for (index, told) in self.opened.iter().enumerate() {
            let open = self.sendable(told);
            let mut bytes = json_length(&open) + 1;
            if bytes > MAX_DRIFT_BYTES {
                too_long.insert(open.id);
                bytes = json_length(&shortened(open)) + 1;
            }
            let cut = part_with_room(
                &mut cuts,
                bytes,
                room,
                |cut| cut.opened.len() < Report::MAX_DRIFTS,
                index,
                0,
                0,
            );
            cut.opened.end = index + 1;
        }
        let opened = self.opened.len();
        for index in 0..self.closed.len() {
            let fits = |cut: &Cut| cut.closed.len() < Report::MAX_DRIFTS;
            let cut = part_with_room(&mut cuts, CLOSED_BYTES, room, fits, opened, index, 0);
            cut.closed.end = index + 1;
        }
        let closed = self.closed.len();
        for (index, held) in held.iter().enumerate() {
            let fits = |cut: &Cut| cut.held.len() < Report::MAX_HELD;
            let cut = part_with_room(
                &mut cuts,
                json_length(held) + 1,
                room,
                fits,
                opened,
                closed,
                index,
            );
            cut.held.end = index + 1;
        }
        (cuts, too_long)
    }
}

/// Without what was found there, which alone would fill a report.
fn shortened(mut open: OpenDrift) -> OpenDrift {
    open.drift.found = None;
    open.drift.detail = Some("what was found there is too long to be sent".into());
    open
}

/// The last part if `bytes` more fit into it, else a new one whose lists begin where the others end.
fn part_with_room(
    cuts: &mut Vec<Cut>,
    bytes: usize,
    room: usize,
    fits: impl Fn(&Cut) -> bool,
    opened: usize,
    closed: usize,
    held: usize,
) -> &mut Cut {
    let is_full = cuts
        .last()
        .is_none_or(|cut| !fits(cut) || (cut.bytes > 0 && cut.bytes + bytes > room));
    if is_full {
        cuts.push(Cut {
            opened: opened..opened,
            closed: closed..closed,
            held: held..held,
            bytes: 0,
        });
    }
    let cut = cuts.last_mut().expect("there is always a part");
    cut.bytes += bytes;
    cut
}

/// Coverage whose gaps fit into every report; the count still says how many there are.
pub(super) fn bounded_coverage(mut coverage: Coverage) -> Coverage {
    coverage.gaps.truncate(Coverage::MAX_GAPS);
    coverage.limits.truncate(Coverage::MAX_LIMITS);
    coverage.notes.truncate(Coverage::MAX_NOTES);
    coverage.not_held.truncate(64);
    for limit in &mut coverage.limits {
        *limit = bounded_sentence(limit);
    }
    for gap in &mut coverage.gaps {
        gap.detail = bounded_sentence(&gap.detail);
    }
    let mut room = GAPS_BYTES;
    let fitting = coverage.gaps.iter().take_while(|gap| {
        let bytes = json_length(gap) + 1;
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    });
    let fitting = fitting.count();
    coverage.gap_count = coverage.gap_count.max(coverage.gaps.len() as u64);
    coverage.gaps.truncate(fitting);
    coverage
}

/// A sentence, cut where it gets too long.
pub(super) fn bounded_sentence(text: &str) -> String {
    let mut end = text.len().min(MAX_SENTENCE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn json_length(value: &impl serde::Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("plain structs, and counting cannot fail");
    count.0
}
