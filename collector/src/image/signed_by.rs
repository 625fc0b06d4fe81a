//! Receives a signature that does not hold and the keys that are known, hands on a sentence on whose it is instead.

use drift::key::TrustedKey;
use drift::signature::Envelope;

/// The most keys that a sentence names.
const NAMED: usize = 4;
/// A key id has 64 characters; what a stranger calls a key may have any number.
const SHOWN_CHARS: usize = 64;

/// The keys that a collector knows.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Whose signatures count now.
    pub trusted: Vec<TrustedKey>,
    /// Whose signatures counted until they were revoked.
    pub former: Vec<TrustedKey>,
}

impl Keys {
    /// What was expected of an envelope that no trusted key signed, and what was found.
    pub fn explain(&self, envelope: &Envelope) -> String {
        let expected = match self.trusted.len() {
            0 => "no key is trusted yet (`key add` trusts one)".to_owned(),
            _ => format!(
                "expected a signature by {}",
                list(self.trusted.iter().map(|key| key.id().to_string()))
            ),
        };
        let found = match envelope.verify(&self.former) {
            Ok(verified) => format!(
                "found one by {}, which is revoked",
                list(verified.keys.iter().map(ToString::to_string))
            ),
            Err(_) => match envelope.named_keys().next() {
                Some(_) => format!(
                    "found one that says it is by {}",
                    list(envelope.named_keys().map(shortened))
                ),
                None => "found none".to_owned(),
            },
        };
        format!("{expected}, {found}: nothing was added")
    }
}

fn list(keys: impl Iterator<Item = String>) -> String {
    let mut keys: Vec<String> = keys.take(NAMED + 1).collect();
    if keys.len() > NAMED {
        keys.truncate(NAMED);
        keys.push("others".to_owned());
    }
    keys.join(", ")
}

fn shortened(key: &str) -> String {
    let shown: String = drift::escape(key.as_bytes())
        .chars()
        .take(SHOWN_CHARS)
        .collect();
    if shown.is_empty() {
        "nobody".to_owned()
    } else {
        shown
    }
}
