//! Observations → rules: pure, and in the order of how much a rule leaves open.
//!
//! A shape check where there is one; `absent` for what is gone; `first-boot` on the exact path for what was the same
//! from the first check of an instance to its last; `append-only` for what only grew, `content` for what changed in
//! nothing else; a pattern only where names differ from instance to instance ([`super::names`]); `volatile` only for a
//! directory that the image does not have, below `/var` and its like, whose content is another each time. What none of
//! these explains is refused, and what would also allow something that is refused is not proposed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use drift::TreePath;
use drift::class::{Class, Severity};
use drift::entry::{Attribute, AttributeSet, Kind, Shown};
use drift::finding::DriftKind;
use drift::glob::Pattern;
use drift::rules::{Origin, Rule, RuleFile, RuleType, Rules, Shape, SourcedRule};

use super::observed::{Observations, Sight};
use super::{LearnError, names, refusal};

/// What is proposed, and what is not.
#[derive(Debug, Default)]
pub struct Proposal {
    /// In the order in which they count: exact paths, patterns, whole directories.
    pub rules: Vec<ProposedRule>,
    /// What no rule is proposed for, by path.
    pub refused: Vec<Refused>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedRule {
    /// The rule.
    pub rule: Rule,
    /// The paths behind it.
    pub paths: Vec<TreePath>,
    /// On how many instances something was seen that it explains.
    pub instances: usize,
}

/// One path that nothing is proposed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where.
    pub path: TreePath,
    /// What happened there.
    pub kind: DriftKind,
    /// What part of the system it concerns.
    pub class: Class,
    /// How bad it is by itself.
    pub severity: Severity,
    /// Why not.
    pub why: &'static str,
}

impl Proposal {
    /// Ten times what a distribution's own rules are.
    pub const MAX_RULES: usize = 500;
    /// Of these, more than any first boot has families of names.
    pub const MAX_PATTERNS: usize = 64;
}

/// Fewer paths are listed one by one: a `volatile` rule is for what cannot be.
const MIN_VOLATILE: usize = 8;
/// Where a directory may be `volatile`, and how many names that takes at least: `/run/x`, `/var/lib/x`.
const VOLATILE: [(&str, usize); 3] = [("run", 2), ("tmp", 2), ("var", 3)];
const CONTENT: AttributeSet = AttributeSet::of(&[Attribute::Size, Attribute::Content]);

/// Everything that was seen at one path.
struct Story<'o> {
    path: &'o TreePath,
    /// By instance, for each of its checks.
    boots: BTreeMap<usize, Vec<Option<&'o Sight>>>,
}

