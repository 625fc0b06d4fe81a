//! Receives the database, the policies and the time, and hands on the situation that the judge judges.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use drift::report::ImageRef;
use rusqlite::Connection;

use crate::instance;
use crate::judge::{
    Again, Drifts, Fleet, Hold, Instance, LastGood, Mark, Order, Proof, Replacement, Situation,
};
use crate::policy::Fleets;
use crate::store::orders::{self, MarkRow, OrderRow};
use crate::store::{images, instances};

/// Everything that the judge may know of the fleets in which something is open. A fleet's policy is the file's, or to be
/// observed and nothing else.
pub(super) fn load(
    db: &Connection,
    fleets: &Fleets,
    heartbeat: Duration,
    listening_since_ms: i64,
    now_ms: i64,
) -> rusqlite::Result<Situation> {
    let concerned = orders::concerned_fleets(db)?;
    let mut marks: HashMap<String, Mark> = orders::marks(db)?.into_iter().map(mark).collect();
    let mut by_name = BTreeMap::new();
    for name in concerned {
        let policy = fleets.of(&name);
        let last_good = last_good(db, policy.channel.as_deref(), now_ms)?;
        let mut instances = Vec::new();
        for stored in instances::page(db, Some(&name), 0, u32::MAX)? {
            let mark = marks.remove(&stored.id);
            // Who is out for good is only of interest while a mark is open.
            if stored.standing == instance::Standing::Active || mark.is_some() {
                let again = again(db, &stored)?;
                instances.push(known(stored, again, mark, heartbeat, now_ms));
            }
        }
        let fleet = Fleet {
            name: name.clone(),
            policy,
            last_good,
            instances,
            orders: Vec::new(),
        };
        by_name.insert(name, fleet);
    }
    for row in orders::open_orders(db)? {
        if let Some(fleet) = by_name.get_mut(&row.fleet) {
            fleet.orders.push(order(row));
        }
    }
    Ok(Situation {
        listening_since_ms,
        heartbeat,
        fleets: by_name.into_values().collect(),
    })
}

fn last_good(
    db: &Connection,
    channel: Option<&str>,
    now_ms: i64,
) -> rusqlite::Result<Result<LastGood, String>> {
    match channel {
        Some(channel) => images::last_good(db, channel, now_ms),
        None => Ok(Err("the fleet has no channel".into())),
    }
}

/// Only asked of what is drifted, and of who came with proof: nobody else is replaced.
fn again(db: &Connection, stored: &instance::Instance) -> rusqlite::Result<Option<Again>> {
    let drifted = stored.open + stored.raised > 0 && stored.proven;
    let Some(cloud_id) = stored.cloud_id.as_deref().filter(|_| drifted) else {
        return Ok(None);
    };
    let repeated = orders::repeated(db, stored.row, cloud_id)?;
    Ok(repeated.map(|(order, replaced, image)| Again {
        order,
        replaced,
        image,
    }))
}

fn known(
    stored: instance::Instance,
    again: Option<Again>,
    mark: Option<Mark>,
    heartbeat: Duration,
    now_ms: i64,
) -> Instance {
    let state = instance::state(&stored, heartbeat, now_ms);
    let count = stored.open + stored.raised;
    let worst = stored.severity.filter(|_| count > 0);
    let reported = stored.reported_manifest;
    let image = stored.image.map(|image| ImageRef {
        manifest: reported.unwrap_or(image.manifest),
        ..image
    });
    Instance {
        id: stored.id,
        cloud_id: stored.cloud_id,
        proof: if stored.proven {
            Proof::Proven
        } else {
            Proof::Claimed
        },
        state,
        image,
        enrolled_ms: stored.enrolled_at_ms,
        heard_ms: stored.heard_at_ms,
        drifts: worst.map(|worst| Drifts { count, worst }),
        again,
        hold: stored.hold.map(|hold| Hold {
            reason: hold.reason,
        }),
        mark,
    }
}

fn mark(row: MarkRow) -> (String, Mark) {
    (
        row.instance,
        Mark {
            reason: row.reason,
            declined: row.declined,
        },
    )
}

fn order(row: OrderRow) -> Order {
    Order {
        id: row.id,
        generation: row.generation,
        instance: row.instance,
        image: row.image,
        state: row.state,
        why: row.why,
        planned_ms: row.planned_at_ms,
        grace_ms: row.grace_at_ms,
        approval: row.approval.as_deref().map(orders::approval_of),
        executing_ms: row.executing_at_ms,
        replacement: row.replacement.map(|cloud_id| Replacement { cloud_id }),
    }
}
