//! Who may ask: `Host`, `Origin`, token, in this order, before anything else looks at a request.
//!
//! - `Host` must be one of this server's names, so a foreign name that resolves to this machine (DNS
//!   rebinding) gets nothing.
//! - `Origin`, if sent, must be this server's own; there is no CORS and no cookie.
//! - Everything under `/api/v1` needs `Authorization: Bearer TOKEN`. The read-only token opens `GET`,
//!   `HEAD` and what an endpoint declares open.
//!
//! Tokens are compared by their BLAKE3 hashes in constant time, and only the hashes are kept.

use std::{collections::BTreeSet, net::SocketAddr};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};

use crate::{
    admin::error::{ApiError, Code, too_large},
    limits,
};

/// The path under which everything needs a token.
pub const API_ROOT: &str = "/api/v1";

/// The policy of every answer that sets none: scripts, styles, images and connections of this server only.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The policy for bytes that strangers made, such as a downloaded page: a browser that shows them runs
/// nothing and gives them an origin of their own.
pub const UNTRUSTED_CONTENT_SECURITY_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// A token as the server keeps it: its hash.
#[derive(Clone, Copy)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// The hash of a token's text.
    pub fn of(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// True if `presented` is the token. Takes the same time wherever they differ.
    fn matches(&self, presented: &[u8]) -> bool {
        blake3::hash(presented) == self.0
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// The two tokens of a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Opens everything.
    pub full: TokenHash,
    /// Opens what changes nothing, and searches.
    pub read_only: TokenHash,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Full,
    ReadOnly,
}

/// The checks before every request, and the headers on every answer.
#[derive(Debug)]
pub struct Guard {
    bound: SocketAddr,
    hosts: Vec<Authority>,
    tokens: Tokens,
    open_to_read_only: BTreeSet<(&'static str, String)>,
}

impl Guard {
    /// A guard for a server bound to `bound` that also answers to `hosts` (`api_hosts`: a name, or a name
    /// with a port when a proxy in front listens on another one). Entries that cannot be a `Host` header
    /// match nothing. Warns if others than this machine can connect, because the traffic is not encrypted.
    pub fn new(bound: SocketAddr, hosts: &[String], tokens: Tokens) -> Self {
        if !bound.ip().is_loopback() {
            tracing::warn!(address = %bound, "the API is reachable from other machines and not encrypted");
        }
        let hosts = hosts.iter().filter_map(|host| Authority::parse(host)).collect();
        Self { bound, hosts, tokens, open_to_read_only: BTreeSet::new() }
    }

    /// Lets the read-only token use a method on a route template.
    pub(super) fn open_to_read_only(&mut self, method: &'static str, template: String) {
        self.open_to_read_only.insert((method, template));
    }

    /// Refuses what may not pass.
    ///
    /// `host_refused`, `origin_refused`, `unauthorized`, `read_only`, or `too_large` for a body that
    /// announces more than [`limits::HTTP_BODY_BYTES`].
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let host = self.checked_host(request)?;
        check_origin(request.headers(), &host)?;
        if is_api(request.uri().path()) {
            let access = self.access(request.headers())?;
            if access == Access::ReadOnly && !self.changes_nothing(request) {
                return Err(ApiError::new(Code::ReadOnly, "the read-only token does not open this")
                    .hint("use the token of the file `api-token`"));
            }
        }
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        match announced.and_then(|length| length.parse::<u64>().ok()) {
            Some(length) if length > limits::HTTP_BODY_BYTES as u64 => Err(too_large()),
            _ => Ok(()),
        }
    }

    fn checked_host(&self, request: &Request) -> Result<String, ApiError> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (headers.next().and_then(|host| host.to_str().ok()), headers.next()) else {
            return Err(ApiError::new(Code::HostRefused, "the request has no readable Host header"));
        };
        let absolute = request.uri().authority().map(axum::http::uri::Authority::as_str);
        let fits = |name: &str| Authority::parse(name).is_some_and(|name| self.is_own(&name));
        if fits(host) && absolute.is_none_or(|absolute| absolute.eq_ignore_ascii_case(host)) {
            return Ok(host.to_owned());
        }
        Err(ApiError::new(Code::HostRefused, format!("`{host}` is no name of this server; `api_hosts` lists them"))
            .hint(format!("use http://localhost:{}, or add the name to `api_hosts`", self.bound.port())))
    }

    /// True for the bound address, any address when bound to all, `localhost` and the configured names.
    fn is_own(&self, asked: &Authority) -> bool {
        let own_port = asked.port == Some(self.bound.port()) || (asked.port.is_none() && self.bound.port() == 80);
        let by_address = || {
            let address = asked.name.parse::<std::net::IpAddr>().ok().map(|address| address.to_canonical());
            let bound = self.bound.ip().to_canonical();
            asked.name == "localhost" || address.is_some_and(|address| bound.is_unspecified() || address == bound)
        };
        let by_name = || {
            self.hosts
                .iter()
                .any(|host| host.name == asked.name && (host.port.map_or(own_port, |_| host.same_port(asked))))
        };
        (own_port && by_address()) || by_name()
    }

    fn access(&self, headers: &HeaderMap) -> Result<Access, ApiError> {
        let presented =
            headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).unwrap_or_default();
        let (full, read_only) = (self.tokens.full.matches(presented), self.tokens.read_only.matches(presented));
        match (full, read_only) {
            (true, _) => Ok(Access::Full),
            (false, true) => Ok(Access::ReadOnly),
            (false, false) => Err(ApiError::new(Code::Unauthorized, "the token is missing or wrong")
                .hint("send `Authorization: Bearer TOKEN` with the token of the file `api-token` in the data folder")),
        }
    }

    fn changes_nothing(&self, request: &Request) -> bool {
        let method = request.method();
        let open = || {
            let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
            let is_open = |(open_method, open_template): &(&'static str, String)| {
                *open_method == method.as_str() && Some(open_template.as_str()) == template
            };
            self.open_to_read_only.iter().any(is_open)
        };
        *method == Method::GET || *method == Method::HEAD || open()
    }
}

