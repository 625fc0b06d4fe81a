//! Receives what the sentinel says of this instance's health; hands it to autoscalers and load balancers.
//!
//! Two paths, because one cannot serve all: `/health` speaks by its status (200 or 503) and gives the reason in its
//! body, `/health/rich` is always 200 and says it in the JSON that Azure's application health extension reads.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::sentinel::Health;

/// A load balancer probes from a handful of addresses; more at once is someone else.
const MAX_CONNECTIONS: usize = 32;
/// A probe that has not asked by then is not one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// No connection lives longer: a probe comes again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The least that hyper reads into; a probe's request is shorter.
const BUFFER_BYTES: usize = 8 * 1024;
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
                    let _ =
                        tokio::time::timeout(CONNECTION_TIMEOUT, converse(stream, health)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(stream: TcpStream, health: watch::Receiver<Health>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &health.borrow());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES);
    // Whatever goes wrong on a connection is the other side's matter.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(method: &Method, path: &str, health: &Health) -> Response<String> {
    let asked = [Method::GET, Method::HEAD].contains(method).then_some(path);
    match asked.unwrap_or_default() {
        "/health" => {
            let status = if health.healthy {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let body = serde_json::json!({ "healthy": health.healthy, "reason": health.reason });
            response(status, body.to_string())
        }
        "/health/rich" => {
            let word = if health.healthy {
                "Healthy"
            } else {
                "Unhealthy"
            };
            response(
                StatusCode::OK,
                format!("{{\"ApplicationHealthState\":\"{word}\"}}"),
            )
        }
        _ => response(StatusCode::NOT_FOUND, String::new()),
    }
}

fn response(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
