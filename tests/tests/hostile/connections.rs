//! Peers that are slow, silent or many: their time is limited, and everybody else is served meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::pause;
use reqwest::Version;

use crate::wire::{Wire, raw};
use crate::world::World;

/// More than the limit on a handshake and on a head, with room for a busy machine.
const HANDSHAKE_ENDS: Duration = Duration::from_secs(20);
/// More than the limit on a request.
const REQUEST_ENDS: Duration = Duration::from_secs(42);
/// An answer of a collector that is not held up.
const PROMPT: Duration = Duration::from_secs(5);

/// Waits until the other end closes; how long that took.
fn until_closed(mut stream: impl Read, limit: Duration) -> Result<(Duration, String)> {
    let start = Instant::now();
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => said.extend_from_slice(&piece[..read]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                anyhow::bail!("still open after {:?}", start.elapsed());
            }
            Err(_) => break,
        }
    }
    ensure!(
        start.elapsed() < limit,
        "closed only after {:?}",
        start.elapsed()
    );
    Ok((start.elapsed(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn slow_and_silent_peers_run_out_of_time_and_hold_nobody_up() -> Result<()> {
    let world = World::new()?;
    let mut bystander = world.clean("vm-1")?;
    let address = world.collector.agents();
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(address).context("connect")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    };
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| until_closed(connect()?, HANDSHAKE_ENDS));
        let trickling = scope.spawn(|| {
            let mut stream = connect()?;
            // The head of a TLS record that promises 16 KiB.
            stream.write_all(&[22, 3, 1, 64, 0, 1]).context("write")?;
            for _ in 0..4 {
                pause(Duration::from_secs(1));
                stream.write_all(&[0]).context("write")?;
            }
            until_closed(stream, HANDSHAKE_ENDS)
        });
        let headless = scope.spawn(|| {
            let mut stream = raw(address, None)?;
            stream
                .sock
                .set_read_timeout(Some(Duration::from_secs(60)))?;
            stream
                .write_all(b"POST /v1/enroll HTTP/1.1\r\nhost: x\r\nx-slow: ")
                .context("write")?;
            until_closed(stream, HANDSHAKE_ENDS)
        });
        let bodiless = scope.spawn(|| {
            let mut stream = raw(address, None)?;
            stream.sock.set_read_timeout(Some(Duration::from_secs(60)))?;
            let head = "POST /v1/enroll HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{";
            stream.write_all(head.as_bytes()).context("write")?;
            until_closed(stream, REQUEST_ENDS)
        });
        let speechless = scope.spawn(|| {
            let stream = raw(address, None)?;
            stream
                .sock
                .set_read_timeout(Some(Duration::from_secs(60)))?;
            until_closed(stream, REQUEST_ENDS)
        });
        let operator = scope.spawn(|| {
            let stream = TcpStream::connect(world.collector.operators()).context("connect")?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            until_closed(stream, HANDSHAKE_ENDS)
        });
        for _ in 0..5 {
            let start = Instant::now();
            bystander.report_clean()?;
            ensure!(
                start.elapsed() < PROMPT,
                "a report took {:?}",
                start.elapsed()
            );
            pause(Duration::from_millis(500));
        }
        let ended = |handle: std::thread::ScopedJoinHandle<'_, Result<(Duration, String)>>,
                     what: &str| {
            handle
                .join()
                .expect("no panic")
                .with_context(|| what.to_owned())
        };
        ended(silent, "a peer that says nothing")?;
        ended(trickling, "a handshake that trickles")?;
        ended(headless, "a head that never ends")?;
        ended(operator, "an operator that says nothing")?;
        ended(speechless, "a peer that says nothing once it is connected")?;
        let (_, said) = ended(bodiless, "a body that never comes")?;
        ensure!(
            said.is_empty() || said.starts_with("HTTP/1.1 503") || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn many_connections_are_not_the_end() -> Result<()> {
    let world = World::new()?;
    let mut bystander = world.clean("vm-1")?;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(world.collector.agents()).context("connect")?);
    }
    let fresh = Wire::to(world.collector.agents(), Some(&bystander.credentials()?))?;
    let start = Instant::now();
    let report = bystander.next(&[]);
    let answer = fresh.post("/v1/reports", &report)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        start.elapsed() < PROMPT,
        "a new connection beside 400 silent ones took {:?}",
        start.elapsed()
    );
    drop(silent);
    Ok(())
}

#[test]
fn old_and_new_http_are_the_same_to_it() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.enrol(Some("vm-1"))?;
    let old = Wire::old(world.collector.agents(), Some(&machine.credentials()?))?;
    for (wire, version) in [(&old, Version::HTTP_11), (&machine.wire, Version::HTTP_2)] {
        let answer = wire.send("POST", "/v1/reports", &[], Vec::new())?;
        assert_eq!(answer.version, version);
        answer.is_refused(400, "bad-request");
        let answer = wire.send("GET", "/v1/nothing", &[], Vec::new())?;
        answer.is_refused(404, "no-such-route");
        wire.send("GET", "/v1/reports", &[], Vec::new())?
            .is_refused(405, "method-not-allowed");
    }
    let report = machine.next(&[]);
    assert_eq!(old.post("/v1/reports", &report)?.status, 200);
    Ok(())
}

#[test]
fn requests_that_smuggle_are_not_taken_apart_twice() -> Result<()> {
    let world = World::new()?;
    let address = world.collector.agents();
    let both = "POST /v1/enroll HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\nPOST /v1/renew HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let twice = "POST /v1/enroll HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\nconnection: close\r\n\r\n{}{}{";
    let endless = format!(
        "GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "a".repeat(600_000)
    );
    let headers = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x: y\r\n".repeat(5_000)
    );
    let garbage = "\0\u{1}\u{2}PRI * HTTP/9.9\r\n\r\n".to_owned();
    for request in [both.to_owned(), twice.to_owned(), endless, headers, garbage] {
        let mut stream = raw(address, None)?;
        let answer = crate::wire::say(&mut stream, request.as_bytes()).unwrap_or_default();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer:.200}"
        );
        assert!(!answer.contains("200 OK"), "{answer:.200}");
    }
    let plain = TcpStream::connect(address).context("connect")?;
    plain.set_read_timeout(Some(Duration::from_secs(30)))?;
    (&plain)
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .context("write")?;
    let (_, said) = until_closed(&plain, HANDSHAKE_ENDS)?;
    assert!(!said.contains("HTTP/"), "no TLS, no answer: {said}");
    assert!(world.collector.is_running());
    Ok(())
}
