//! Receives a join token and a key, hands on an instance; receives a certificate and its key, hands on a new one.
//!
//! Invariants: the instance id is drawn here, never taken from a request. A cloud id is proven only by a token that was
//! made for that very id. Nobody takes the place of an instance that is enrolled with proof: a second claim is refused
//! and recorded, until an operator retires the first or an order replaces it.

use std::sync::Arc;
use std::time::Duration;

use drift::enrolment::EnrolRequest;
use drift::report::ImageRef;
use rusqlite::Transaction;
use serde_json::json;

use crate::api::ApiError;
use crate::ingest::takes_part;
use crate::instance::{Instance, Standing};
use crate::ledger;
use crate::policy::checked::{MAX_NAME_BYTES, is_name};
use crate::rate::Rate;
use crate::store::instances::{self, Enrolled};
use crate::store::tokens::{self, Token};

/// What an enrolment asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// BLAKE3 of the token's secret.
    pub token: blake3::Hash,
    /// SHA-256 of the SPKI of the key that the request proved.
    pub key: [u8; 32],
    /// The cloud id that the agent claims.
    pub cloud_id: Option<String>,
    /// The fleet that the agent is configured for.
    pub fleet: Option<String>,
    /// The image that it claims.
    pub image: Option<ImageRef>,
    /// Its boot.
    pub boot_id: String,
    /// The id that it gets, if it is new.
    pub id: String,
    /// When its certificate will end.
    pub until_ms: i64,
    /// How many refusals the ledger takes.
    pub refusals: Arc<Rate>,
    /// The collector's receipt.
    pub now_ms: i64,
}

/// Who gets a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The instance.
    pub id: String,
    /// Its fleet.
    pub fleet: String,
}

/// What a renewal shows.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The instance that the old certificate names.
    pub id: String,
    /// SHA-256 of the SPKI of the key that the request proved.
    pub key: [u8; 32],
    /// When the old certificate ends, or ended.
    pub ended_ms: i64,
    /// When the new one will.
    pub until_ms: i64,
    /// How many refusals the ledger takes.
    pub refusals: Arc<Rate>,
    /// The collector's receipt.
    pub now_ms: i64,
}

/// An expired certificate is renewed for this long, for machines that were off.
pub const EXPIRED: Duration = Duration::from_hours(24 * 30);
/// The longest boot id, image name, version or build.
const MAX_TEXT_BYTES: usize = 256;

/// Enrols an instance, or finds the one that this token and key enrolled before: an answer that was lost is given again.
///
/// # Errors
/// The database's. A refusal is a value, so that what is recorded of it stays.
pub fn enrol(tx: &Transaction<'_>, asked: &Asked) -> rusqlite::Result<Result<Granted, ApiError>> {
    let Some(token) = tokens::by_digest(tx, &asked.token)? else {
        let refused = ApiError::forbidden(
            "token-unknown",
            "this join token is not known: ask for a new one",
        );
        return refuse(tx, asked, None, refused, None).map(Err);
    };
    // Before everything else: an answer that was lost is not given again to whoever is configured for another fleet.
    if let Err(refused) = fleet_fits(&token, asked) {
        return refuse(tx, asked, Some(&token), refused, None).map(Err);
    }
    if let Some(instance) = instances::by_token_and_key(tx, &token.id, &asked.key)? {
        return Ok(takes_part(&instance).map(|()| Granted {
            id: instance.id,
            fleet: instance.fleet,
        }));
    }
    if let Err(refused) = token_admits(&token, asked) {
        return refuse(tx, asked, Some(&token), refused, None).map(Err);
    }
    if instances::key_is_known(tx, &asked.key)? {
        let refused = ApiError::conflict(
            "key-used",
            "this key has an identity already: make a new one to enrol",
        );
        return refuse(tx, asked, Some(&token), refused, None).map(Err);
    }
    let cloud_id = token.cloud_id.clone().or_else(|| asked.cloud_id.clone());
    if let Some(victim) = holder(tx, cloud_id.as_deref())? {
        let message = "this cloud id belongs to an instance that is enrolled: retire that one first if it is gone";
        let refused = ApiError::conflict("already-enrolled", message);
        return refuse(tx, asked, Some(&token), refused, Some(&victim)).map(Err);
    }
    let enrolled = Enrolled {
        id: asked.id.clone(),
        fleet: token.fleet.clone(),
        cloud_id,
        proven: token.cloud_id.is_some(),
        token: token.id.clone(),
        public_key: asked.key,
        image: asked.image.clone(),
        boot_id: asked.boot_id.clone(),
        certificate_until_ms: asked.until_ms,
    };
    instances::insert(tx, &enrolled, asked.now_ms)?;
    tokens::count_use(tx, &token.id)?;
    record_enrolment(tx, &enrolled, asked.now_ms)?;
    Ok(Ok(Granted {
        id: enrolled.id,
        fleet: enrolled.fleet,
    }))
}

