//! Receives marks and orders, and hands them on; whatever changes an order says which generation and state it means.

use drift::report::ImageRef;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::judge::{Approval, OrderState};

/// An order, as the store holds it and the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OrderRow {
    /// Its id.
    pub id: String,
    /// Which order for this instance it is, from 1.
    pub generation: u64,
    /// The fleet.
    pub fleet: String,
    /// The instance to replace.
    pub instance: String,
    /// The cloud's id of it.
    pub cloud_id: Option<String>,
    /// The image to replace it with.
    #[schema(value_type = Option<Object>)]
    pub image: Option<ImageRef>,
    /// Who replaces: `probe` or `command`.
    pub replacer: String,
    /// Why it was planned.
    pub reason: String,
    /// When it was planned, in milliseconds since 1970.
    pub planned_at_ms: i64,
    /// Where it is.
    pub state: OrderState,
    /// What was said of it last.
    pub why: String,
    /// When its grace began.
    pub grace_at_ms: Option<i64>,
    /// Who let it go: `policy`, or `operator:NAME`.
    pub approval: Option<String>,
    /// When it began to execute.
    pub executing_at_ms: Option<i64>,
    /// The cloud id of the replacement that was named.
    pub replacement: Option<String>,
    /// When it was named.
    pub replaced_at_ms: Option<i64>,
    /// When it was verified or cancelled.
    pub over_at_ms: Option<i64>,
}

/// The open mark of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkRow {
    /// The instance.
    pub instance: String,
    /// Why.
    pub reason: String,
    /// Why an operator wants no order for it.
    pub declined: Option<String>,
}

/// Which orders to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of these fleets; none for all.
    pub fleets: Option<Vec<String>>,
    /// Also those that are over.
    pub over: bool,
    /// How many, at most [`MAX_LISTED`].
    pub limit: Option<u32>,
}

/// The most orders in one list: open orders are bounded by the instances, and orders that are over go on growing.
pub const MAX_LISTED: u32 = 10_000;

const COLUMNS: &str =
    "id, generation, fleet, instance, cloud_id, image, replacer, reason, planned_at_ms, state, why,
    grace_at_ms, approval, executing_at_ms, replacement, replaced_at_ms, over_at_ms";

impl OrderRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (image, state): (Option<String>, String) = (row.get(5)?, row.get(9)?);
        Ok(OrderRow {
            id: row.get(0)?,
            generation: row.get::<_, i64>(1)?.unsigned_abs(),
            fleet: row.get(2)?,
            instance: row.get(3)?,
            cloud_id: row.get(4)?,
            image: image
                .map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(|error| unreadable(5, error))?,
            replacer: row.get(6)?,
            reason: row.get(7)?,
            planned_at_ms: row.get(8)?,
            state: OrderState::parse(&state)
                .ok_or_else(|| unreadable(9, "not a state of an order"))?,
            why: row.get(10)?,
            grace_at_ms: row.get(11)?,
            approval: row.get(12)?,
            executing_at_ms: row.get(13)?,
            replacement: row.get(14)?,
            replaced_at_ms: row.get(15)?,
            over_at_ms: row.get(16)?,
        })
    }
}

fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
}

/// The text of an approval in the database.
pub fn approval_text(approval: &Approval) -> String {
    match approval {
        Approval::Policy => "policy".into(),
        Approval::Operator(name) => format!("operator:{name}"),
    }
}

/// The reverse of [`approval_text`].
pub fn approval_of(text: &str) -> Approval {
    text.strip_prefix("operator:")
        .map_or(Approval::Policy, |name| Approval::Operator(name.into()))
}

/// One order.
///
/// # Errors
/// Whatever the database gives.
pub fn order(db: &Connection, id: &str) -> rusqlite::Result<Option<OrderRow>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM orders WHERE id = ?1"))?
        .query_row([id], OrderRow::read)
        .optional()
}

/// Orders, the newest first.
///
/// # Errors
/// Whatever the database gives.
pub fn orders(db: &Connection, filter: &Filter) -> rusqlite::Result<Vec<OrderRow>> {
    let fleets = filter
        .fleets
        .as_ref()
        .map(|fleets| serde_json::to_string(fleets).expect("a list of strings"));
    let limit = filter.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM orders
         WHERE (?1 OR state NOT IN ('verified', 'cancelled'))
           AND (?2 IS NULL OR fleet IN (SELECT value FROM json_each(?2)))
         ORDER BY planned_at_ms DESC, generation DESC, id LIMIT ?3"
    ))?
    .query_map(params![filter.over, fleets, limit], OrderRow::read)?
    .collect()
}

