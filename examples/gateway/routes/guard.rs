//! Who may use `/admin`, decided from what is known of the caller.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// The bearer token of the admin endpoints.
#[derive(Clone)]
pub(crate) struct AdminToken {
    secret: String,
    id: String,
}

impl AdminToken {
    /// A token, without the white space around it: one from a file often ends in a new line. `id`
    /// is what logs call it.
    ///
    /// # Errors
    ///
    /// If no header can carry it; the error doesn't repeat it.
    pub(crate) fn new(token: &str, id: impl Into<String>) -> Result<Self, &'static str> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("an admin token is made of visible ASCII characters");
        }
        Ok(Self {
            secret: token.to_owned(),
            id: id.into(),
        })
    }

    /// What logs call it: where it came from.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Compares in a time that doesn't tell how much of it was right.
    fn is(&self, token: &str) -> bool {
        self.secret.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminToken({}, ***)", self.id)
    }
}

/// Why a caller was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// There is no token, and the caller isn't somebody on this machine who meant to come here.
    NotLocal,
}

/// With a token, who has it may. Without one, callers on this machine may: not somebody for whom
/// a proxy on this machine asks, and not a web page that somebody on it has opened.
pub(crate) fn check(
    token: Option<&AdminToken>,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let Some(token) = token else {
        let proxied = ["forwarded", "x-forwarded-for"];
        let local = peer.to_canonical().is_loopback()
            && !proxied.iter().any(|name| headers.contains_key(*name))
            && text(headers, header::HOST).is_some_and(is_loopback)
            && headers.get(header::ORIGIN).is_none_or(|origin| {
                let origin = origin.to_str().ok();
                let host = origin.and_then(|origin| origin.strip_prefix("http://"));
                host == text(headers, header::HOST)
            });
        return if local {
            Ok(())
        } else {
            Err(Refusal::NotLocal)
        };
    };
    let (scheme, given) = text(headers, header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .ok_or(Refusal::Token)?;
    if scheme.eq_ignore_ascii_case("bearer") && token.is(given.trim()) {
        Ok(())
    } else {
        Err(Refusal::Token)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A name that was made to point here by somebody else's DNS is none of these.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}
