//! The body of `POST /v1/process`, and how it becomes a [`ModelRequest`].
//!
//! Strict, because it is our own form: what isn't understood is told, not dropped. Checks of one
//! field happen where that field is read, so that a deserializer that tracks its path points at
//! it; the text names the field all the same, for those that don't.

use std::fmt;
use std::num::NonZeroU32;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use super::content::{Content, Message, Part, Role};
use super::request::{ModelRequest, NO_MESSAGES, check_temperature, check_top_p};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    #[serde(default, deserialize_with = "prompt")]
    prompt: Option<String>,
    #[serde(default)]
    messages: Option<Vec<WireMessage>>,
    #[serde(default)]
    system: Option<String>,
    #[serde(default, rename = "preferredModel", alias = "preferred_model")]
    preferred_model: Option<String>,
    #[serde(
        default,
        rename = "maxTokens",
        alias = "max_tokens",
        deserialize_with = "max_tokens"
    )]
    max_tokens: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "temperature")]
    temperature: Option<f64>,
    #[serde(default, rename = "topP", alias = "top_p", deserialize_with = "top_p")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "stop")]
    stop: Vec<String>,
    #[serde(default)]
    stream: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMessage {
    role: WireRole,
    #[serde(deserialize_with = "content")]
    content: Content,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    System,
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePart {
    // Read for its check alone: `text` is the only type there is.
    #[serde(rename = "type")]
    _type: PartType,
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartType {
    Text,
}

impl<'de> Deserialize<'de> for ModelRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Process::deserialize(deserializer)?
            .into_request()
            .map_err(D::Error::custom)
    }
}

impl Process {
    fn into_request(self) -> Result<ModelRequest, &'static str> {
        let messages = match (self.prompt, self.messages) {
            (Some(prompt), None) => {
                let content = Content::from(prompt);
                vec![WireMessage {
                    role: WireRole::User,
                    content,
                }]
            }
            (None, Some(messages)) => messages,
            (Some(_), Some(_)) => {
                return Err("`prompt` and `messages` exclude each other: give one of them");
            }
            (None, None) => return Err("`prompt` or `messages` is missing: give one of them"),
        };

        let mut request = ModelRequest::messages(Vec::with_capacity(messages.len()));
        let mut system: Vec<String> = self.system.into_iter().collect();
        for WireMessage { role, content } in messages {
            let role = match role {
                WireRole::System => {
                    system.push(content.text().into_owned());
                    continue;
                }
                WireRole::User => Role::User,
                WireRole::Assistant => Role::Assistant,
            };
            request.messages.push(Message { role, content });
        }
        if request.messages.is_empty() {
            return Err(NO_MESSAGES);
        }
        // Providers refuse an empty system text, and mean the same by none.
        system.retain(|text| !text.trim().is_empty());
        if !system.is_empty() {
            request.system = Some(system.join("\n\n"));
        }
        request.preferred_model = self.preferred_model;
        request.max_tokens = self.max_tokens;
        request.temperature = self.temperature;
        request.top_p = self.top_p;
        request.stop = self.stop;
        request.stream = self.stream.unwrap_or(false);
        Ok(request)
    }
}

fn prompt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let prompt = Option::<String>::deserialize(deserializer)?;
    if prompt.as_deref().is_some_and(|text| text.trim().is_empty()) {
        return Err(D::Error::custom("`prompt` must not be empty"));
    }
    Ok(prompt)
}

fn max_tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    // By way of a value: the error for -1 or 1.5 would not name the field.
    let Some(value) = Option::<Value>::deserialize(deserializer)? else {
        return Ok(None);
    };
    value
        .as_u64()
        .and_then(|tokens| u32::try_from(tokens).ok())
        .and_then(NonZeroU32::new)
        .map(Some)
        .ok_or_else(|| D::Error::custom("`maxTokens` must be a whole number from 1 to 4294967295"))
}

fn temperature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    number(deserializer, check_temperature)
}

fn top_p<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    number(deserializer, check_top_p)
}

fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
    check: fn(Option<f64>) -> Result<(), &'static str>,
) -> Result<Option<f64>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(deserializer)? else {
        return Ok(None);
    };
    // What is no number at all is out of range like NaN, and gets the same words.
    let number = value.as_f64().unwrap_or(f64::NAN);
    check(Some(number)).map_err(D::Error::custom)?;
    Ok(Some(number))
}

fn stop<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Stop;

    impl<'de> Visitor<'de> for Stop {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of strings in `stop`")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut stop = Vec::new();
            while let Some(text) = seq.next_element()? {
                stop.push(text);
            }
            Ok(stop)
        }
    }

    let stop = deserializer.deserialize_any(Stop)?;
    if stop.iter().any(String::is_empty) {
        return Err(D::Error::custom("`stop` must not hold an empty string"));
    }
    Ok(stop)
}

fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
    // A visitor and not an untagged enum: that one would forget the path of what is wrong inside.
    struct Parts;

    impl<'de> Visitor<'de> for Parts {
        type Value = Content;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of parts in `content`")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
            Ok(Content::from(text))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
            let mut parts = Vec::new();
            while let Some(WirePart {
                _type: PartType::Text,
                text,
            }) = seq.next_element()?
            {
                parts.push(Part::Text(text));
            }
            Ok(Content::from(parts))
        }
    }

    let content = deserializer.deserialize_any(Parts)?;
    if content.is_blank() {
        return Err(D::Error::custom("`content` must not be empty"));
    }
    Ok(content)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
