//! The way to the collector: through a proxy, and over connections that break.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use drift::enrolment::EnrolRequest;
use driftmark_agent::client::Client;
use driftmark_agent::client::credentials::Credentials;
use driftmark_agent::client::trust::Trust;
use driftmark_agent::clock::TlsClock;
use driftmark_agent::identity::InstanceKey;

use crate::instance::{AGENT, Instance};
use crate::loopback::Loopback;

/// Passes connections on, to one place or to wherever `CONNECT` asks.
struct Relay {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// What a relay does with a new connection.
#[derive(Clone, Copy)]
enum Door {
    To(SocketAddr),
    Proxy,
    /// A proxy that wants to know who asks.
    Closed,
}

impl Relay {
    fn start(door: Door) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            open: Arc::default(),
        };
        let (asked, open) = (relay.asked.clone(), relay.open.clone());
        std::thread::spawn(move || {
            for inner in listener.incoming() {
                let mut inner = inner.unwrap();
                let place = match door {
                    Door::To(address) => address.to_string(),
                    Door::Proxy | Door::Closed => {
                        let head = head_of(&mut inner);
                        asked.lock().unwrap().push(head.clone());
                        head.split(' ').nth(1).unwrap().to_owned()
                    }
                };
                match door {
                    Door::To(_) => {}
                    Door::Proxy => inner.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap(),
                    Door::Closed => {
                        let answer = b"HTTP/1.1 407 Who \x1b[31masks?\r\nX: y\r\n\r\n";
                        inner.write_all(answer).unwrap();
                        continue;
                    }
                }
                let outer = TcpStream::connect(place).unwrap();
                open.lock().unwrap().push(inner.try_clone().unwrap());
                pass_on(inner.try_clone().unwrap(), outer.try_clone().unwrap());
                pass_on(outer, inner);
            }
        });
        relay
    }

    /// Ends every connection, and says how many there were.
    fn cut(&self) -> usize {
        let open: Vec<_> = self.open.lock().unwrap().drain(..).collect();
        for stream in &open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        open.len()
    }
}

fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn enroll(collector: &Loopback, surroundings: &[(&str, &str)]) -> Output {
    let instance = Instance::new(&collector.token());
    instance.bake();
    let mut command = Command::new(AGENT);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    command.envs(surroundings.iter().copied());
    command.args(["enroll", "--config"]);
    command.arg(instance.path("agent.toml")).output().unwrap()
}

#[test]
fn the_way_leads_through_the_proxy_of_the_environment() {
    let (collector, proxy) = (Loopback::start(), Relay::start(Door::Proxy));
    let url = format!("http://agent:p%40ss@{}", proxy.address);
    let output = enroll(&collector, &[("HTTPS_PROXY", &url)]);
    assert!(output.status.success(), "{output:?}");
    let asked = proxy.asked.lock().unwrap();
    let wanted = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nProxy-Authorization: Basic YWdlbnQ6cEBzcw==\r\n\r\n",
        collector.address
    );
    assert_eq!(*asked, [wanted]);
    assert_eq!(collector.world.lock().unwrap().enrol_requests.len(), 1);
}

#[test]
fn a_collector_that_no_proxy_names_is_reached_directly() {
    let (collector, proxy) = (Loopback::start(), Relay::start(Door::Closed));
    let url = format!("http://{}", proxy.address);
    let surroundings = [("https_proxy", &*url), ("no_proxy", "127.0.0.0/8")];
    let output = enroll(&collector, &surroundings);
    assert!(output.status.success(), "{output:?}");
    assert!(proxy.asked.lock().unwrap().is_empty());
}

#[test]
fn a_proxy_that_cannot_be_used_is_not_gone_around() {
    let (collector, proxy) = (Loopback::start(), Relay::start(Door::Closed));
    let url = format!("http://{}", proxy.address);
    for (url, why) in [
        (
            &*url,
            "the proxy makes no tunnel: `HTTP/1.1 407 Who \\x1b[31masks?`",
        ),
        ("socks5://127.0.0.1:1", "no other can be used"),
    ] {
        let output = enroll(&collector, &[("ALL_PROXY", url)]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(why), "{told}");
    }
    assert!(collector.world.lock().unwrap().enrol_requests.is_empty());
}

#[test]
fn requests_share_a_connection_and_outlive_one_that_broke() {
    let collector = Loopback::start();
    let relay = Relay::start(Door::To(collector.address));
    let home = tempfile::tempdir().unwrap();
    let key = InstanceKey::load_or_make(&home.path().join("key")).unwrap();
    let request = EnrolRequest {
        token: "a secret".into(),
        csr: key.request().unwrap(),
        cloud_id: None,
        fleet: None,
        image: None,
        boot_id: String::new(),
    };
    let clock = TlsClock::default();
    let client = Client::new(
        &format!("https://{}", relay.address),
        Arc::new(Trust::pinned(collector.ca)),
        Arc::new(Credentials::none(&clock)),
        &clock,
    );
    let client = client.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ask = || runtime.block_on(client.enrol(&request)).unwrap();
    ask();
    ask();
    assert_eq!(relay.cut(), 1);
    ask();
    ask();
    assert_eq!(relay.cut(), 1);
    assert_eq!(collector.world.lock().unwrap().enrol_requests.len(), 4);
}
