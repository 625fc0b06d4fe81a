//! What the collector holds an instance to be: receives stored facts and the time, hands on a state. Pure.
//!
//! ```text
//! (enrolled) ──first scan──▶ clean ◀──▶ drifted        silent: from any of these, after 2.5 heartbeats
//!                              ▲                        stopped: a goodbye
//!                              └──▶ unverifiable        replaced, retired: for good
//! ```

use std::time::Duration;

use drift::Blake3;
use drift::class::Severity;
use drift::report::{ImageRef, InstanceState, Phase, RunId};

/// One instance, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// What the big tables call it.
    pub row: i64,
    /// The id that the collector issued.
    pub id: String,
    /// Its fleet.
    pub fleet: String,
    /// The cloud's id of it.
    pub cloud_id: Option<String>,
    /// Whether the cloud id is proven, and not only claimed.
    pub proven: bool,
    /// SHA-256 of its public key's SPKI.
    pub public_key: [u8; 32],
    /// Whether it still takes part.
    pub standing: Standing,
    /// Why it does not.
    pub standing_reason: Option<String>,
    /// Since when.
    pub standing_since_ms: Option<i64>,
    /// An operator's word that no order is to touch it.
    pub hold: Option<Hold>,
    /// An operator allows an expired certificate to be renewed until then.
    pub renewal_until_ms: Option<i64>,
    /// When it enrolled.
    pub enrolled_at_ms: i64,
    /// When its latest certificate ends.
    pub certificate_until_ms: i64,
    /// The image that it enrolled for.
    pub image: Option<ImageRef>,
    /// Whether that image was registered when it last reported.
    pub image_known: bool,
    /// When its latest report came.
    pub heard_at_ms: Option<i64>,
    /// Its current run.
    pub run: Option<RunId>,
    /// The place of its current run among its runs.
    pub run_number: i64,
    /// The latest sequence number of its current run.
    pub sequence: u64,
    /// The latest generation that was applied.
    pub generation: u64,
    /// What it last said of itself.
    pub phase: Option<Phase>,
    /// Its boot.
    pub boot_id: Option<String>,
    /// The version of its agent.
    pub agent_version: Option<String>,
    /// The manifest that it verifies against.
    pub reported_manifest: Option<Blake3>,
    /// Why it cannot verify.
    pub unverifiable: Option<String>,
    /// Whether a full scan has finished since it started.
    pub first_scan: bool,
    /// Moments that its agent had no room for.
    pub dropped_moments: u64,
    /// What is open, by its own word.
    pub open: u64,
    /// The digest of that.
    pub set_digest: Option<Blake3>,
    /// Whether more is open than is kept.
    pub overflow: bool,
    /// What is open, by the collector's word.
    pub raised: u64,
    /// The gravest that is open.
    pub severity: Option<Severity>,
    /// Since when something is open.
    pub drifted_since_ms: Option<i64>,
    /// Since when it is verified and nothing is open.
    pub clean_since_ms: Option<i64>,
    /// Whether the values that are held from first sight on are fixed.
    pub held_fixed: bool,
    /// Held values whose beginning can no longer be proven.
    pub held_unproven: u64,
    /// Moments that are kept.
    pub moments: u64,
}

impl Instance {
    /// How much is open, by the agent's word and by the collector's.
    pub fn all_open(&self) -> u64 {
        self.open.saturating_add(self.raised)
    }
}

/// Whether an instance still takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It does.
    Active,
    /// An order replaced it.
    Replaced,
    /// An operator took it out.
    Retired,
}

impl Standing {
    /// The word for it in the database.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Replaced => "replaced",
            Standing::Retired => "retired",
        }
    }

    /// The reverse of [`Standing::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Standing::Active, Standing::Replaced, Standing::Retired]
            .into_iter()
            .find(|it| it.word() == word)
    }
}

/// An operator's word that no order is to touch an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When.
    pub at_ms: i64,
}

/// What an instance is now.
pub fn state(instance: &Instance, heartbeat: Duration, now_ms: i64) -> InstanceState {
    match instance.standing {
        Standing::Replaced => return InstanceState::Replaced,
        Standing::Retired => return InstanceState::Retired,
        Standing::Active => {}
    }
    if instance.phase == Some(Phase::Stopped) {
        return InstanceState::Stopped;
    }
    let heard_at_ms = instance.heard_at_ms.unwrap_or(instance.enrolled_at_ms);
    // Heard in the future: the clock was set back, and what it said then says nothing of now.
    if now_ms.abs_diff(heard_at_ms) > silence_ms(heartbeat).unsigned_abs() {
        return InstanceState::Silent;
    }
    if instance.all_open() > 0 {
        return InstanceState::Drifted;
    }
    if instance.unverifiable.is_some() {
        return InstanceState::Unverifiable;
    }
    if instance.heard_at_ms.is_none()
        || !instance.first_scan
        || instance.phase != Some(Phase::Running)
    {
        return InstanceState::Enrolled;
    }
    if instance.image_known {
        InstanceState::Clean
    } else {
        InstanceState::Unverifiable
    }
}

/// Silence after this long: 2.5 heartbeats.
pub fn silence_ms(heartbeat: Duration) -> i64 {
    i64::try_from(heartbeat.as_millis())
        .unwrap_or(i64::MAX / 4)
        .saturating_mul(5)
        / 2
}