/// Whether the lengths of a request are within their limits.
///
/// # Errors
/// 400.
pub fn check_limits(request: &EnrolRequest) -> Result<(), ApiError> {
    let image = request.image.as_ref();
    let texts = [
        (
            "cloud_id",
            request.cloud_id.as_deref(),
            EnrolRequest::MAX_CLOUD_ID_BYTES,
        ),
        ("boot_id", Some(request.boot_id.as_str()), MAX_TEXT_BYTES),
        (
            "image.name",
            image.map(|image| image.name.as_str()),
            MAX_TEXT_BYTES,
        ),
        (
            "image.version",
            image.map(|image| image.version.as_str()),
            MAX_TEXT_BYTES,
        ),
        (
            "image.build",
            image.map(|image| image.build.as_str()),
            MAX_TEXT_BYTES,
        ),
    ];
    for (field, text, limit) in texts {
        if text.is_some_and(|text| text.len() > limit) {
            return Err(ApiError::bad_request(
                "bad-request",
                format!("`{field}` is longer than {limit} bytes"),
            ));
        }
    }
    if request.cloud_id.as_deref() == Some("") {
        return Err(ApiError::bad_request(
            "bad-request",
            "`cloud_id` is empty: leave it out",
        ));
    }
    match request.fleet.as_deref() {
        Some(fleet) if !is_name(fleet) => Err(ApiError::bad_request(
            "bad-request",
            format!(
                "`fleet` is no fleet's name: 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`"
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether an instance may have a new certificate, and notes that it gets one.
///
/// # Errors
/// The database's.
pub fn renew(
    tx: &Transaction<'_>,
    renewal: &Renewal,
) -> rusqlite::Result<Result<Granted, ApiError>> {
    let Some(instance) = instances::by_id(tx, &renewal.id)? else {
        return Ok(Err(ApiError::forbidden(
            "unknown-instance",
            "this collector has not issued that instance id",
        )));
    };
    if let Err(refused) = may_renew(&instance, renewal) {
        record_renewal(tx, &instance, renewal, &refused)?;
        return Ok(Err(refused));
    }
    instances::renewed(tx, instance.row, renewal.until_ms)?;
    Ok(Ok(Granted {
        id: instance.id,
        fleet: instance.fleet,
    }))
}

fn may_renew(instance: &Instance, renewal: &Renewal) -> Result<(), ApiError> {
    takes_part(instance)?;
    if instance.public_key != renewal.key {
        let message =
            "a certificate is renewed for the same key only: enrol with a new token for a new key";
        return Err(ApiError::forbidden("other-key", message));
    }
    let expired_ms = renewal.now_ms.saturating_sub(renewal.ended_ms);
    let allowed = instance
        .renewal_until_ms
        .is_some_and(|until_ms| renewal.now_ms <= until_ms);
    if expired_ms > i64::try_from(EXPIRED.as_millis()).unwrap_or(i64::MAX) && !allowed {
        let message = "this certificate expired more than 30 days ago: an operator must approve \
                       (`driftmark-collector instance release --renewal`)";
        return Err(ApiError::forbidden("approval-required", message));
    }
    Ok(())
}

/// Puts a refused renewal into the ledger, within the rate.
fn record_renewal(
    tx: &Transaction<'_>,
    instance: &Instance,
    renewal: &Renewal,
    refused: &ApiError,
) -> rusqlite::Result<()> {
    if !renewal.refusals.take() {
        return Ok(());
    }
    let entry = ledger::Entry {
        kind: "renewal-refused",
        fleet: Some(instance.fleet.clone()),
        subject: Some(instance.id.clone()),
        reason: refused.refusal.message.clone(),
        detail: json!({"code": refused.refusal.code, "ended_ms": renewal.ended_ms}),
        actor: "collector".to_owned(),
    };
    ledger::append(tx, renewal.now_ms, &entry).map(drop)
}

/// Nothing is moved: the token decides the fleet, and who was configured for another one must not get lost in it.
fn fleet_fits(token: &Token, asked: &Asked) -> Result<(), ApiError> {
    match &asked.fleet {
        Some(fleet) if *fleet != token.fleet => Err(ApiError::forbidden(
            "token-for-other-fleet",
            format!(
                "this join token is for fleet {}, and the instance is configured for fleet {fleet}: \
                 hand it a token of its fleet, or correct `fleet`",
                token.fleet
            ),
        )),
        _ => Ok(()),
    }
}

fn token_admits(token: &Token, asked: &Asked) -> Result<(), ApiError> {
    if asked.now_ms >= token.expires_at_ms {
        return Err(ApiError::forbidden(
            "token-expired",
            "this join token has expired: ask for a new one",
        ));
    }
    if token.uses >= token.uses_allowed {
        return Err(ApiError::forbidden(
            "token-used",
            "this join token is used up: ask for a new one",
        ));
    }
    match (&token.cloud_id, &asked.cloud_id) {
        (Some(made_for), Some(claimed)) if made_for != claimed => Err(ApiError::forbidden(
            "token-for-other",
            "this join token was made for another cloud id",
        )),
        _ => Ok(()),
    }
}

/// Who holds a cloud id with proof, and still takes part.
fn holder(tx: &Transaction<'_>, cloud_id: Option<&str>) -> rusqlite::Result<Option<Instance>> {
    let Some(cloud_id) = cloud_id else {
        return Ok(None);
    };
    let holders = instances::by_cloud_id(tx, cloud_id)?;
    Ok(holders
        .into_iter()
        .find(|instance| instance.proven && instance.standing == Standing::Active))
}

fn refuse(
    tx: &Transaction<'_>,
    asked: &Asked,
    token: Option<&Token>,
    refused: ApiError,
    victim: Option<&Instance>,
) -> rusqlite::Result<ApiError> {
    let fits = match token {
        Some(_) => asked.refusals.take(),
        None => asked.refusals.take_sparingly(),
    };
    if fits {
        let entry = ledger::Entry {
            kind: if victim.is_some() {
                "second-claim"
            } else {
                "enrolment-refused"
            },
            fleet: victim
                .map(|victim| &victim.fleet)
                .or(token.map(|token| &token.fleet))
                .cloned(),
            subject: victim
                .map(|victim| victim.id.clone())
                .or(token.map(|token| token.id.clone())),
            reason: refused.refusal.message.clone(),
            detail: json!({
                "code": refused.refusal.code,
                "token": token.map(|token| &token.id),
                "cloud_id": asked.cloud_id.as_ref().or(token.and_then(|token| token.cloud_id.as_ref())),
                "fleet": asked.fleet,
                "boot_id": asked.boot_id,
            }),
            actor: "unenrolled".to_owned(),
        };
        ledger::append(tx, asked.now_ms, &entry)?;
    }
    if let Some(victim) = victim {
        tracing::warn!(
            instance = victim.id,
            fleet = victim.fleet,
            "somebody else claims to be this instance"
        );
    }
    Ok(refused)
}

fn record_enrolment(
    tx: &Transaction<'_>,
    enrolled: &Enrolled,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let proof = if enrolled.proven { "proven" } else { "claimed" };
    let entry = ledger::Entry {
        kind: "instance-enrolled",
        fleet: Some(enrolled.fleet.clone()),
        subject: Some(enrolled.id.clone()),
        reason: format!(
            "it came with join token {}; its cloud id is {proof}",
            enrolled.token
        ),
        detail: json!({"cloud_id": enrolled.cloud_id, "proven": enrolled.proven, "token": enrolled.token,
                       "image": enrolled.image}),
        actor: "collector".to_owned(),
    };
    ledger::append(tx, now_ms, &entry).map(drop)
}
