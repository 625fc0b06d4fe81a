//! What the agents' messages look like, for the OpenAPI document: `drift` has the types and knows no OpenAPI.
//!
//! The parts of a report that have many forms of their own (drifts, coverage, held values) are given as objects: the
//! crate `drift` describes them. The tests hold the members against messages that were really sent.

#![expect(
    dead_code,
    reason = "these describe `drift`'s own types and are never made"
)]

use utoipa::ToSchema;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Driftmark collector, agents' interface",
        description = "Over TLS with the client certificate of an enrolled instance, but for /v1/enroll, and for \
                       /v1/renew with an expired certificate in the body. The instance is who the certificate says; \
                       no message names its sender.",
        license(name = "Apache-2.0")
    ),
    components(schemas(crate::api::description::Refused))
)]
pub(super) struct Description;

/// A join token, and a key that is to become an instance's.
#[derive(ToSchema)]
pub(super) struct EnrolRequest {
    /// The secret of the join token.
    token: String,
    /// PKCS#10 in PEM; only its key is used.
    csr: String,
    /// The cloud's id of the machine: a claim, unless the token was made for it.
    cloud_id: Option<String>,
    /// The fleet that the agent is configured for; a token of another fleet is refused.
    #[schema(max_length = 64)]
    fleet: Option<String>,
    image: Option<Image>,
    /// The kernel's id of this boot.
    #[schema(required = false)]
    boot_id: String,
}

/// An image's build, and the digest of its manifest.
#[derive(ToSchema)]
struct Image {
    name: String,
    version: String,
    build: String,
    /// BLAKE3, hexadecimal.
    manifest: String,
}

/// Who the instance is from now on.
#[derive(ToSchema)]
pub(super) struct Identity {
    /// The id that the collector issued.
    instance: String,
    fleet: String,
    /// Its certificate and the chain, PEM.
    certificate: String,
    /// The authorities to trust, PEM.
    trust: String,
    renew_after_seconds: u64,
}

/// A certificate request of the same key.
#[derive(ToSchema)]
pub(super) struct RenewRequest {
    /// PKCS#10 in PEM.
    csr: String,
    /// The old certificate in PEM, where it has expired and TLS does not take it any more.
    expired: Option<String>,
}

/// A numbered report: at most 1 MiB, 1,000 drifts, and 1,000 held values a part.
#[derive(ToSchema)]
pub(super) struct Report {
    /// 128 random bits of this start of the agent, hexadecimal.
    run: String,
    /// From 1, in this run. The same number with another body is refused.
    sequence: u64,
    previous_run: Option<String>,
    /// Which part of which generation it is.
    #[schema(value_type = Object)]
    part: (),
    /// The agent's version, build and features.
    #[schema(value_type = Object)]
    agent: (),
    boot_id: String,
    /// `starting`, `running` or `stopped`.
    phase: String,
    image: Option<Image>,
    /// Why the instance cannot verify itself.
    unverifiable: Option<String>,
    /// `change` or `whole`.
    states: String,
    #[schema(required = false, value_type = Vec<Object>)]
    opened: (),
    /// Ids of drifts.
    #[schema(required = false)]
    closed: Vec<String>,
    open_count: u64,
    /// BLAKE3 over the sorted ids of all open drifts, hexadecimal.
    set_digest: String,
    #[schema(required = false, value_type = Vec<Object>)]
    moments: (),
    #[schema(required = false)]
    dropped_moments: u64,
    #[schema(required = false)]
    held_whole: bool,
    #[schema(required = false, value_type = Vec<Object>)]
    held: (),
    /// What has and has not been verified, and how long ago.
    #[schema(value_type = Object)]
    coverage: (),
    /// Milliseconds since 1970 by the agent's clock: never used for order.
    agent_clock: i64,
    uptime_seconds: u64,
}

/// The answer to a report: it is durable.
#[derive(ToSchema)]
pub(super) struct Verdict {
    /// The number that is durable now.
    acknowledged: u64,
    /// What the collector holds this instance to be.
    state: String,
    order: Option<Order>,
    /// Send the whole state set next.
    resend_all: bool,
    settings: Settings,
}

/// The order that is executing on this instance.
#[derive(ToSchema)]
struct Order {
    id: String,
    /// `probe` or `command`.
    replacer: String,
    reason: String,
}

/// How to go on.
#[derive(ToSchema)]
struct Settings {
    heartbeat_seconds: u64,
}