/// All orders that are not over, oldest first.
///
/// # Errors
/// Whatever the database gives.
pub fn open_orders(db: &Connection) -> rusqlite::Result<Vec<OrderRow>> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM orders WHERE state NOT IN ('verified', 'cancelled') ORDER BY planned_at_ms, id"
    ))?
    .query_map([], OrderRow::read)?
    .collect()
}

/// The order that is executing on an instance: what its agent is told.
///
/// # Errors
/// Whatever the database gives.
pub fn executing(
    db: &Connection,
    instance: &str,
) -> rusqlite::Result<Option<drift::report::ExecutingOrder>> {
    db.prepare_cached(
        "SELECT id, replacer, reason FROM orders WHERE instance = ?1 AND state = 'executing'",
    )?
    .query_row([instance], |row| {
        Ok(drift::report::ExecutingOrder {
            id: row.get(0)?,
            replacer: row.get(1)?,
            reason: row.get(2)?,
        })
    })
    .optional()
}

/// What a new order is.
#[derive(Debug)]
pub struct NewOrder<'a> {
    /// A fresh id.
    pub id: &'a str,
    /// The fleet.
    pub fleet: &'a str,
    /// The instance to replace.
    pub instance: &'a str,
    /// The cloud's id of it.
    pub cloud_id: Option<&'a str>,
    /// The image to replace it with.
    pub image: Option<&'a ImageRef>,
    /// Who replaces.
    pub replacer: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Planned, or blocked from the beginning.
    pub state: OrderState,
}

/// Writes a new order down and gives its generation.
///
/// # Errors
/// Whatever the database gives; an instance with an open order gets no other one.
pub fn plan(tx: &Transaction<'_>, new: &NewOrder<'_>, now_ms: i64) -> rusqlite::Result<u64> {
    let generation: i64 = tx
        .prepare_cached("SELECT coalesce(max(generation), 0) + 1 FROM orders WHERE instance = ?1")?
        .query_row([new.instance], |row| row.get(0))?;
    let image = new
        .image
        .map(|image| serde_json::to_string(image).expect("a plain struct"));
    tx.prepare_cached(
        "INSERT INTO orders (id, generation, fleet, instance, cloud_id, image, replacer, reason, planned_at_ms, state, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8)",
    )?
    .execute(params![
        new.id,
        generation,
        new.fleet,
        new.instance,
        new.cloud_id,
        image,
        new.replacer,
        new.reason,
        now_ms,
        new.state.word()
    ])?;
    Ok(generation.unsigned_abs())
}

/// Which order in which state is meant: anything else is stale and changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its generation.
    pub generation: u64,
    /// Where it is.
    pub state: OrderState,
}

/// Takes an order to another state, or notes what it waits for; `false` if it is not the one that was meant.
///
/// # Errors
/// Whatever the database gives.
pub fn advance(
    tx: &Transaction<'_>,
    meant: Meant<'_>,
    to: OrderState,
    why: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE orders SET state = ?4, why = ?5,
                grace_at_ms = CASE WHEN ?4 = 'in-grace' THEN coalesce(grace_at_ms, ?6) ELSE grace_at_ms END,
                approval = CASE WHEN ?4 = 'approved' THEN coalesce(approval, 'policy') ELSE approval END,
                executing_at_ms = CASE WHEN ?4 = 'executing' THEN coalesce(executing_at_ms, ?6) ELSE executing_at_ms END,
                over_at_ms = CASE WHEN ?4 IN ('verified', 'cancelled') THEN ?6 ELSE over_at_ms END
             WHERE id = ?1 AND generation = ?2 AND state = ?3",
        )?
        .execute(params![meant.id, generation(meant), meant.state.word(), to.word(), why, now_ms])?;
    Ok(changed > 0)
}

/// Notes who approved an order, before [`advance`] takes it to `approved`.
///
/// # Errors
/// Whatever the database gives.
pub fn approve(
    tx: &Transaction<'_>,
    meant: Meant<'_>,
    approval: &Approval,
) -> rusqlite::Result<bool> {
    let changed = tx.execute(
        "UPDATE orders SET approval = ?4 WHERE id = ?1 AND generation = ?2 AND state = ?3",
        params![
            meant.id,
            generation(meant),
            meant.state.word(),
            approval_text(approval)
        ],
    )?;
    Ok(changed > 0)
}

