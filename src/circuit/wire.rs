//! How configurations and metrics are written: the `serde` side of this folder.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use super::config::{CircuitBreakerConfig, CircuitBreakerConfigBuilder};

// The derives of `CircuitBreakerConfig` are inherent functions (`remote = "Self"`), so that what
// is read passes the builder's checks like everything else.

impl Serialize for CircuitBreakerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for CircuitBreakerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        CircuitBreakerConfigBuilder { config }
            .build()
            .map_err(D::Error::custom)
    }
}

/// A whole number that its type can hold. What it can't is told with the range that the builder
/// allows, and not with the name of a type.
struct Whole {
    to: u64,
    range: &'static str,
}

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.range)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        if number > self.to {
            return Err(E::invalid_value(Unexpected::Unsigned(number), &self));
        }
        Ok(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = deserializer.deserialize_u32(Whole {
            to: u32::MAX.into(),
            range: "a whole number of at least 1",
        })?;
        u32::try_from(count).map(Self).map_err(D::Error::custom)
    }
}

struct Percentage(u8);

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percentage = deserializer.deserialize_u8(Whole {
            to: u8::MAX.into(),
            range: "a whole number from 1 to 100",
        })?;
        u8::try_from(percentage).map(Self).map_err(D::Error::custom)
    }
}

pub(super) fn count<'de, D: Deserializer<'de>>(de: D) -> Result<u32, D::Error> {
    Count::deserialize(de).map(|count| count.0)
}

pub(super) fn optional_count<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<Count>::deserialize(de)?.map(|count| count.0))
}

pub(super) fn optional_percentage<'de, D: Deserializer<'de>>(
    de: D,
) -> Result<Option<u8>, D::Error> {
    Ok(Option::<Percentage>::deserialize(de)?.map(|percentage| percentage.0))
}

/// A duration as whole milliseconds, or as text such as "2m" or "1s 500ms".
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a duration: whole milliseconds, or text such as \"2m\""
)]
enum Text {
    Milliseconds(u64),
    #[serde(with = "text")]
    Words(Duration),
}

mod text {
    use super::*;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(de)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

impl From<Text> for Duration {
    fn from(text: Text) -> Self {
        match text {
            Text::Milliseconds(millis) => Self::from_millis(millis),
            Text::Words(duration) => duration,
        }
    }
}

pub(super) mod duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match u64::try_from(duration.as_millis()) {
            Ok(millis) if Duration::from_millis(millis) == *duration => {
                serializer.serialize_u64(millis)
            }
            _ => serializer.collect_str(&humantime::format_duration(*duration)),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Text::deserialize(deserializer).map(Duration::from)
    }
}

pub(super) mod optional_duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(Duration::from))
    }
}

/// A latency as milliseconds with their fractions.
pub(super) mod milliseconds {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        latency: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(latency.as_nanos() as f64 / 1e6)
    }
}

/// A wait as whole milliseconds, rounded up: who comes back then is not too early.
pub(super) mod optional_wait {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        wait: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = wait.map(|wait| wait.as_nanos().div_ceil(1_000_000));
        millis
            .map(|millis| u64::try_from(millis).unwrap_or(u64::MAX))
            .serialize(serializer)
    }
}

/// A time of day as RFC 3339, in UTC.
pub(super) mod date {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }
}

pub(super) mod optional_date {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::date::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }
}
