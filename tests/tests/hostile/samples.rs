//! Receives a world; hands on one request for every route of the operators' port, each of which is to succeed.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine::intrusion;
use crate::world::World;

/// One request that is to succeed.
pub(crate) struct Sample {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) path: String,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

/// A request for every route of the operators' port, in an order in which all of them succeed.
pub(crate) fn samples(world: &World) -> Result<Vec<Sample>> {
    let mut machine = world.clean("vm-1")?;
    let mut second = world.clean("vm-2")?;
    world.clean("vm-3")?;
    world.bake("2", "the second")?;
    machine.report_drift(&[intrusion(1)])?;
    second.report_drift(&[intrusion(2)])?;
    let orders = world.wait("two orders that wait for approval", || {
        let orders: Vec<Value> = world.ask("GET", "/v1/orders", &Value::Null)?.granted()?;
        let waiting = |order: &Value| {
            order["why"]
                .as_str()
                .is_some_and(|why| why.contains("waits for approval"))
        };
        Ok((orders.iter().filter(|order| waiting(order)).count() == 2).then_some(orders))
    })?;
    let order_of = |id: &str| -> Result<String> {
        let order = orders
            .iter()
            .find(|order| order["instance"] == id)
            .context("an order")?;
        Ok(order["id"].as_str().context("an id")?.to_owned())
    };
    let (first_order, second_order) = (order_of(&machine.id)?, order_of(&second.id)?);
    let token: Value = world
        .ask(
            "POST",
            "/v1/tokens",
            &json!({"fleet": "web", "ttl_seconds": 60, "uses": 1}),
        )?
        .granted()?;
    let token = token["id"].as_str().context("an id")?.to_owned();
    let keys: Vec<Value> = world.ask("GET", "/v1/keys", &Value::Null)?.granted()?;
    let key = keys[0]["id"].as_str().context("a key")?.to_owned();
    world.agent(["keygen", "--output", &world.text("more-keys")])?;
    let pem = std::fs::read_to_string(world.path("more-keys/driftmark.pub"))?;
    let signature = std::fs::read(world.path("2/image.manifest.sig"))?;
    let upload = [
        signature.clone(),
        std::fs::read(world.path("2/image.manifest"))?,
    ]
    .concat();
    let because = || Body::Json(json!({"reason": "because"}));
    let mut samples = Vec::new();
    let mut add = |method, template, path: String, body| {
        samples.push(Sample {
            method,
            template,
            path,
            body,
        });
    };
    let instance = |verb: &str| format!("/v1/instances/{}{verb}", machine.id);
    for path in [
        "/healthz",
        "/readyz",
        "/v1/tokens",
        "/v1/operators",
        "/v1/images",
        "/v1/channels",
        "/v1/keys",
    ] {
        add("get", path, path.into(), Body::None);
    }
    for (template, query) in [
        ("/v1/instances", "?fleet=web&state=drifted&limit=1&after=0"),
        ("/v1/orders", "?fleet=web&all=true&limit=5"),
        ("/v1/ledger", "?limit=50&before=40&fleet=web"),
        ("/v1/ledger/verify", ""),
    ] {
        add("get", template, template.to_owned(), Body::None);
        add("get", template, format!("{template}{query}"), Body::None);
    }
    let new_token = json!({"fleet": "web", "cloud_id": "vm-9", "ttl_seconds": 60, "uses": 1});
    add(
        "post",
        "/v1/tokens",
        "/v1/tokens".into(),
        Body::Json(new_token),
    );
    add(
        "post",
        "/v1/tokens/{id}/revoke",
        format!("/v1/tokens/{token}/revoke"),
        Body::None,
    );
    let new_operator = json!({"name": "another", "role": "viewer", "fleets": ["web"]});
    add(
        "post",
        "/v1/operators",
        "/v1/operators".into(),
        Body::Json(new_operator),
    );
    add(
        "post",
        "/v1/operators/{name}/revoke",
        "/v1/operators/another/revoke".into(),
        Body::None,
    );
    add(
        "post",
        "/v1/keys",
        "/v1/keys".into(),
        Body::Json(json!({ "pem": pem })),
    );
    let images = format!(
        "/v1/images?signature_bytes={}&expires_at_ms=4000000000000&name=web&version=2&build=test",
        signature.len()
    );
    add("post", "/v1/images", images, Body::Bytes(upload));
    add(
        "get",
        "/v1/images/{name}/{version}",
        "/v1/images/web/2".into(),
        Body::None,
    );
    let artifacts = "/v1/images/{name}/{version}/{build}/artifacts";
    let ami = json!({"platform": "aws", "ids": {"eu-west-1": "ami-0123456789abcdef0"}});
    add(
        "post",
        artifacts,
        "/v1/images/web/2/test/artifacts".into(),
        Body::Bytes(serde_json::to_vec(&ami)?),
    );
    let by_artifact = "/v1/images?artifact=ami-0123456789abcdef0";
    add("get", "/v1/images", by_artifact.into(), Body::None);
    let promotion = json!({"name": "web", "version": "1", "reason": "because"});
    add(
        "post",
        "/v1/channels/{channel}",
        "/v1/channels/canary".into(),
        Body::Json(promotion),
    );
    add(
        "get",
        "/v1/instances/{id}",
        instance("?limit=10&grouped=true"),
        Body::None,
    );
    add(
        "post",
        "/v1/instances/{id}/hold",
        instance("/hold"),
        because(),
    );
    add(
        "post",
        "/v1/instances/{id}/release",
        instance("/release"),
        Body::Json(json!({"reason": "x", "renewal": true})),
    );
    add(
        "get",
        "/v1/orders/{id}",
        format!("/v1/orders/{first_order}"),
        Body::None,
    );
    let cancel = Body::Json(json!({"reason": "because", "again": false}));
    add(
        "post",
        "/v1/orders/{id}/cancel",
        format!("/v1/orders/{second_order}/cancel"),
        cancel,
    );
    add(
        "post",
        "/v1/orders/{id}/approve",
        format!("/v1/orders/{first_order}/approve"),
        because(),
    );
    let named = Body::Json(json!({"cloud_id": "vm-8"}));
    add(
        "put",
        "/v1/orders/{id}/replacement",
        format!("/v1/orders/{first_order}/replacement"),
        named,
    );
    add(
        "post",
        "/v1/instances/{id}/retire",
        format!("/v1/instances/{}/retire", second.id),
        because(),
    );
    add(
        "post",
        "/v1/images/{name}/{version}/revoke",
        "/v1/images/web/2/revoke".into(),
        because(),
    );
    add(
        "post",
        "/v1/images/{name}/{version}/restore",
        "/v1/images/web/2/restore".into(),
        because(),
    );
    add(
        "post",
        "/v1/keys/{id}/revoke",
        format!("/v1/keys/{key}/revoke"),
        because(),
    );
    Ok(samples)
}
