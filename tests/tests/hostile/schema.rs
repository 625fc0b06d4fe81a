//! Receives a value and a schema of an OpenAPI document; hands on where the value does not fit.
//!
//! The part of JSON Schema that the document uses, and an error for every word of it that is not understood: a check
//! that skips what it does not know would find everything good.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Words that say nothing about whether a value fits.
const SILENT: [&str; 6] = [
    "description",
    "title",
    "example",
    "examples",
    "format",
    "default",
];
/// Words that are understood.
const UNDERSTOOD: [&str; 16] = [
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "items",
    "allOf",
    "oneOf",
    "anyOf",
    "additionalProperties",
    "propertyNames",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
];

/// Whether `value` fits `schema`, a part of `document`.
///
/// # Errors
/// Where it does not, or what of the schema is not understood.
pub(crate) fn fits(value: &Value, schema: &Value, document: &Value) -> Result<()> {
    let words = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(words) => words,
        other => bail!("{other} is no schema"),
    };
    for word in words.keys() {
        let known = SILENT.contains(&word.as_str()) || UNDERSTOOD.contains(&word.as_str());
        ensure!(known, "`{word}` of {schema} is not understood");
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let place = reference
            .strip_prefix('#')
            .with_context(|| format!("{reference} is elsewhere"))?;
        let target = document
            .pointer(place)
            .with_context(|| format!("{reference} is not there"))?;
        fits(value, target, document).with_context(|| reference.to_owned())?;
    }
    if let Some(kind) = words.get("type") {
        let kinds: Vec<&str> = match kind {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        ensure!(
            kinds.iter().any(|kind| is(value, kind)),
            "{value} is none of {kinds:?}"
        );
    }
    if let Some(allowed) = words.get("enum") {
        ensure!(
            allowed
                .as_array()
                .is_some_and(|allowed| allowed.contains(value)),
            "{value} is none of {allowed}"
        );
    }
    if let Some(only) = words.get("const") {
        ensure!(only == value, "{value} is not {only}");
    }
    combined(value, words, document)?;
    match value {
        Value::Object(_) => object(value, schema, document),
        Value::Array(items) => {
            let count = items.len() as u64;
            ensure!(
                words
                    .get("minItems")
                    .and_then(Value::as_u64)
                    .is_none_or(|least| count >= least),
                "too few items"
            );
            ensure!(
                words
                    .get("maxItems")
                    .and_then(Value::as_u64)
                    .is_none_or(|most| count <= most),
                "too many items"
            );
            match words.get("items") {
                Some(schema) => items
                    .iter()
                    .try_for_each(|item| fits(item, schema, document)),
                None => Ok(()),
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().context("a number")?;
            let bound = |word: &str| words.get(word).and_then(Value::as_f64);
            ensure!(
                bound("minimum").is_none_or(|least| number >= least),
                "{number} is too small"
            );
            ensure!(
                bound("maximum").is_none_or(|most| number <= most),
                "{number} is too large"
            );
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

fn combined(value: &Value, words: &serde_json::Map<String, Value>, document: &Value) -> Result<()> {
    let list = |word: &str| words.get(word).and_then(Value::as_array);
    for schema in list("allOf").into_iter().flatten() {
        fits(value, schema, document)?;
    }
    for word in ["oneOf", "anyOf"] {
        let Some(schemas) = list(word) else { continue };
        let fit = schemas
            .iter()
            .filter(|schema| fits(value, schema, document).is_ok())
            .count();
        ensure!(
            if word == "oneOf" { fit == 1 } else { fit > 0 },
            "{value} fits {fit} of {word} {schemas:?}"
        );
    }
    Ok(())
}

fn object(value: &Value, schema: &Value, document: &Value) -> Result<()> {
    let fields = value.as_object().context("an object")?;
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        ensure!(fields.contains_key(name), "`{name}` is missing in {value}");
    }
    for (name, field) in fields {
        let known = schema["properties"].get(name);
        match (known, schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                fits(field, schema, document).with_context(|| format!("`{name}`"))?;
            }
            (None, Some(Value::Bool(false))) => bail!("`{name}` is not in the schema"),
            (None, _) => {}
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        _ => false,
    }
}

#[test]
fn a_value_that_does_not_fit_is_found() {
    use serde_json::json;
    let document =
        json!({"components": {"schemas": {"Name": {"type": "string", "enum": ["a", "b"]}}}});
    let schema = json!({
        "type": "object", "required": ["name", "count"], "additionalProperties": false,
        "properties": {
            "name": {"$ref": "#/components/schemas/Name"},
            "count": {"type": ["integer", "null"], "minimum": 0},
            "list": {"type": "array", "items": {"oneOf": [{"type": "null"}, {"type": "boolean"}]}},
        },
    });
    let check = |value: Value| fits(&value, &schema, &document).is_ok();
    assert!(check(
        json!({"name": "a", "count": 1, "list": [true, null]})
    ));
    assert!(check(json!({"name": "b", "count": null})));
    assert!(!check(json!({"name": "c", "count": 1})));
    assert!(!check(json!({"name": "a"})));
    assert!(!check(json!({"name": "a", "count": -1})));
    assert!(!check(json!({"name": "a", "count": 1.5})));
    assert!(!check(json!({"name": "a", "count": 1, "list": [1]})));
    assert!(!check(json!({"name": "a", "count": 1, "more": 1})));
    assert!(
        fits(&json!(1), &json!({"if": {}}), &document).is_err(),
        "what is not understood is an error"
    );
}
