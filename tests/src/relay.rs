//! Receives a lab; hands on a way out of it: an HTTP proxy on its network, at [`ADDRESS`], that reaches this machine's.
//!
//! A socket stays in the network that it was made in. So one thread goes there, makes the socket, and ends; what comes
//! in is passed on from here. It is for `apt-get update` against the real mirror, and knows no more than that needs.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::Lab;

/// Where it listens.
pub const ADDRESS: &str = "10.77.0.1:3128";
/// Of a request's head, which is all that is looked at.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Opens the way out of a lab; it stays open as long as this process.
///
/// # Errors
/// The lab's network cannot be entered.
pub fn open(lab: &Lab) -> Result<()> {
    let network = File::open(format!("/proc/{}/ns/net", lab.sandbox().anchor()))
        .context("open the lab's network")?;
    let listening = std::thread::spawn(move || -> io::Result<TcpListener> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpListener::bind(ADDRESS)
    });
    let listener = listening
        .join()
        .expect("listening does not panic")
        .context("listen in the lab")?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Whoever asked sees that the connection ended.
                let _ = pass(client);
            });
        }
    });
    Ok(())
}

/// Passes one connection on to the host that its first request names; apt uses one for each host.
fn pass(mut client: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = client.read(&mut buffer)?;
        if length == 0 || head.len() > MAX_HEAD_BYTES {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let host = text
        .split(' ')
        .nth(1)
        .and_then(|address| address.strip_prefix("http://")?.split('/').next())
        .ok_or(io::ErrorKind::InvalidInput)?;
    let address = match host.contains(':') {
        true => host.to_owned(),
        false => format!("{host}:80"),
    };
    let mut server = TcpStream::connect(address)?;
    server.write_all(&head)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        let copied = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        copied
    });
    let asked = io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = answers.join();
    asked.map(drop)
}
