//! How an instance gets its identity: the join token, the request, and the answer.
//!
//! `POST /v1/enroll` needs no client certificate. `POST /v1/renew` takes the certificate of the connection, or, where
//! that has expired, the old certificate in the body together with a request signed by the same key.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::Sha256;

/// What an operator hands to an instance so that it can enrol: one line of text, `dmjt1.` and base64url of JSON.
///
/// It carries the collector's address and the digest of its CA key, so that an image needs neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// The collector's address for agents, `https://HOST:PORT`.
    pub url: String,
    /// SHA-256 of the SPKI of the collector's CA.
    pub ca: Sha256,
    /// 256 random bits, base64url; the collector keeps only a digest of it.
    pub secret: String,
}

impl JoinToken {
    /// The longest token text.
    pub const MAX_BYTES: usize = 2048;
    const PREFIX: &str = "dmjt1.";

    /// The text that an operator copies.
    pub fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).expect("a plain struct");
        format!(
            "{}{}",
            Self::PREFIX,
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
        )
    }

    /// Reads the text, with or without white space around it.
    ///
    /// # Errors
    /// Anything that [`JoinToken::to_text`] does not write.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        if text.len() > Self::MAX_BYTES {
            return Err(BadToken);
        }
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(BadToken)?;
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| BadToken)?;
        let token: JoinToken = serde_json::from_slice(&json).map_err(|_| BadToken)?;
        if token.url.starts_with("https://") {
            Ok(token)
        } else {
            Err(BadToken)
        }
    }
}

/// A text that is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token (`driftmark-collector token create` makes one)")]
pub struct BadToken;

/// `POST /v1/enroll`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// [`JoinToken::secret`].
    pub token: String,
    /// PKCS#10 request in PEM. Only its key is used: the collector overwrites whatever names it asks for.
    pub csr: String,
    /// The cloud's id of this machine as the agent believes it: a claim, unless the token was made for that very id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_id: Option<String>,
    /// The fleet that the instance was configured for: a token of another fleet is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// The image that the agent was baked into, if its manifest verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<crate::report::ImageRef>,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(default)]
    pub boot_id: String,
}

impl EnrolRequest {
    /// The longest request, in bytes of JSON.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// The longest cloud id.
    pub const MAX_CLOUD_ID_BYTES: usize = 256;
}

/// The answer to [`EnrolRequest`] and [`RenewRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id that the collector issued.
    pub instance: String,
    /// The fleet that it belongs to.
    pub fleet: String,
    /// The certificate and its chain, PEM.
    pub certificate: String,
    /// What to trust from now on, PEM: several while the CA rotates.
    pub trust: String,
    /// When to renew, seconds from now (two thirds of the life; the agent adds its own ± 10 %).
    pub renew_after_seconds: u64,
}

/// `POST /v1/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS#10 request in PEM, signed by the same key as the certificate.
    pub csr: String,
    /// The expired certificate, PEM, where the connection has no client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
}

/// What every refusal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word, such as `token-used`, `bad-report`, `revoked`.
    pub code: String,
    /// A sentence that says what to do.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_copying_and_nothing_else_is_one() {
        let token = JoinToken {
            url: "https://10.0.0.1:8443".into(),
            ca: Sha256::of(b"ca"),
            secret: "s".into(),
        };
        assert_eq!(
            JoinToken::parse(&format!(" {}\n", token.to_text())),
            Ok(token)
        );
        for bad in ["", "dmjt1.", "dmjt1.e30", "dmjt2.e30"] {
            assert_eq!(JoinToken::parse(bad), Err(BadToken), "{bad}");
        }
    }
}
