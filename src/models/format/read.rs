//! Reading a request so that every error knows its field.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de::value::SeqAccessDeserializer};

use super::error::FormatError;
use crate::models::{request::ModelRequest, tools::ToolChoice};

/// Reads JSON. What is wrong with it is looked for in a second pass, which costs more.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(body).map_err(|_| why::<T>(body))
}

#[cold]
fn why<T: DeserializeOwned>(body: &[u8]) -> FormatError {
    let mut json = serde_json::Deserializer::from_slice(body);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => error,
        // The value is right, so what follows it isn't.
        Ok(_) => {
            return FormatError::at(
                "",
                "the body has to be one JSON object, and more follows it",
            );
        }
    };
    let mut path = error.path().to_string();
    let error = error.into_inner();
    if !error.is_data() {
        return FormatError::at("", format!("the body is not JSON: {error}"));
    }
    if path == "." {
        path.clear();
    }
    let problem = error.to_string();
    // It knows its line and column, which helps nobody who has not written the JSON by hand.
    let problem = problem.split(" at line ").next().unwrap_or_default();
    // A field that is missing belongs to the path, which ends at the object that lacks it.
    if let Some(field) = problem.strip_prefix("missing field `") {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(field.trim_end_matches('`'));
        return FormatError::at(path, "the field is missing");
    }
    FormatError::at(path, problem)
}

/// One text, or a list of something.
#[derive(Debug)]
pub(super) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor and not an untagged enum: that one would forget the path of what is wrong inside.
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(TextOr::List)
            }
        }

        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// The texts, none of which may be empty.
pub(super) fn stops(
    stops: Option<TextOr<String>>,
    field: &str,
) -> Result<Vec<String>, FormatError> {
    let stops = match stops {
        None => Vec::new(),
        Some(TextOr::Text(text)) => vec![text],
        Some(TextOr::List(texts)) => texts,
    };
    if stops.iter().any(String::is_empty) {
        return Err(FormatError::at(field, "must not hold an empty string"));
    }
    Ok(stops)
}

/// The number, if it is in its range.
pub(super) fn number(
    field: &str,
    value: Option<f64>,
    from: f64,
    to: f64,
) -> Result<Option<f64>, FormatError> {
    match value {
        Some(value) if !(from..=to).contains(&value) => Err(FormatError::at(
            field,
            format_args!("must be a number from {from} to {to}"),
        )),
        value => Ok(value),
    }
}

/// Refuses a field that is there.
pub(super) fn refuse(field: &str, is_there: bool, why: &str) -> Result<(), FormatError> {
    if is_there {
        return Err(FormatError::at(field, why));
    }
    Ok(())
}

/// A choice has to have something to choose from.
pub(super) fn check_tool_choice(request: &ModelRequest) -> Result<(), FormatError> {
    match &request.tool_choice {
        Some(ToolChoice::Tool(name)) if !request.tools.iter().any(|tool| tool.name == *name) => {
            let problem = format!("names `{name}`, which is not among the tools");
            Err(FormatError::at("tool_choice", problem))
        }
        Some(ToolChoice::Required) if request.tools.is_empty() => Err(FormatError::at(
            "tool_choice",
            "wants a tool, and there are no `tools`",
        )),
        _ => Ok(()),
    }
}
