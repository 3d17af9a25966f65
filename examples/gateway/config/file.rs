//! What a configuration file may say, before any of it is checked against the rest.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};
use tower_breaker::models::{Deadlines, MidStream};

/// A circuit breaker's fields, which are laid over one another before they are checked.
pub(super) type Fields = Map<String, Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<SocketAddr>,
    pub(super) default_model: Option<String>,
    pub(super) admin: Admin,
    pub(super) limits: Limits,
    pub(super) deadlines: DeadlineTable,
    /// How many answers are kept for models whose last resort they are.
    pub(super) cache: Option<usize>,
    pub(super) circuit_breaker: Fields,
    pub(super) providers: BTreeMap<String, ProviderTable>,
    pub(super) models: BTreeMap<String, ModelTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) listen: Option<SocketAddr>,
    pub(super) token_env: Option<String>,
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderTable {
    pub(super) kind: Kind,
    pub(super) base_url: Option<String>,
    pub(super) api_key_env: Option<String>,
    pub(super) api_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) simulated: bool,
    #[serde(default)]
    pub(super) forward_headers: Vec<String>,
    #[serde(default)]
    pub(super) deadlines: DeadlineTable,
    #[serde(default)]
    pub(super) circuit_breaker: Fields,
}

/// Whose API a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Anthropic,
    OpenAi,
    DeepSeek,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelTable {
    pub(super) provider: String,
    /// The provider's name for it; without one the alias.
    pub(super) upstream: Option<String>,
    #[serde(default)]
    pub(super) fallbacks: Vec<String>,
    /// From the best to the worst.
    #[serde(default)]
    pub(super) degraded: Vec<LastResort>,
    /// What becomes of a stream that breaks off.
    #[serde(default)]
    pub(super) mid_stream: MidStream,
    /// The longest answer that it is asked for.
    pub(super) max_tokens: Option<NonZeroU32>,
    #[serde(default)]
    pub(super) deadlines: DeadlineTable,
    pub(super) circuit_breaker: Option<Fields>,
}

/// What is given when no model of a chain can answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LastResort {
    /// A smaller model.
    Model(String),
    /// The last answer to the same request.
    Cached,
    Message(String),
}

/// How long a streamed answer may take, in what it differs from what is around it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadlineTable {
    first_token: Option<Deadline>,
    idle: Option<Deadline>,
    total: Option<Deadline>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Deadline(Option<Duration>);

impl DeadlineTable {
    /// The deadlines, where those around it are these.
    pub(super) fn over(self, mut around: Deadlines) -> Deadlines {
        for (field, own) in [
            (&mut around.first_token, self.first_token),
            (&mut around.idle, self.idle),
            (&mut around.total, self.total),
        ] {
            if let Some(Deadline(own)) = own {
                *field = own;
            }
        }
        around
    }
}

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "off" {
            return Ok(Self(None));
        }
        match duration(value) {
            Ok(time) if time.is_zero() => {
                Err(D::Error::custom("has to be longer than 0s, or \"off\""))
            }
            Ok(time) => Ok(Self(Some(time))),
            Err(error) => Err(D::Error::custom(error)),
        }
    }
}

/// What the gateway takes on at most.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// The largest body of a request. 8 MiB are hundreds of times the longest prompt that people
    /// write.
    pub(crate) body_bytes: usize,
    /// How long a client may take to send it.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_timeout: Duration,
    /// The largest head of a request, its first line included.
    pub(crate) header_bytes: usize,
    /// The most headers in it.
    pub(crate) header_count: usize,
    /// How long a client may take to send it; and how long an idle connection is kept.
    #[serde(deserialize_with = "duration")]
    pub(crate) header_timeout: Duration,
    /// How long an answer may wait for a client that doesn't read.
    #[serde(deserialize_with = "duration")]
    pub(crate) write_timeout: Duration,
    /// The most open connections on one listener.
    pub(crate) connections: usize,
    /// The most requests to models that are worked on at the same time, until the end of their
    /// answers.
    pub(crate) concurrency: usize,
    /// The most requests that wait for their turn beyond that.
    pub(crate) queue: usize,
    /// How long one may wait.
    #[serde(deserialize_with = "duration")]
    pub(crate) queue_timeout: Duration,
    /// How long a streamed answer may be silent, and at most twice as long, until its client is told
    /// that there is still somebody. Proxies give up after 60 seconds by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) keep_alive: Duration,
    /// How long what is under way may take to finish after a signal to stop. Orchestrators kill
    /// after 30 seconds by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            header_bytes: 32 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            connections: 20_000,
            concurrency: 10_000,
            queue: 1_000,
            queue_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(25),
        }
    }
}

impl Limits {
    /// The first field that is out of its range, its value, and the range.
    pub(super) fn out_of_range(&self) -> Option<(&'static str, String, String)> {
        let numbers = [
            ("body_bytes", self.body_bytes, 1, 1 << 30),
            // The floor is hyper's.
            ("header_bytes", self.header_bytes, 8 * 1024, 1 << 20),
            ("header_count", self.header_count, 1, 10_000),
            ("connections", self.connections, 1, 1_000_000),
            ("concurrency", self.concurrency, 1, 1_000_000),
            ("queue", self.queue, 0, 1_000_000),
        ];
        let times = [
            ("body_timeout", self.body_timeout),
            ("header_timeout", self.header_timeout),
            ("write_timeout", self.write_timeout),
            ("queue_timeout", self.queue_timeout),
            ("keep_alive", self.keep_alive),
            ("shutdown_grace", self.shutdown_grace),
        ];
        let number = numbers
            .iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value));
        let time = times
            .iter()
            .find(|(_, time)| time.is_zero() || *time > Duration::from_secs(3600));
        number
            .map(|(field, value, least, most)| {
                (*field, value.to_string(), format!("from {least} to {most}"))
            })
            .or_else(|| {
                let (field, value) = time?;
                let range = "longer than 0s, and at most 1h".to_owned();
                Some((field, format!("{value:?}"), range))
            })
    }
}

/// Text such as "30s", or whole milliseconds.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a duration: text such as \"30s\", or whole milliseconds"
    )]
    enum Written {
        Milliseconds(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Milliseconds(millis) => Ok(Duration::from_millis(millis)),
        Written::Text(text) => humantime::parse_duration(&text).map_err(D::Error::custom),
    }
}
