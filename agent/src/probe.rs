//! Receives what the sentinel says of this instance's health; hands it to autoscalers and load balancers.
//!
//! Two paths, because one cannot serve all: `/health` speaks by its status (200 or 503) and gives the reason in its
//! body, `/health/rich` is always 200 and says it in the JSON that Azure's application health extension reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::sentinel::Health;

/// A load balancer probes from a handful of addresses; more at once is someone else.
const MAX_CONNECTIONS: usize = 32;
/// A probe that has not asked and read its answer by then is not one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A probe's request is shorter, and has fewer headers.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// After an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Listens at `address`.
///
/// # Errors
/// The address cannot be listened at.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ProbeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ProbeError { address, source })
}

/// Answers for as long as it is polled.
pub async fn serve(listener: TcpListener, health: watch::Receiver<Health>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    // Whatever goes wrong on a connection is the other side's matter.
                    let _ = tokio::time::timeout(TIMEOUT, converse(stream, health)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One question, one answer: a probe comes again, and an open connection would only hold a place.
async fn converse(
    mut stream: TcpStream,
    health: watch::Receiver<Health>,
) -> Result<(), std::io::Error> {
    let mut asked = Vec::new();
    let answer = loop {
        if stream.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&asked) {
            Ok(httparse::Status::Complete(_)) => {
                let (method, target) = (request.method, request.path);
                break answer(
                    method.unwrap_or_default(),
                    target.unwrap_or_default(),
                    &health.borrow(),
                );
            }
            Ok(httparse::Status::Partial) if asked.len() < MAX_REQUEST_BYTES => {}
            _ => break response("400 Bad Request", "", Body::Sent),
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Whether an answer carries its body: to HEAD it says only how long it would be.
#[derive(Clone, Copy)]
enum Body {
    Sent,
    Omitted,
}

fn answer(method: &str, target: &str, health: &Health) -> String {
    let body = match method {
        "GET" => Body::Sent,
        "HEAD" => Body::Omitted,
        _ => return response("404 Not Found", "", Body::Sent),
    };
    match target.split('?').next().unwrap_or_default() {
        "/health" => {
            let status = if health.healthy {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let text = serde_json::json!({ "healthy": health.healthy, "reason": health.reason });
            response(status, &text.to_string(), body)
        }
        "/health/rich" => {
            let word = if health.healthy {
                "Healthy"
            } else {
                "Unhealthy"
            };
            let text = format!("{{\"ApplicationHealthState\":\"{word}\"}}");
            response("200 OK", &text, body)
        }
        _ => response("404 Not Found", "", body),
    }
}

fn response(status: &str, text: &str, body: Body) -> String {
    let length = text.len();
    let sent = match body {
        Body::Sent => text,
        Body::Omitted => "",
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{sent}"
    )
}

/// The probe cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("listen for health probes at {address} (`probe.listen`)")]
pub struct ProbeError {
    /// Where.
    address: SocketAddr,
    /// Why not.
    source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let text = ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    #[tokio::test]
    async fn both_paths_say_what_autoscalers_read() {
        let healthy = Health {
            healthy: true,
            reason: "verified against its image".into(),
        };
        let (sender, receiver) = watch::channel(healthy);
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, receiver));
        let (status, body) = get(address, "/health").await;
        assert_eq!(
            (status, body.contains("verified against")),
            (200, true),
            "{body}"
        );
        assert_eq!(
            get(address, "/health/rich").await,
            (200, r#"{"ApplicationHealthState":"Healthy"}"#.into())
        );

        sender.send_replace(Health {
            healthy: false,
            reason: "order 7 is executing: drift".into(),
        });
        let (status, body) = get(address, "/health").await;
        assert_eq!((status, body.contains("order 7")), (503, true), "{body}");
        assert_eq!(
            get(address, "/health/rich").await,
            (200, r#"{"ApplicationHealthState":"Unhealthy"}"#.into())
        );

        let head = ask(address, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"));

        for path in [
            "/",
            "/health/",
            "/healthz",
            "/health/rich/x",
            "/../etc/passwd",
        ] {
            assert_eq!(get(address, path).await.0, 404, "{path}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn what_is_no_probe_is_turned_away() {
        let (_sender, receiver) = watch::channel(Health {
            healthy: true,
            reason: String::new(),
        });
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, receiver));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64 * 1024));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(long.as_bytes()).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        assert!(!text.starts_with(b"HTTP/1.1 200"));
        assert!(
            ask(
                address,
                "POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            .await
            .contains(" 404 ")
        );
        server.abort();
    }
}
