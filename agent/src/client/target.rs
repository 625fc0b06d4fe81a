//! Receives the address of a collector as it is written; hands on where that is.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// The port of an address that names none (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Name or address, without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    authority: Authority,
    /// What comes before each route; mostly nothing.
    prefix: String,
}

impl Target {
    /// Reads `https://HOST[:PORT]`, and whatever path a gateway wants in front; none of anything else.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok().filter(|_| url.is_ascii())?;
        let authority = uri.authority()?;
        let is_plain = uri.scheme() == Some(&Scheme::HTTPS)
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => Some(HTTPS),
            _ => authority.port_u16(),
        };
        let host = without_brackets(authority.host());
        (is_plain && !host.is_empty()).then_some(Target {
            host: host.to_owned(),
            port: port?,
            authority: authority.clone(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// `HOST:PORT`, as a proxy is told.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.authority.host(), self.port)
    }

    /// The address of a route, `/v1/…`.
    pub(super) fn route(&self, path: &str) -> Uri {
        let path = PathAndQuery::try_from(format!("{}{path}", self.prefix));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.expect("a path of an address, and a route"));
        Uri::from_parts(parts).expect("all three parts")
    }
}

/// A host as an address has it: IPv6 is in brackets there.
pub(super) fn without_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        for (url, host, port, route) in [
            (
                "https://collector:8443",
                "collector",
                8443,
                "https://collector:8443/v1/x",
            ),
            (
                "https://collector",
                "collector",
                443,
                "https://collector/v1/x",
            ),
            ("https://[::1]:8443", "::1", 8443, "https://[::1]:8443/v1/x"),
            (
                "https://10.0.0.1:1/",
                "10.0.0.1",
                1,
                "https://10.0.0.1:1/v1/x",
            ),
            (
                "https://gate/drift/",
                "gate",
                443,
                "https://gate/drift/v1/x",
            ),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((&*target.host, target.port), (host, port), "{url}");
            assert_eq!(target.route("/v1/x").to_string(), route);
        }
    }

    #[test]
    fn anything_else_is_none() {
        for url in [
            "",
            "collector:8443",
            "http://collector:8443",
            "https://",
            "https://collector:port",
            "https://collector:65536",
            "https://collector:",
            "https://user@collector",
            "https://collector/?x",
            "https://bücher.example",
            "https://a b",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }
}
