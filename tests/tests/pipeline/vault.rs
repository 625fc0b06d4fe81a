//! Azure's identity endpoint and key vault as their documentation describes them, over a real P-256 key: an answer is
//! given to no other question.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};

/// What the vault signs: it is given a digest only, so it knows whose digest it is.
const BYTES: &[u8] = b"the bytes";

pub(crate) struct Vault {
    url: String,
    public: Vec<u8>,
}

impl Vault {
    pub(crate) fn start(_directory: &Path) -> Result<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| anyhow::anyhow!("make a key"))?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .map_err(|_| anyhow::anyhow!("read a key"))?;
        let public = key.public_key().as_ref().to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(&stream, &key, &random);
            }
        });
        Ok(Self { url, public })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<()> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public)
            .verify(bytes, signature)
            .map_err(|_| anyhow::anyhow!("{} bytes that are no signature", signature.len()))
    }
}

fn answer(stream: &TcpStream, key: &EcdsaKeyPair, random: &SystemRandom) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let has = |wanted: &str| head.iter().any(|line| line.eq_ignore_ascii_case(wanted));
    let length = head.iter().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let digest = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, BYTES));
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = match head.first().map(String::as_str) {
        Some(
            "GET /identity?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net HTTP/1.1",
        ) if has("Metadata: true") => Some("{\"access_token\":\"of the machine\"}".to_owned()),
        Some("POST /keys/images/1/sign?api-version=7.4 HTTP/1.1")
            if has("Authorization: Bearer of the machine")
                && asked == serde_json::json!({"alg": "ES256", "value": digest}) =>
        {
            let signature = key
                .sign(random, BYTES)
                .map_err(|_| anyhow::anyhow!("sign"))?;
            Some(format!(
                "{{\"kid\":\"x\",\"value\":\"{}\"}}",
                URL_SAFE_NO_PAD.encode(signature)
            ))
        }
        _ => None,
    };
    let (status, body) = said.map_or(("403 Forbidden", String::new()), |said| ("200 OK", said));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}
