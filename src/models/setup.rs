//! What a provider is set up with, checked once, before the first request.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderValue, Uri};

/// A setting that a provider can't work with.
///
/// Names the setting and what is wrong with it. Never holds the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupError {
    field: &'static str,
    problem: String,
}

impl SetupError {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }

    /// The setting that is wrong, such as `api_key`, `base_url` or `fallbacks`.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.problem)
    }
}

impl Error for SetupError {}

/// The key of a provider's API.
///
/// It shows itself to nobody: `Debug` prints `ApiKey(***)`, there is no `Display`, and the header
/// that carries it is marked as sensitive.
///
/// ```
/// # use tower_breaker::models::ApiKey;
/// let key = ApiKey::new("sk-secret")?;
/// assert_eq!(format!("{key:?}"), "ApiKey(***)");
/// assert!(ApiKey::new("two\nlines").is_err());
/// # Ok::<_, tower_breaker::models::SetupError>(())
/// ```
#[derive(Clone)]
pub struct ApiKey(Arc<str>);

impl ApiKey {
    /// A key, without the white space around it: a key from a file often ends in a new line.
    ///
    /// # Errors
    ///
    /// If the key is empty, or holds a character that a header can't carry; the error doesn't
    /// repeat the key.
    pub fn new(key: impl AsRef<str>) -> Result<Self, SetupError> {
        let key = key.as_ref().trim();
        if key.is_empty() {
            return Err(SetupError::new("api_key", "must not be empty"));
        }
        // A header may hold spaces; a key that does is two keys, or a key and a comment.
        if let Some(at) = key.chars().position(|c| !c.is_ascii_graphic()) {
            let problem = format!(
                "holds a character at position {} that is not allowed there: a key is made of \
                 visible ASCII characters",
                at + 1
            );
            return Err(SetupError::new("api_key", problem));
        }
        Ok(Self(key.into()))
    }

    /// The key as the value of a header, after `scheme`.
    pub(super) fn header(&self, scheme: &str) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("{scheme}{}", self.0))
            .expect("a key is visible ASCII, checked when it was made");
        value.set_sensitive(true);
        value
    }

    /// The text without this key, and without anything that looks like one.
    ///
    /// Providers repeat a wrong key in their message, in full or in part (`sk-ab***yz`).
    pub(super) fn redact(&self, text: &str) -> String {
        let text = text.replace(&*self.0, "***");
        let mut kept = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find("sk-") {
            let (before, key) = rest.split_at(at);
            kept.push_str(before);
            let end = key.find(|c: char| !is_key_char(c)).unwrap_or(key.len());
            // Part of a word ("task-based"), or a bare "sk-" that explains the format.
            if before.ends_with(is_key_char) || end == "sk-".len() {
                kept.push_str(&key[..end]);
            } else {
                kept.push_str("***");
            }
            rest = &key[end..];
        }
        kept.push_str(rest);
        kept
    }
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*')
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

impl FromStr for ApiKey {
    type Err = SetupError;

    fn from_str(key: &str) -> Result<Self, SetupError> {
        Self::new(key)
    }
}

/// Where requests go: `path` under `base_url`, which may end in a slash or not.
pub(super) fn endpoint(base_url: &str, path: &str) -> Result<Uri, SetupError> {
    let wrong = |problem: &str| {
        // A URL may carry a password before its `@`: then it isn't repeated.
        let shown = if base_url.contains('@') { "" } else { base_url };
        SetupError::new("base_url", format!("{problem} (`{shown}`)"))
    };
    let base_url = base_url.trim();
    if base_url.contains(['?', '#']) {
        return Err(wrong("must end with its path, without `?` or `#`"));
    }
    let uri: Uri = base_url.parse().map_err(|_| wrong("is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("must begin with `https://` or `http://`"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong(
            "must not hold a user or a password: keys go into `api_key`",
        ));
    }
    if authority.host().is_empty() {
        return Err(wrong("has no host"));
    }
    // `http` lets any digits stand for a port, and then knows none.
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err(wrong("has a port that is not a number from 0 to 65535"));
    }
    let full = format!("{}{path}", base_url.trim_end_matches('/'));
    full.parse().map_err(|_| wrong("is not a URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g5_a_key_never_shows_itself() {
        let key = ApiKey::new("  sk-secret\n").unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey(***)");
        let header = key.header("Bearer ");
        assert_eq!(header.as_bytes(), b"Bearer sk-secret");
        assert!(header.is_sensitive());
        assert!(!format!("{header:?}").contains("secret"));
    }

    #[test]
    fn g5_a_bad_key_is_an_error_that_does_not_repeat_it() {
        for key in [
            "",
            " \n",
            "secret\r\nx: y",
            "secret secret",
            "secrét",
            "secret\u{0}",
        ] {
            let error = ApiKey::new(key).unwrap_err();
            assert_eq!(error.field(), "api_key");
            assert!(!format!("{error} {error:?}").contains("secr"), "{error}");
        }
    }

    #[test]
    fn g5_keys_are_cut_from_what_providers_say() {
        let key = ApiKey::new("abc123").unwrap();
        let table = [
            ("bad key abc123.", "bad key ***."),
            (
                "Incorrect API key provided: sk-ab***yz. See",
                "Incorrect API key provided: ***. See",
            ),
            ("'sk-ant-api03-x_Y'", "'***'"),
            ("a task-based answer", "a task-based answer"),
            ("a key begins with sk- and", "a key begins with sk- and"),
            ("sk-", "sk-"),
            ("ü sk-1 ü sk-2", "ü *** ü ***"),
        ];
        for (text, expected) in table {
            assert_eq!(key.redact(text), expected);
        }
    }

    #[test]
    fn a_base_url_is_taken_with_and_without_a_slash() {
        let table = [
            (
                "https://api.example.com",
                "https://api.example.com/v1/messages",
            ),
            (
                "https://api.example.com/",
                "https://api.example.com/v1/messages",
            ),
            (
                "http://127.0.0.1:8080/proxy//",
                "http://127.0.0.1:8080/proxy/v1/messages",
            ),
            ("http://[::1]:8080", "http://[::1]:8080/v1/messages"),
            ("http://[::1]", "http://[::1]/v1/messages"),
            (
                " https://api.example.com\n",
                "https://api.example.com/v1/messages",
            ),
        ];
        for (base, expected) in table {
            assert_eq!(endpoint(base, "/v1/messages").unwrap(), expected);
        }
    }

    #[test]
    fn g6_a_bad_base_url_is_an_error_that_names_it() {
        for base in [
            "",
            "/",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://exa mple.com",
            "https://example.com:99999",
            "https://example.com:",
            "https://example.com?key=1",
            "https://example.com/#a",
        ] {
            let error = endpoint(base, "/x").expect_err(base);
            assert_eq!(error.field(), "base_url");
            assert!(error.to_string().contains(&format!("`{base}`")), "{error}");
        }
        let error = endpoint("https://me:secret@example.com", "/x").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error}");
    }
}