/// What one story asks for.
enum Wish {
    /// A rule on the exact path.
    Exact(RuleType),
    /// A rule for something that is named otherwise on other instances.
    Named(RuleType),
    /// Something that is another at each look.
    Unsettled(&'static str),
    Refused(&'static str),
}

/// Stories whose paths differ in nothing but ids.
type Family<'s> = Vec<(&'s Story<'s>, RuleType)>;

/// Proposes rules that explain the observations.
///
/// # Errors
/// More rules than a first boot can take.
pub fn propose(observations: &Observations) -> Result<Proposal, LearnError> {
    let stories = stories(observations);
    let mut refused: BTreeMap<&TreePath, &'static str> = BTreeMap::new();
    let mut exact: BTreeMap<&TreePath, RuleType> = BTreeMap::new();
    let mut named: BTreeMap<(Vec<u8>, &str), Family<'_>> = BTreeMap::new();
    let mut unsettled: BTreeMap<&TreePath, &'static str> = BTreeMap::new();
    for story in stories.values() {
        match story.wish(observations.instances.len()) {
            Wish::Exact(rule_type) => {
                exact.insert(story.path, rule_type);
            }
            Wish::Named(rule_type) => {
                let key = (names::key(story.path), rule_type.word());
                named.entry(key).or_default().push((story, rule_type));
            }
            Wish::Unsettled(why) => {
                unsettled.insert(story.path, why);
            }
            Wish::Refused(why) => {
                refused.insert(story.path, why);
            }
        }
    }
    let mut proposed: Vec<(Rule, Vec<&TreePath>)> = Vec::new();
    for family in named.into_values() {
        let paths: Vec<&TreePath> = family.iter().map(|(story, _)| story.path).collect();
        let instances: BTreeSet<usize> = family
            .iter()
            .flat_map(|(story, _)| story.boots_with_it())
            .collect();
        let pattern = (instances.len() > 1)
            .then(|| names::pattern(&paths))
            .flatten();
        match (pattern, family.first()) {
            (Some(pattern), Some((_, rule_type))) => {
                let rule_type = *rule_type;
                proposed.push((Rule { rule_type, pattern }, paths));
            }
            _ => exact.extend(
                family
                    .iter()
                    .map(|(story, rule_type)| (story.path, *rule_type)),
            ),
        }
    }
    for directory in volatile(&stories, &unsettled, &exact, &refused) {
        let is_below = |path: &TreePath| path.is_within(directory);
        exact.retain(|path, _| !is_below(path));
        unsettled.retain(|path, _| !is_below(path));
        proposed.retain(|(_, paths)| !paths.iter().all(|path| is_below(path)));
        let paths: Vec<&TreePath> = stories
            .keys()
            .copied()
            .filter(|path| is_below(path))
            .collect();
        if let Some(pattern) = names::exact(directory) {
            let rule_type = RuleType::Volatile;
            proposed.push((Rule { rule_type, pattern }, paths));
        }
    }
    refused.extend(unsettled);
    let exact = exact.into_iter().filter_map(|(path, rule_type)| {
        let pattern = names::exact(path)?;
        Some((Rule { rule_type, pattern }, vec![path]))
    });
    let rules: Vec<(Rule, Vec<&TreePath>)> = exact.chain(proposed).collect();
    let wide = rules
        .iter()
        .filter(|(rule, _)| is_wide(&rule.pattern))
        .count();
    if rules.len() > Proposal::MAX_RULES || wide > Proposal::MAX_PATTERNS {
        return Err(LearnError::TooMany(rules.len()));
    }
    Ok(settle(rules, refused, &stories))
}

/// Holds the rules against what was seen: none allows what is refused, and what none explains is refused too.
fn settle<'o>(
    mut rules: Vec<(Rule, Vec<&'o TreePath>)>,
    mut refused: BTreeMap<&'o TreePath, &'static str>,
    stories: &BTreeMap<&'o TreePath, Story<'o>>,
) -> Proposal {
    const ALSO: &str = "the rule that explains it would also allow something that is refused";
    const NOTHING: &str = "no rule of this kind explains it";
    let built = loop {
        let built = built(&rules);
        let matched = |path: &TreePath| built.first_match(path).map(|(_, rule)| rule.clone());
        let wide: Vec<Rule> = refused.keys().filter_map(|path| matched(path)).collect();
        let unexplained: Vec<&TreePath> = stories
            .values()
            .filter(|story| !refused.contains_key(story.path) && !story.is_explained(&built))
            .map(|story| story.path)
            .collect();
        if wide.is_empty() && unexplained.is_empty() {
            break built;
        }
        for path in unexplained {
            refused.insert(path, NOTHING);
        }
        rules.retain(|(rule, paths)| {
            let stays = !wide.contains(rule);
            if !stays {
                refused.extend(paths.iter().map(|path| (*path, ALSO)));
            }
            stays
        });
    };
    let mut behind: Vec<Vec<&Story<'_>>> = vec![Vec::new(); built.len()];
    for story in stories.values() {
        if let Some((nth, _)) = built.first_match(story.path) {
            behind[nth].push(story);
        }
    }
    let rules = built.as_slice().iter().zip(behind).map(|(rule, behind)| {
        let instances: BTreeSet<usize> = behind
            .iter()
            .flat_map(|story| story.boots_with_it())
            .collect();
        ProposedRule {
            rule: rule.clone(),
            paths: behind.iter().map(|story| story.path.clone()).collect(),
            instances: instances.len(),
        }
    });
    Proposal {
        rules: rules.collect(),
        refused: refused
            .into_iter()
            .map(|(path, why)| stories[path].refused(why))
            .collect(),
    }
}

/// The rules as `bake` puts them together, without those that an earlier one leaves nothing to.
fn built(rules: &[(Rule, Vec<&TreePath>)]) -> Rules {
    // A rule that is shadowed within a file is an error; each in a file of its own it is dropped.
    let files = rules.iter().enumerate().map(|(nth, (rule, _))| RuleFile {
        name: nth.to_string(),
        rules: vec![SourcedRule {
            rule: rule.clone(),
            file: nth.to_string(),
            number: 1,
            origin: Origin::Image,
            reason: None,
            with: None,
        }],
    });
    Rules::build(files.collect(), Vec::new())
        .map(|built| built.rules)
        .unwrap_or_default()
}

/// Directories below which nothing can be said path by path.
fn volatile<'o>(
    stories: &BTreeMap<&'o TreePath, Story<'o>>,
    unsettled: &BTreeMap<&TreePath, &'static str>,
    exact: &BTreeMap<&TreePath, RuleType>,
    refused: &BTreeMap<&TreePath, &'static str>,
) -> Vec<&'o TreePath> {
    let mut found: Vec<&TreePath> = Vec::new();
    for (path, story) in stories {
        let place = VOLATILE
            .iter()
            .find(|(place, _)| path.components().next() == Some(place.as_bytes()));
        let is_deep = place.is_some_and(|(_, names)| path.components().count() >= *names);
        // The image has nothing there, so nothing of the image is let go.
        if !is_deep || !story.is_new_directory() || found.iter().any(|above| path.is_within(above))
        {
            continue;
        }
        let fleeting = below(unsettled, path);
        let fleeting =
            fleeting.chain(below(exact, path).filter(|other| !stories[other].is_everywhere()));
        let fleeting: BTreeSet<&TreePath> = fleeting.collect();
        let depths: BTreeSet<usize> = fleeting
            .iter()
            .map(|path| path.components().count())
            .collect();
        let is_harmless = !refused.contains_key(path) && below(refused, path).next().is_none();
        if fleeting.len() >= MIN_VOLATILE && depths.len() > 1 && is_harmless {
            found.push(path);
        }
    }
    found
}

