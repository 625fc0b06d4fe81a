//! Receives a JSON value, and hands on the one text that stands for it.
//!
//! Keys are sorted by their bytes and there is no white space. Numbers are as `serde_json` writes them: what the ledger
//! holds are integers.

use serde_json::Value;

/// The canonical text of a JSON value: the same value gives the same bytes, in whatever order its keys were written.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| key.as_bytes());
            list(text, ['{', '}'], sorted, |text, (key, value)| {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            });
        }
        Value::Array(items) => list(text, ['[', ']'], items, |text, item| write(item, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

fn list<T>(
    text: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut String, T),
) {
    text.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        each(text, item);
    }
    text.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_nothing_is_spaced() {
        let value = json!({"b": [1, {"z": null, "a": "\"\n"}], "a": true, "": -1});
        assert_eq!(
            canonical_json(&value),
            r#"{"":-1,"a":true,"b":[1,{"a":"\"\n","z":null}]}"#
        );
    }

    #[test]
    fn the_text_reads_back_as_the_value() {
        let value = json!({"x": [], "y": {}, "ü": "\u{1}"});
        assert_eq!(
            serde_json::from_str::<Value>(&canonical_json(&value)).unwrap(),
            value
        );
    }
}
