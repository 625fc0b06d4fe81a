//! Which instances are to be replaced, in every mode.

use drift::report::InstanceState;

use super::{Decision, Fleet, Instance, Proof, wanted_image};
use crate::policy::{Mode, shown_duration};

/// Opens, updates or closes the mark of one instance.
pub(super) fn judge(fleet: &Fleet, instance: &Instance) -> Option<Decision> {
    match (worth_replacing(fleet, instance), &instance.mark) {
        (Ok(why), mark) => {
            let reason = format!("{why}; {}", outlook(fleet, instance));
            let image = wanted_image(&fleet.last_good, instance.image.as_ref()).ok();
            let news = mark.as_ref().is_none_or(|mark| mark.reason != reason);
            news.then(|| Decision::Mark {
                fleet: fleet.name.clone(),
                instance: instance.id.clone(),
                reason,
                image,
            })
        }
        (Err(Settled::Over(reason)), Some(_)) => Some(Decision::Unmark {
            fleet: fleet.name.clone(),
            instance: instance.id.clone(),
            reason,
        }),
        (Err(_), _) => None,
    }
}

/// Why an instance is not to be marked.
pub(super) enum Settled {
    /// And if it is marked, the mark closes.
    Over(String),
    /// But if it is marked, it stays so: what is not known does not make a machine clean.
    Unknown,
}

/// Whether an instance is drifted enough to be replaced, and why.
pub(super) fn worth_replacing(fleet: &Fleet, instance: &Instance) -> Result<String, Settled> {
    if instance.proof == Proof::Claimed {
        return Err(Settled::Over("its cloud id is only claimed".into()));
    }
    // Not `Stopped`: a goodbye is never health, or a tampered machine would only have to say it.
    let over = matches!(
        instance.state,
        InstanceState::Clean | InstanceState::Replaced | InstanceState::Retired
    );
    if over {
        return Err(Settled::Over(format!(
            "the instance is {}",
            instance.state.word()
        )));
    }
    let drifts = instance
        .drifts
        .as_ref()
        .filter(|drifts| drifts.count > 0)
        .ok_or(Settled::Unknown)?;
    let minimum = &fleet.policy.minimum_severity;
    if instance.state != InstanceState::Drifted {
        return Err(Settled::Unknown);
    }
    if drifts.worst < *minimum {
        return Err(Settled::Over(format!(
            "its worst drift is {}, below {minimum}",
            drifts.worst
        )));
    }
    let plural = if drifts.count == 1 {
        "drift is"
    } else {
        "drifts are"
    };
    Ok(format!(
        "{} {plural} open, the worst {}",
        drifts.count, drifts.worst
    ))
}

/// What would become of the instance, or will.
fn outlook(fleet: &Fleet, instance: &Instance) -> String {
    let replacement = match wanted_image(&fleet.last_good, instance.image.as_ref()) {
        Ok(image) => format!(
            "replaced with {} {} ({})",
            image.name, image.version, image.build
        ),
        Err(why) => format!("blocked: {why}"),
    };
    let grace = shown_duration(fleet.policy.grace);
    match fleet.policy.mode {
        Mode::Observe => format!("observed only, it would be {replacement}"),
        Mode::Approve => format!("once approved, it will be {replacement}"),
        Mode::Replace => format!("after {grace}, it will be {replacement}"),
    }
}
