//! The document that describes the operators' port, held against the running server: every route of it answers as it
//! says, every route there is, is in it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::samples::{Body, Sample, samples};
use crate::schema::fits;
use crate::wire::{Answer, Wire};
use crate::world::World;

/// A fleet whose orders wait for an operator.
const APPROVED: &str = "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"approve\"\ngrace = \"0s\"\nparallel = 5\n\
                        stop-above = \"100%\"\nreplacer = \"probe\"\n";
/// The routes that the command line uses.
const OF_THE_COMMAND_LINE: [(&str, &str); 27] = [
    ("post", "/v1/tokens"),
    ("get", "/v1/tokens"),
    ("post", "/v1/tokens/{id}/revoke"),
    ("post", "/v1/operators"),
    ("get", "/v1/operators"),
    ("post", "/v1/operators/{name}/revoke"),
    ("get", "/v1/images"),
    ("post", "/v1/images"),
    ("get", "/v1/images/{name}/{version}"),
    ("post", "/v1/images/{name}/{version}/revoke"),
    ("post", "/v1/images/{name}/{version}/restore"),
    ("post", "/v1/images/{name}/{version}/{build}/artifacts"),
    ("get", "/v1/channels"),
    ("post", "/v1/channels/{channel}"),
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("post", "/v1/keys/{id}/revoke"),
    ("get", "/v1/instances"),
    ("get", "/v1/instances/{id}"),
    ("post", "/v1/instances/{id}/hold"),
    ("post", "/v1/instances/{id}/release"),
    ("post", "/v1/instances/{id}/retire"),
    ("get", "/v1/orders"),
    ("get", "/v1/orders/{id}"),
    ("post", "/v1/orders/{id}/approve"),
    ("post", "/v1/orders/{id}/cancel"),
    ("put", "/v1/orders/{id}/replacement"),
];

struct Stage {
    world: World,
    document: Value,
    viewer: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let world = World::with(APPROVED, "heartbeat = \"60s\"")?;
        let answer = Wire::to(world.collector.operators(), None)?.send(
            "GET",
            "/v1/openapi.json",
            &[],
            Vec::new(),
        )?;
        let document = answer.granted()?;
        let made: Value = world
            .ask(
                "POST",
                "/v1/operators",
                &json!({"name": "looker", "role": "viewer"}),
            )?
            .granted()?;
        let viewer = made["token"].as_str().context("a token")?.to_owned();
        Ok(Self {
            world,
            document,
            viewer,
        })
    }

    fn operations(&self) -> Result<BTreeSet<(String, String)>> {
        let paths = self.document["paths"].as_object().context("paths")?;
        Ok(paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(method, _)| method.clone());
                methods.map(move |method| (method, path.clone()))
            })
            .collect())
    }

    fn send(&self, sample: &Sample, token: Option<&str>, body: Option<&[u8]>) -> Result<Answer> {
        let wire = Wire::to(self.world.collector.operators(), None)?;
        let bearer = token.map(|token| format!("Bearer {token}"));
        let (kind, bytes) = match &sample.body {
            Body::None => (None, Vec::new()),
            Body::Json(value) => (Some("application/json"), serde_json::to_vec(value)?),
            Body::Bytes(bytes) => (Some("application/octet-stream"), bytes.clone()),
        };
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(kind.map(|kind| ("content-type", kind)));
        wire.send(
            &sample.method.to_uppercase(),
            &sample.path,
            &headers,
            body.map_or(bytes, <[u8]>::to_vec),
        )
    }

    /// Whether an answer is one that the document has for this operation.
    fn is_as_described(&self, sample: &Sample, answer: &Answer) -> Result<()> {
        let (method, path) = (sample.method, sample.template);
        let shown = || {
            format!(
                "{method} {path} answered {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )
        };
        let responses = &self.document["paths"][path][method]["responses"];
        let response = responses
            .get(answer.status.to_string())
            .or_else(|| responses.get("default"));
        let response = response.with_context(|| format!("{} has no such status", shown()))?;
        let said = response["description"].as_str().unwrap_or_default();
        ensure!(
            !said.is_empty(),
            "{method} {path} {} has no description, which OpenAPI 3.1 requires",
            answer.status
        );
        let schema = &response["content"]["application/json"]["schema"];
        ensure!(
            !schema.is_null(),
            "{method} {path} {} has a body and no schema",
            answer.status
        );
        let kind = answer
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        ensure!(
            kind.starts_with("application/json"),
            "{} as {kind:?}",
            shown()
        );
        fits(&answer.json()?, schema, &self.document).with_context(shown)
    }
}

