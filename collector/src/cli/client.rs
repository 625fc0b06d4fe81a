//! Receives where the collector is and who asks; hands on its JSON answers.

use std::path::{Path, PathBuf};

use drift::enrolment::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{self, ConfigError};

/// An answer longer than this is not read: far above a full page of anything.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Registering an image can take a while; nothing else does.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// How to find the collector: flags, or the variables of the same meaning, or the data directory of this machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Address {
    /// The collector's data directory: its operator token, CA and address are taken from there.
    #[arg(long, global = true, value_name = "DIR", env = "DRIFTMARK_DATA")]
    pub data: Option<PathBuf>,
    /// The operators' address, https://HOST:PORT.
    #[arg(long, global = true, env = "DRIFTMARK_URL")]
    pub url: Option<String>,
    /// The collector's CA certificate, PEM.
    #[arg(long, global = true, value_name = "FILE", env = "DRIFTMARK_CA")]
    pub ca: Option<PathBuf>,
    /// The operator token in a file.
    #[arg(long, global = true, value_name = "FILE", env = "DRIFTMARK_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// A connection to a collector's operators' interface.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// Why a command did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file that says where the collector is cannot be read.
    #[error("read {} (is the collector running? `--data DIR` says where its data is)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The operator token lies open.
    #[error("use the operator token")]
    Token(#[source] ConfigError),
    /// The address or CA makes no sense.
    #[error("use the collector's address and CA certificate")]
    Setup(#[source] reqwest::Error),
    /// No answer.
    #[error("ask the collector at {url}")]
    Ask {
        /// Its address.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is not what was asked for.
    #[error("{} ({})", drift::escape(refusal.message.as_bytes()), drift::escape(refusal.code.as_bytes()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the collector says.
        refusal: Refusal,
    },
    /// Something else answered, or another version.
    #[error("understand the answer of {url}")]
    Answer {
        /// Its address.
        url: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Longer than anything that the collector says.
    #[error("the answer of {url} is too long")]
    TooLong {
        /// Its address.
        url: String,
    },
}

impl Client {
    /// A client for the collector at `address`.
    ///
    /// # Errors
    /// The token, CA or address cannot be had.
    pub fn of(address: &Address) -> Result<Self, ClientError> {
        let data = address
            .data
            .clone()
            .unwrap_or_else(config::default_data_directory);
        let token = match std::env::var("DRIFTMARK_TOKEN") {
            Ok(token) => token,
            Err(_) => read_token(
                address
                    .token_file
                    .as_deref()
                    .unwrap_or(&data.join("operator.token")),
            )?,
        };
        let url = match &address.url {
            Some(url) => url.clone(),
            None => read(&data.join("operators.url"))?,
        };
        let ca = read(address.ca.as_deref().unwrap_or(&data.join("ca.pem")))?;
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(ClientError::Setup)?;
        crate::listen::install_crypto();
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .https_only(true)
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Client {
            http,
            url: url.trim().trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.http.get(format!("{}{path}", self.url))).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.ask(self.http.post(format!("{}{path}", self.url)).json(body))
            .await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn put<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.ask(self.http.put(format!("{}{path}", self.url)).json(body))
            .await
    }

    /// `POST path` with bytes as they are.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let request = self.http.post(format!("{}{path}", self.url));
        self.ask(
            request
                .header("content-type", "application/octet-stream")
                .body(body),
        )
        .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let ask = |source| ClientError::Ask {
            url: self.url.clone(),
            source,
        };
        let mut response = request.bearer_auth(&self.token).send().await.map_err(ask)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(ask)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLong {
                    url: self.url.clone(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
                code: "unexpected".into(),
                message: format!("it answered {status}"),
            });
            return Err(ClientError::Refused {
                status: status.as_u16(),
                refusal,
            });
        }
        serde_json::from_slice(&body).map_err(|source| ClientError::Answer {
            url: self.url.clone(),
            source,
        })
    }
}

/// The token: a file that nobody but its owner may read or write.
fn read_token(path: &Path) -> Result<String, ClientError> {
    config::read_private(path).map_err(|error| match error {
        ConfigError::Read { path, source } => ClientError::Read { path, source },
        open => ClientError::Token(open),
    })
}

fn read(path: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(path).map_err(|source| ClientError::Read {
        path: path.to_owned(),
        source,
    })
}

/// One segment of a path, or one value of a query, as it may stand in a URL.
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