/// Whether an instance is in the denominator of its fleet's shares: proven, and not stopped, replaced or retired.
pub fn counts(instance: &Instance, state: InstanceState) -> bool {
    let gone = matches!(
        state,
        InstanceState::Stopped | InstanceState::Replaced | InstanceState::Retired
    );
    instance.proven && !gone
}

/// How many instances a fleet's shares are of.
pub fn denominator<'a>(
    instances: impl IntoIterator<Item = &'a Instance>,
    heartbeat: Duration,
    now_ms: i64,
) -> usize {
    instances
        .into_iter()
        .filter(|instance| counts(instance, state(instance, heartbeat, now_ms)))
        .count()
}

/// Whether a text is an instance id: `i-` and 32 lower-case hexadecimal digits.
pub fn is_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("i-")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(hex))
}

/// The rank of a severity in the database, least first. A word of a later version counts as medium: neither ignored nor
/// by itself a reason to end a machine.
pub fn rank(severity: &Severity) -> i64 {
    match severity {
        Severity::Info => 0,
        Severity::Low => 1,
        Severity::Medium | Severity::Unknown(_) => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

/// The reverse of [`rank`].
pub fn severity(rank: i64) -> Severity {
    match rank {
        0 => Severity::Info,
        1 => Severity::Low,
        3 => Severity::High,
        4 => Severity::Critical,
        _ => Severity::Medium,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NOW: i64 = 1_000_000_000;

    pub(crate) fn clean() -> Instance {
        Instance {
            row: 1,
            id: format!("i-{}", "0".repeat(32)),
            fleet: "web".into(),
            cloud_id: Some("vm-1".into()),
            proven: true,
            public_key: [0; 32],
            standing: Standing::Active,
            standing_reason: None,
            standing_since_ms: None,
            hold: None,
            renewal_until_ms: None,
            enrolled_at_ms: NOW - 1_000_000,
            certificate_until_ms: NOW + 1_000_000,
            image: None,
            image_known: true,
            heard_at_ms: Some(NOW),
            run: None,
            run_number: 1,
            sequence: 1,
            generation: 1,
            phase: Some(Phase::Running),
            boot_id: None,
            agent_version: None,
            reported_manifest: None,
            unverifiable: None,
            first_scan: true,
            dropped_moments: 0,
            open: 0,
            set_digest: None,
            overflow: false,
            raised: 0,
            severity: None,
            drifted_since_ms: None,
            clean_since_ms: None,
            held_fixed: false,
            held_unproven: 0,
            moments: 0,
        }
    }

    fn with(change: impl FnOnce(&mut Instance)) -> Instance {
        let mut instance = clean();
        change(&mut instance);
        instance
    }

    #[test]
    fn every_state_follows_from_its_facts() {
        use InstanceState as S;
        let cases = [
            (clean(), S::Clean),
            (with(|it| it.heard_at_ms = None), S::Silent),
            (
                with(|it| (it.heard_at_ms, it.enrolled_at_ms) = (None, NOW)),
                S::Enrolled,
            ),
            (with(|it| it.first_scan = false), S::Enrolled),
            (with(|it| it.phase = Some(Phase::Starting)), S::Enrolled),
            (with(|it| it.open = 1), S::Drifted),
            (with(|it| it.raised = 1), S::Drifted),
            (
                with(|it| (it.open, it.phase) = (1, Some(Phase::Starting))),
                S::Drifted,
            ),
            (
                with(|it| it.unverifiable = Some("no manifest".into())),
                S::Unverifiable,
            ),
            (with(|it| it.image_known = false), S::Unverifiable),
            (with(|it| it.heard_at_ms = Some(NOW - 150_001)), S::Silent),
            (with(|it| it.heard_at_ms = Some(NOW - 150_000)), S::Clean),
            // The clock was set back since.
            (with(|it| it.heard_at_ms = Some(NOW + 150_001)), S::Silent),
            (
                with(|it| (it.open, it.heard_at_ms) = (1, Some(NOW - 150_001))),
                S::Silent,
            ),
            (with(|it| it.phase = Some(Phase::Stopped)), S::Stopped),
            (
                with(|it| (it.phase, it.open) = (Some(Phase::Stopped), 1)),
                S::Stopped,
            ),
            (with(|it| it.standing = Standing::Replaced), S::Replaced),
            (with(|it| it.standing = Standing::Retired), S::Retired),
        ];
        for (instance, expected) in cases {
            assert_eq!(state(&instance, MINUTE, NOW), expected, "{instance:?}");
        }
    }

    #[test]
    fn shares_are_of_proven_instances_that_are_still_there() {
        let instances = [
            clean(),
            with(|it| it.proven = false),
            with(|it| it.heard_at_ms = Some(0)),
            with(|it| it.open = 3),
            with(|it| it.phase = Some(Phase::Stopped)),
            with(|it| it.standing = Standing::Replaced),
            with(|it| it.standing = Standing::Retired),
        ];
        assert_eq!(denominator(&instances, MINUTE, NOW), 3);
    }

    #[test]
    fn an_id_is_what_we_issue_and_nothing_else() {
        assert!(is_id("i-0123456789abcdef0123456789abcdef"));
        for bad in [
            "",
            "i-",
            "i-0123456789ABCDEF0123456789abcdef",
            "i-0123456789abcdef0123456789abcdef0",
            "../etc",
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