#[test]
fn every_route_answers_as_the_document_says() -> Result<()> {
    let stage = Stage::new()?;
    let samples = samples(&stage.world)?;
    let asked: BTreeSet<(String, String)> = samples
        .iter()
        .map(|sample| (sample.method.to_owned(), sample.template.to_owned()))
        .collect();
    assert_eq!(
        asked,
        stage.operations()?,
        "every route of the document is asked here, and no others"
    );
    let admin = stage.world.admin_token()?;
    let mut wrong = Vec::new();
    for sample in &samples {
        let mut check = |what: &str, answer: Result<Answer>, allowed: &[u16]| {
            let answer = answer.and_then(|answer| {
                ensure!(allowed.contains(&answer.status), "{answer:?}");
                stage.is_as_described(sample, &answer)
            });
            if let Err(error) = answer {
                wrong.push(format!(
                    "{} {} {what}: {error:#}",
                    sample.method, sample.path
                ));
            }
        };
        let is_public = matches!(sample.template, "/healthz" | "/readyz");
        if !is_public {
            check("without a token", stage.send(sample, None, None), &[401]);
            check(
                "with a wrong one",
                stage.send(sample, Some("dmop1.x"), None),
                &[401],
            );
            check(
                "as a viewer",
                stage.send(sample, Some(&stage.viewer), None),
                &[200, 403],
            );
        }
        if !matches!(sample.body, Body::None) {
            for garbage in [&b"{"[..], b"[]", b"\"\"", b"{\"reason\":7}", b"\xff", b""] {
                check(
                    "with garbage",
                    stage.send(sample, Some(&admin), Some(garbage)),
                    &[400, 422],
                );
            }
        }
        if sample.template.contains('{') {
            let path = sample.path.split('?').next().unwrap_or_default();
            let elsewhere: Vec<&str> = path
                .split('/')
                .enumerate()
                .map(|(at, it)| if at == 3 { "nobody" } else { it })
                .collect();
            let body = match &sample.body {
                Body::None => Body::None,
                Body::Json(value) => Body::Json(value.clone()),
                Body::Bytes(bytes) => Body::Bytes(bytes.clone()),
            };
            let elsewhere = Sample {
                path: elsewhere.join("/"),
                body,
                ..*sample
            };
            let allowed: &[u16] = if sample.template.starts_with("/v1/channels") {
                &[200]
            } else {
                &[404]
            };
            check(
                "of what is not there",
                stage.send(&elsewhere, Some(&admin), None),
                allowed,
            );
        }
        if sample.template == "/v1/orders/{id}/replacement" {
            let id = sample.path.split('/').nth(3).context("an id")?;
            stage.world.wait("the order to execute", || {
                let order: Value = stage
                    .world
                    .ask("GET", &format!("/v1/orders/{id}"), &Value::Null)?
                    .granted()?;
                Ok((order["state"] == "executing").then_some(()))
            })?;
        }
        check(
            "as an admin",
            stage.send(sample, Some(&admin), None),
            &[200],
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn the_command_line_asks_for_nothing_that_is_not_described() -> Result<()> {
    let stage = Stage::new()?;
    let described = stage.operations()?;
    for (method, path) in OF_THE_COMMAND_LINE
        .iter()
        .chain(&[("get", "/v1/ledger"), ("get", "/v1/ledger/verify")])
    {
        assert!(
            described.contains(&((*method).to_owned(), (*path).to_owned())),
            "{method} {path}"
        );
    }
    assert_eq!(stage.document["openapi"], "3.1.0");
    Ok(())
}

#[test]
fn what_is_not_described_is_not_there() -> Result<()> {
    let stage = Stage::new()?;
    let world = &stage.world;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/instances"),
        ("GET", "/v1/instances/"),
        ("GET", "//v1/instances"),
        ("GET", "/v1/../v1/instances/x/y/z"),
        ("GET", "/metrics"),
        ("GET", "/debug"),
        ("POST", "/v1/enroll"),
        ("POST", "/v1/reports"),
        ("GET", "/v1/openapi.yaml"),
    ] {
        println!("{method} {path}");
        world
            .ask(method, path, &Value::Null)?
            .is_refused(404, "no-such-route");
    }
    for (method, path) in [
        ("DELETE", "/v1/instances"),
        ("PATCH", "/v1/keys"),
        ("PUT", "/v1/operators"),
        ("TRACE", "/v1/ledger"),
        ("DELETE", "/v1/ledger"),
        ("POST", "/v1/ledger"),
        ("OPTIONS", "/v1/ledger"),
        ("SQUEAL", "/v1/ledger"),
    ] {
        println!("{method} {path}");
        world
            .ask(method, path, &Value::Null)?
            .is_refused(405, "method-not-allowed");
    }
    Ok(())
}