/// What lies below a directory, of what is in path order.
fn below<'m, 'o, T>(
    of: &'m BTreeMap<&'o TreePath, T>,
    directory: &'m TreePath,
) -> impl Iterator<Item = &'o TreePath> + use<'m, 'o, T> {
    of.range::<TreePath, _>((Bound::Included(directory), Bound::Unbounded))
        .map(|(path, _)| *path)
        .skip_while(move |path| *path == directory)
        .take_while(move |path| path.is_within(directory))
}

fn stories(observations: &Observations) -> BTreeMap<&TreePath, Story<'_>> {
    let mut stories: BTreeMap<&TreePath, Story<'_>> = BTreeMap::new();
    let lengths: Vec<usize> = observations
        .instances
        .iter()
        .map(|instance| instance.checks.len())
        .collect();
    for (nth, instance) in observations.instances.iter().enumerate() {
        for (check, sights) in instance.checks.iter().enumerate() {
            for sight in sights {
                let story = stories.entry(&sight.path).or_insert_with(|| Story {
                    path: &sight.path,
                    boots: lengths
                        .iter()
                        .map(|&checks| vec![None; checks])
                        .enumerate()
                        .collect(),
                });
                let boot = story.boots.entry(nth).or_default();
                // Two drifts of one path in one check: a mount over something that also differs. The worse decides.
                let worse = boot[check].is_none_or(|before| before.kind != DriftKind::Covered);
                if worse {
                    boot[check] = Some(sight);
                }
            }
        }
    }
    stories
}

