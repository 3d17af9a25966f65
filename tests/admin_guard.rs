//! Who may use the gateway's `/admin` (G5), as a table.
#![cfg(feature = "http")]

#[path = "../examples/gateway/routes/guard.rs"]
#[allow(unreachable_pub)]
mod guard;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use guard::{AdminToken, Refusal, check};

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let list = list.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    list.collect()
}

#[test]
fn g5_without_a_token_only_callers_on_this_machine_are_let_in() {
    let host = ("host", "localhost:8080");
    for (peer, list, expected) in [
        ("127.0.0.1", vec![host], Ok(())),
        ("127.8.8.8", vec![("host", "127.0.0.1:8080")], Ok(())),
        ("::1", vec![("host", "[::1]:8080")], Ok(())),
        ("::1", vec![("host", "[::1]")], Ok(())),
        ("::ffff:127.0.0.1", vec![("host", "LOCALHOST")], Ok(())),
        ("192.0.2.7", vec![host], Err(Refusal::NotLocal)),
        ("::ffff:192.0.2.7", vec![host], Err(Refusal::NotLocal)),
        ("2001:db8::1", vec![host], Err(Refusal::NotLocal)),
        ("127.0.0.1", vec![], Err(Refusal::NotLocal)),
        (
            "127.0.0.1",
            vec![("host", "gateway.example")],
            Err(Refusal::NotLocal),
        ),
        (
            "127.0.0.1",
            vec![host, ("forwarded", "for=x")],
            Err(Refusal::NotLocal),
        ),
        (
            "127.0.0.1",
            vec![host, ("x-forwarded-for", "x")],
            Err(Refusal::NotLocal),
        ),
        (
            "127.0.0.1",
            vec![host, ("origin", "http://localhost:8080")],
            Ok(()),
        ),
        (
            "127.0.0.1",
            vec![host, ("origin", "http://localhost:1")],
            Err(Refusal::NotLocal),
        ),
        (
            "127.0.0.1",
            vec![host, ("origin", "null")],
            Err(Refusal::NotLocal),
        ),
    ] {
        let got = check(None, peer.parse().unwrap(), &headers(&list));
        assert_eq!(got, expected, "{peer} {list:?}");
    }
}

#[test]
fn g5_with_a_token_who_has_it_is_let_in_from_anywhere() {
    let token = AdminToken::new(" s3cret\n", "test").unwrap();
    for (value, expected) in [
        ("Bearer s3cret", Ok(())),
        ("bearer  s3cret ", Ok(())),
        ("Bearer s3cre", Err(Refusal::Token)),
        ("Bearer s3crets", Err(Refusal::Token)),
        ("Bearer", Err(Refusal::Token)),
        ("Basic s3cret", Err(Refusal::Token)),
        ("s3cret", Err(Refusal::Token)),
    ] {
        let given = headers(&[("authorization", value)]);
        let got = check(Some(&token), "192.0.2.7".parse().unwrap(), &given);
        assert_eq!(got, expected, "{value}");
    }
    let local = headers(&[("host", "localhost")]);
    let got = check(Some(&token), "127.0.0.1".parse().unwrap(), &local);
    assert_eq!(got, Err(Refusal::Token));
}

#[test]
fn g5_a_token_is_checked_at_the_start_and_never_shown() {
    assert!(AdminToken::new("", "test").is_err());
    assert!(AdminToken::new("  \n", "test").is_err());
    assert!(AdminToken::new("two words", "test").is_err());
    let token = AdminToken::new("s3cret", "test").unwrap();
    assert_eq!(token.id(), "test");
    assert_eq!(format!("{token:?}"), "AdminToken(test, ***)");
}