/// True for what needs a token.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix(API_ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The token of an `Authorization` header; the scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let scheme = value.get(..SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| value[SCHEME.len()..].trim_ascii())
}

/// A browser sends `Origin` with every request that another site could have caused.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), ApiError> {
    let own = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        // https: a proxy in front may encrypt; the name is still this server's.
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    if headers.get_all(header::ORIGIN).iter().all(own) {
        return Ok(());
    }
    Err(ApiError::new(Code::OriginRefused, "the request comes from another site's page"))
}

/// Sets what every answer carries, unless its handler chose otherwise.
pub(super) fn set_security_headers(is_api: bool, response: &mut Response) {
    const ALWAYS: [(HeaderName, &str); 6] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_api {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
}

/// `NAME[:PORT]` of a `Host` header, in lower case, IPv6 without its brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        (!name.is_empty() && name.bytes().all(plain)).then(|| Self { name: name.to_ascii_lowercase(), port })
    }

    /// A `Host` header leaves out the port that its scheme implies, 80 or 443.
    fn same_port(&self, asked: &Self) -> bool {
        self.port == asked.port || (asked.port.is_none() && matches!(self.port, Some(80 | 443)))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn guard(bound: &str, hosts: &[&str]) -> Guard {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let tokens = Tokens { full: TokenHash::of("full"), read_only: TokenHash::of("read") };
        Guard::new(bound.parse().unwrap(), &hosts, tokens)
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn verdict(guard: &Guard, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Code> {
        guard.check(&request(method, path, headers)).err().map(|error| error.code)
    }

    #[test]
    fn only_own_names_with_the_port_pass() {
        let accepted = |bound: &str, hosts: &[&str], host: &str| {
            let verdict = verdict(&guard(bound, hosts), "GET", "/", &[("host", host)]);
            assert!(verdict.is_none() || verdict == Some(Code::HostRefused));
            verdict.is_none()
        };
        for (bound, hosts, host, expected) in [
            ("127.0.0.1:7780", &[][..], "127.0.0.1:7780", true),
            ("127.0.0.1:7780", &[], "localhost:7780", true),
            ("127.0.0.1:7780", &[], "LOCALHOST:7780", true),
            ("127.0.0.1:7780", &[], "[::ffff:127.0.0.1]:7780", true),
            ("127.0.0.1:7780", &[], "127.0.0.1", false),
            ("127.0.0.1:7780", &[], "127.0.0.1:7781", false),
            ("127.0.0.1:7780", &[], "127.0.0.2:7780", false),
            ("127.0.0.1:7780", &[], "localhost.:7780", false),
            ("127.0.0.1:7780", &[], "evil.example:7780", false),
            ("127.0.0.1:7780", &[], "localhost.evil.example:7780", false),
            ("127.0.0.1:7780", &[], "localhost:7780:7780", false),
            ("127.0.0.1:7780", &[], "localhost:+7780", false),
            ("127.0.0.1:7780", &[], "user@localhost:7780", false),
            ("127.0.0.1:7780", &[], "", false),
            ("127.0.0.1:80", &[], "localhost", true),
            ("[::1]:7780", &[], "[::1]:7780", true),
            ("[::1]:7780", &[], "::1:7780", false),
            ("[::1]:7780", &[], "127.0.0.1:7780", false),
            ("0.0.0.0:7780", &[], "192.168.1.5:7780", true),
            ("[::]:7780", &[], "192.168.1.5:7780", true),
            ("[::]:7780", &[], "[fd00::5]:7780", true),
            ("[::]:7780", &[], "nas.lan:7780", false),
            ("[::]:7780", &["nas.lan"], "NAS.lan:7780", true),
            ("[::]:7780", &["nas.lan"], "nas.lan", false),
            ("127.0.0.1:7780", &["q.example:443"], "q.example", true),
            ("127.0.0.1:7780", &["q.example:443"], "q.example:7780", false),
        ] {
            assert_eq!(accepted(bound, hosts, host), expected, "{bound} {hosts:?} {host}");
        }
    }

    #[test]
    fn a_refused_host_names_the_key_to_set() {
        let error = guard("127.0.0.1:7780", &[]).check(&request("GET", "/", &[("host", "evil.example")])).unwrap_err();
        assert!(error.message.contains("api_hosts"), "{error}");
        let none = guard("127.0.0.1:7780", &[]).check(&request("GET", "/", &[])).unwrap_err();
        assert_eq!(none.code, Code::HostRefused);
        let two = [("host", "localhost:7780"), ("host", "localhost:7780")];
        assert_eq!(verdict(&guard("127.0.0.1:7780", &[]), "GET", "/", &two), Some(Code::HostRefused));
        let absolute = [("host", "localhost:7780")];
        let verdict = verdict(&guard("127.0.0.1:7780", &[]), "GET", "http://evil.example/", &absolute);
        assert_eq!(verdict, Some(Code::HostRefused));
    }

    #[test]
    fn only_the_own_origin_passes() {
        let guard = guard("127.0.0.1:7780", &[]);
        for (origin, expected) in [
            ("http://localhost:7780", None),
            ("HTTP://localhost:7780", Some(Code::OriginRefused)),
            ("http://127.0.0.1:7780", Some(Code::OriginRefused)),
            ("http://localhost", Some(Code::OriginRefused)),
            ("http://localhost:7780.evil.example", Some(Code::OriginRefused)),
            ("http://evil.example", Some(Code::OriginRefused)),
            ("null", Some(Code::OriginRefused)),
            ("", Some(Code::OriginRefused)),
        ] {
            let headers = [("host", "localhost:7780"), ("origin", origin)];
            assert_eq!(verdict(&guard, "GET", "/", &headers), expected, "{origin}");
        }
    }

    #[test]
    fn tokens_open_what_they_should() {
        let guard = guard("127.0.0.1:7780", &[]);
        let verdict = |method: &str, path: &str, authorization: &str| {
            verdict(&guard, method, path, &[("host", "localhost:7780"), ("authorization", authorization)])
        };
        for path in ["/api/v1", "/api/v1/", "/api/v1/status", "/api/v1?x=1"] {
            assert_eq!(verdict("GET", path, "Bearer full"), None, "{path}");
            assert_eq!(verdict("GET", path, "bearer  full "), None, "{path}");
            assert_eq!(verdict("DELETE", path, "Bearer full"), None, "{path}");
            assert_eq!(verdict("GET", path, "Bearer read"), None, "{path}");
            assert_eq!(verdict("HEAD", path, "Bearer read"), None, "{path}");
            assert_eq!(verdict("DELETE", path, "Bearer read"), Some(Code::ReadOnly), "{path}");
            for wrong in ["", "Bearer", "Bearer ", "Bearer ful", "Bearer fulll", "Basic full", "full", "Bearerfull"] {
                assert_eq!(verdict("GET", path, wrong), Some(Code::Unauthorized), "{path} {wrong}");
            }
        }
        for path in ["/", "/api", "/api/v10", "/files/x/y"] {
            assert_eq!(verdict("GET", path, ""), None, "{path}");
        }
    }
}