/// Writes down which machine replaces, before [`advance`] takes the order to `replaced`.
///
/// # Errors
/// Whatever the database gives; a machine that another order named is refused.
pub fn name_replacement(
    tx: &Transaction<'_>,
    meant: Meant<'_>,
    cloud_id: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = tx.execute(
        "UPDATE orders SET replacement = ?4, replaced_at_ms = ?5 WHERE id = ?1 AND generation = ?2 AND state = ?3",
        params![meant.id, generation(meant), meant.state.word(), cloud_id, now_ms],
    )?;
    Ok(changed > 0)
}

/// Whether another order named this machine.
///
/// # Errors
/// Whatever the database gives.
pub fn is_named(db: &Connection, cloud_id: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM orders WHERE replacement = ?1 AND state <> 'cancelled'")?
        .exists([cloud_id])
}

/// The order by which a machine came as a replacement, if any drift is open on it that was open on the instance before
/// it; with that instance and the image.
///
/// # Errors
/// Whatever the database gives.
pub fn repeated(
    db: &Connection,
    instance: i64,
    cloud_id: &str,
) -> rusqlite::Result<Option<(String, String, Option<ImageRef>)>> {
    db.prepare_cached(
        "SELECT orders.id, orders.instance, orders.image
         FROM orders JOIN instances AS before ON before.id = orders.instance
         WHERE orders.replacement = ?2 AND orders.state <> 'cancelled' AND before.row <> ?1 AND EXISTS (
             SELECT 1 FROM drifts AS old JOIN drifts AS new ON new.id = old.id
             WHERE old.instance = before.row AND new.instance = ?1)",
    )?
    .query_row(params![instance, cloud_id], |row| {
        let image: Option<String> = row.get(2)?;
        let image = image
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| unreadable(2, error))?;
        Ok((row.get(0)?, row.get(1)?, image))
    })
    .optional()
}

/// The fleets in which there may be something to judge: an open drift, a mark, or an order that is not over.
///
/// # Errors
/// Whatever the database gives.
pub fn concerned_fleets(db: &Connection) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(
        "SELECT fleet FROM instances WHERE open_count + raised_count > 0
         UNION SELECT fleet FROM marks
         UNION SELECT fleet FROM orders WHERE state NOT IN ('verified', 'cancelled') ORDER BY 1",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

/// All open marks.
///
/// # Errors
/// Whatever the database gives.
pub fn marks(db: &Connection) -> rusqlite::Result<Vec<MarkRow>> {
    db.prepare_cached("SELECT instance, reason, declined FROM marks")?
        .query_map([], |row| {
            Ok(MarkRow {
                instance: row.get(0)?,
                reason: row.get(1)?,
                declined: row.get(2)?,
            })
        })?
        .collect()
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is new.
    Opened,
    /// It was open, and says something else now.
    Updated,
}

/// Opens a mark, or says something else of an open one.
///
/// # Errors
/// Whatever the database gives.
pub fn mark(
    tx: &Transaction<'_>,
    fleet: &str,
    instance: &str,
    reason: &str,
    image: Option<&ImageRef>,
    now_ms: i64,
) -> rusqlite::Result<Marked> {
    let image = image.map(|image| serde_json::to_string(image).expect("a plain struct"));
    let updated = tx
        .prepare_cached("UPDATE marks SET reason = ?2, image = ?3 WHERE instance = ?1")?
        .execute(params![instance, reason, image])?;
    if updated > 0 {
        return Ok(Marked::Updated);
    }
    tx.prepare_cached(
        "INSERT INTO marks (instance, fleet, reason, image, opened_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![instance, fleet, reason, image, now_ms])?;
    Ok(Marked::Opened)
}

/// Closes a mark; `false` if there was none.
///
/// # Errors
/// Whatever the database gives.
pub fn unmark(tx: &Transaction<'_>, instance: &str) -> rusqlite::Result<bool> {
    Ok(tx
        .prepare_cached("DELETE FROM marks WHERE instance = ?1")?
        .execute([instance])?
        > 0)
}

/// Notes why an operator wants no order for a marked instance; without a reason, that they do again.
///
/// # Errors
/// Whatever the database gives.
pub fn decline(
    tx: &Transaction<'_>,
    instance: &str,
    reason: Option<&str>,
) -> rusqlite::Result<bool> {
    Ok(tx.execute(
        "UPDATE marks SET declined = ?2 WHERE instance = ?1",
        params![instance, reason],
    )? > 0)
}

fn generation(meant: Meant<'_>) -> i64 {
    i64::try_from(meant.generation).unwrap_or(i64::MAX)
}