impl<'o> Story<'o> {
    fn sights(&self) -> impl Iterator<Item = &'o Sight> {
        self.boots.values().flatten().copied().flatten()
    }

    fn boots_with_it(&self) -> impl Iterator<Item = usize> {
        let with_it = |(nth, checks): (&usize, &Vec<Option<&Sight>>)| {
            checks.iter().any(Option::is_some).then_some(*nth)
        };
        self.boots.iter().filter_map(with_it)
    }

    fn is_everywhere(&self) -> bool {
        self.boots_with_it().count() == self.boots.len()
    }

    fn is_new_directory(&self) -> bool {
        self.is_everywhere()
            && self.sights().all(|sight| {
                let kind = sight.found.as_ref().map(|found| &*found.kind);
                sight.kind == DriftKind::Added && kind == Some(Kind::Directory.word())
            })
    }

    /// Whether it was another at a later check of the same instance.
    fn changes(&self) -> bool {
        let is_same = |a: &Option<&Sight>, b: &Option<&Sight>| match (a, b) {
            (Some(a), Some(b)) => a.kind == b.kind && a.found == b.found,
            (None, None) => true,
            _ => false,
        };
        let mut boots = self.boots.values();
        boots.any(|checks| checks.windows(2).any(|pair| !is_same(&pair[0], &pair[1])))
    }

    /// Whether all that was seen of it, check after check, is a file that got longer where it changed at all.
    fn grows(&self) -> bool {
        self.boots.values().all(|checks| {
            let mut before: Option<&Shown> = None;
            checks.iter().all(|sight| {
                let Some(sight) = sight else {
                    // Not there yet, or still what the image has; never gone again.
                    return before.is_none();
                };
                let (Some(found), from) = (&sight.found, before.or(sight.expected.as_ref())) else {
                    return false;
                };
                before = Some(found);
                found.kind == Kind::File.word()
                    && from
                        .is_none_or(|from| from.size < found.size || from.content == found.content)
            })
        })
    }

    fn wish(&self, instances: usize) -> Wish {
        let Some(first) = self.sights().next() else {
            return Wish::Refused("it was not seen");
        };
        if let Some(why) = refusal::by_name(first) {
            return Wish::Refused(why);
        }
        if let Some(wish) = self.shape() {
            return wish;
        }
        if let Some(why) = self.sights().find_map(refusal::by_meaning) {
            return Wish::Refused(why);
        }
        let all = |kind: &DriftKind| self.sights().all(|sight| sight.kind == *kind);
        let only_content = all(&DriftKind::Changed) && self.sights().all(is_content);
        let settled = !self.changes();
        if all(&DriftKind::Covered) {
            Wish::Exact(RuleType::Covered)
        } else if self.sights().any(|sight| sight.kind == DriftKind::Covered) {
            Wish::Refused("it is mounted over, and differs")
        } else if all(&DriftKind::Removed) {
            Wish::Exact(RuleType::Absent)
        } else if settled && (instances == 1 || self.is_everywhere() || !all(&DriftKind::Added)) {
            Wish::Exact(RuleType::FirstBoot)
        } else if settled {
            Wish::Named(RuleType::FirstBoot)
        } else if self.grows() && (only_content || all(&DriftKind::Added)) {
            if self.is_everywhere() {
                Wish::Exact(RuleType::AppendOnly)
            } else {
                Wish::Named(RuleType::AppendOnly)
            }
        } else if only_content {
            Wish::Exact(RuleType::Content)
        } else {
            Wish::Unsettled(
                "it goes on changing after the first boot, and not in its content alone: if the image has it from the start, a `content` rule will do",
            )
        }
    }

    /// A rule that looks at the content, where there is one for the path.
    fn shape(&self) -> Option<Wish> {
        let path = self.path.as_bytes();
        let is_host_key = path.strip_prefix(b"etc/ssh/ssh_host_").is_some_and(|rest| {
            !rest.contains(&b'/') && (rest.ends_with(b"_key") || rest.ends_with(b"_key.pub"))
        });
        let shape = match path {
            b"etc/machine-id" | b"var/lib/dbus/machine-id" => Shape::MachineId,
            b"etc/ld.so.cache" => Shape::LdSoCache,
            _ if is_host_key => Shape::HostKey,
            _ => return None,
        };
        let fits = self.sights().all(|sight| {
            let kind = sight.found.as_ref().map(|found| &*found.kind);
            let is_plain = kind == Some(Kind::File.word()) && sight.detail.is_none();
            is_plain && (sight.kind == DriftKind::Added || is_content(sight))
        });
        if !fits {
            // A link in its place, say: judged as anything else is.
            return None;
        }
        if shape.is_held() && self.changes() {
            return Some(Wish::Refused(
                "it is what names this machine, and it changed again after the first boot",
            ));
        }
        Some(Wish::Exact(RuleType::Shape(shape)))
    }

    /// Whether the rules allow all that was seen, as far as a sight can tell.
    fn is_explained(&self, rules: &Rules) -> bool {
        self.sights().all(|sight| {
            let is_directory = |shown: &Shown| shown.kind == Kind::Directory.word();
            let shown = sight.expected.as_ref().or(sight.found.as_ref());
            let kind = match shown {
                Some(shown) if is_directory(shown) => Kind::Directory,
                None if sight.kind == DriftKind::Covered => Kind::Directory,
                _ => Kind::File,
            };
            let allowed = rules.allowance(self.path, kind);
            match sight.kind {
                DriftKind::Added => allowed.appear,
                DriftKind::Removed => allowed.go,
                DriftKind::Covered => allowed.covered,
                DriftKind::Changed => sight.changed.without(allowed.attributes).is_empty(),
                DriftKind::Executed | DriftKind::Baseline | DriftKind::Unknown(_) => false,
            }
        })
    }

    fn refused(&self, why: &'static str) -> Refused {
        let worst = self
            .sights()
            .map(|sight| (sight, refusal::meaning(sight)))
            .max_by(|(_, a), (_, b)| a.severity.cmp(&b.severity));
        let (sight, meaning) = worst.expect("a story has a sight");
        Refused {
            path: self.path.clone(),
            kind: sight.kind.clone(),
            class: meaning.class,
            severity: meaning.severity,
            why,
        }
    }
}

fn is_content(sight: &Sight) -> bool {
    sight.kind == DriftKind::Changed
        && !sight.changed.is_empty()
        && sight.changed.without(CONTENT).is_empty()
}

/// Whether a pattern matches more than one path.
pub(super) fn is_wide(pattern: &Pattern) -> bool {
    !pattern.is_literal()
}
