//! Receives the environment and a host; hands on the proxy that the way there leads through, and a tunnel through it.
//!
//! The variables are curl's: `HTTPS_PROXY`, else `ALL_PROXY`, but for what `NO_PROXY` names; capital letters first. A
//! proxy that this agent cannot use is an error: going around it is not what was asked for.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::target::without_brackets;
use crate::log::peer_words;

/// The port of a proxy that names none.
const HTTP: u16 = 80;
/// A proxy's answer to `CONNECT` has a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024;

/// A proxy that makes tunnels (RFC 9110 §9.3.6).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// `USER:PASSWORD`.
    credentials: Option<String>,
}

impl Proxy {
    /// The proxy on the way to `host`, by this process's environment.
    ///
    /// # Errors
    /// There is one, and it is none that can be used.
    pub(super) fn for_host(host: &str) -> Result<Option<Self>, ProxyError> {
        let word = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let value = std::env::var(name).or_else(|_| std::env::var(lower));
            value.ok().filter(|value| !value.is_empty())
        };
        let Some(proxy) = word("HTTPS_PROXY").or_else(|| word("ALL_PROXY")) else {
            return Ok(None);
        };
        if word("NO_PROXY").is_some_and(|list| names(&list, host)) {
            return Ok(None);
        }
        Self::parse(&proxy).ok_or(ProxyError::Unusable).map(Some)
    }

    /// Reads `[http://][USER:PASSWORD@]HOST[:PORT]`.
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let is_plain = uri.scheme_str().is_none_or(|scheme| scheme == "http");
        let credentials = authority.as_str().rsplit_once('@');
        let credentials = credentials.map(|(user, _)| match user.contains(':') {
            true => percent_decoded(user),
            false => percent_decoded(user) + ":",
        });
        is_plain.then(|| Proxy {
            host: without_brackets(authority.host()).to_owned(),
            port: authority.port_u16().unwrap_or(HTTP),
            credentials,
        })
    }

    /// Makes a tunnel to `place`, `HOST:PORT`, of a connection to this proxy.
    pub(super) async fn tunnel(
        &self,
        mut stream: TcpStream,
        place: &str,
    ) -> Result<TcpStream, ProxyError> {
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(credentials) = &self.credentials {
            let words = BASE64.encode(credentials);
            request += &format!("Proxy-Authorization: Basic {words}\r\n");
        }
        request += "\r\n";
        let broken = ProxyError::Broken;
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        // Nothing follows it: in TLS the client speaks first.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_ANSWER_BYTES {
                return Err(refused(&answer));
            }
            match stream.read_buf(&mut answer).await.map_err(broken)? {
                0 => return Err(refused(&answer)),
                _ => continue,
            }
        }
        let is_made = [&b"HTTP/1.1 2"[..], b"HTTP/1.0 2"]
            .iter()
            .any(|made| answer.starts_with(made));
        is_made.then_some(stream).ok_or_else(|| refused(&answer))
    }
}

fn refused(answer: &[u8]) -> ProxyError {
    let text = String::from_utf8_lossy(answer);
    ProxyError::Refused(peer_words(text.lines().next().unwrap_or_default()))
}

/// `%41` is `A`: a password may have any character.
fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).map(|digits| u8::from_str_radix(digits, 16));
        match digits {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            _ => {
                bytes.push(b'%');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a list of names, addresses, networks or `*`, parted by commas, has this host in it. A name is also for what is
/// below it, with and without a dot in front.
fn names(list: &str, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    list.split(',').map(str::trim).any(|entry| match address {
        _ if entry == "*" => true,
        Some(address) => {
            let (network, length) = entry.split_once('/').unwrap_or((entry, "128"));
            let network = network.parse().map(bits);
            let length = length.parse::<u32>();
            matches!((network, length), (Ok(network), Ok(length)) if is_within(address, network, length))
        }
        None => {
            let name = entry.trim_start_matches('.');
            let above = host.len().checked_sub(name.len());
            let is_below = |at: usize| at == 0 || host.as_bytes()[at - 1] == b'.';
            !name.is_empty()
                && above.is_some_and(|at| {
                    host.as_bytes()[at..].eq_ignore_ascii_case(name.as_bytes()) && is_below(at)
                })
        }
    })
}

/// An address as its leading bits, and how many it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn is_within(address: IpAddr, (network, all): (u128, u32), length: u32) -> bool {
    let (address, of) = bits(address);
    // A shift by all 128 bits is none.
    let others = u128::MAX.checked_shr(length.min(all)).unwrap_or(0);
    of == all && (address | others) == (network | others)
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A proxy of another kind.
    #[error(
        "the proxy of `HTTPS_PROXY` or `ALL_PROXY` is not `http://[USER:PASSWORD@]HOST:PORT`; no other can be used"
    )]
    Unusable,
    /// The connection to it broke.
    #[error("ask the proxy for a tunnel")]
    Broken(#[source] std::io::Error),
    /// It does not make one.
    #[error("the proxy makes no tunnel: `{0}`")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_plain_http_whether_it_says_so_or_not() {
        let proxy = |host: &str, port, credentials: Option<&str>| Proxy {
            host: host.to_owned(),
            port,
            credentials: credentials.map(str::to_owned),
        };
        for (text, read) in [
            ("proxy:3128", Some(proxy("proxy", 3128, None))),
            ("http://proxy", Some(proxy("proxy", 80, None))),
            ("http://proxy:3128/", Some(proxy("proxy", 3128, None))),
            ("http://[::1]:1", Some(proxy("::1", 1, None))),
            (
                "http://u:p%40%zz@proxy",
                Some(proxy("proxy", 80, Some("u:p@%zz"))),
            ),
            ("http://u@proxy", Some(proxy("proxy", 80, Some("u:")))),
            ("https://proxy", None),
            ("socks5://proxy:1080", None),
            ("/proxy", None),
        ] {
            assert_eq!(Proxy::parse(text), read, "{text}");
        }
    }

    #[test]
    fn a_host_is_named_by_itself_by_what_is_above_it_or_by_its_network() {
        for (list, host, named) in [
            ("*", "collector", true),
            ("a, collector.example", "collector.example", true),
            ("Example", "collector.example", true),
            (".example", "collector.example", true),
            (".example", "example", true),
            ("ample", "collector.example", false),
            ("a.collector.example", "collector.example", false),
            ("", "collector", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
            ("10.0.0.0/x", "10.0.0.0", false),
        ] {
            assert_eq!(names(list, host), named, "{host} in {list}");
        }
    }
}
