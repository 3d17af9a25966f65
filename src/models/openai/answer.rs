//! What an API of OpenAI's kind answers, as a whole.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::models::{
    content::ToolCall,
    error::ModelErrorKind,
    response::{Completion, FinishReason, Usage},
};

#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    // Read leniently: an answer isn't worthless because its bill can't be read.
    #[serde(default)]
    usage: Value,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Option<WireAnswer<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireAnswer<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    refusal: Option<String>,
    // DeepSeek's name, and the one that routers use.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
}

#[derive(Deserialize)]
struct WireCall {
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
pub(super) struct Function {
    pub(super) name: Option<String>,
    pub(super) arguments: Option<String>,
}

impl Answer<'_> {
    pub(super) fn into_completion(self) -> Result<Completion, (ModelErrorKind, Cow<'static, str>)> {
        let malformed = |problem: &str| (ModelErrorKind::Malformed, problem.to_owned().into());
        let choice = self.choices.unwrap_or_default().into_iter().next();
        let Some(Choice {
            message: Some(message),
            finish_reason: reason,
        }) = choice
        else {
            return Err(malformed("the answer has no `choices[0].message`"));
        };
        let mut completion = Completion::new(message.content.unwrap_or_default().0.into_owned());
        completion.finish_reason = finish_reason(reason)?;
        // A refusal stands in place of the content, under an ordinary `stop`.
        if let (true, Some(refusal)) = (completion.text.is_empty(), message.refusal) {
            completion.text = refusal;
            completion.finish_reason = FinishReason::ContentFilter;
        }
        for (index, call) in message
            .tool_calls
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            // A tool of a kind that nobody has asked for has no function.
            let Some(function) = call.function else {
                continue;
            };
            completion.tool_calls.push(ToolCall {
                id: call.id.unwrap_or_else(|| call_id(index)),
                name: function.name.ok_or_else(|| malformed(NAMELESS))?,
                arguments: function
                    .arguments
                    .filter(|arguments| !arguments.trim().is_empty())
                    .unwrap_or_else(|| "{}".to_owned()),
            });
        }
        completion.id = self.id.unwrap_or_default();
        completion.model = self.model.unwrap_or_default();
        completion.reasoning = message.reasoning_content.or(message.reasoning);
        completion.usage = usage(&self.usage);
        Ok(completion)
    }
}

pub(super) const NAMELESS: &str = "the answer calls a tool without its name";

/// Some servers give a call no id, which its result then has to name.
pub(super) fn call_id(index: usize) -> String {
    format!("call_{index}")
}

pub(super) fn finish_reason(
    reason: Option<String>,
) -> Result<FinishReason, (ModelErrorKind, Cow<'static, str>)> {
    let Some(reason) = reason else {
        return Ok(FinishReason::unknown());
    };
    Ok(match reason.as_str() {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        // DeepSeek's word for an answer that it broke off because it had no room.
        "insufficient_system_resource" => {
            let message = "the provider broke the answer off: insufficient system resource";
            return Err((ModelErrorKind::Overloaded, message.into()));
        }
        _ => FinishReason::Other(reason),
    })
}

pub(super) fn usage(json: &Value) -> Usage {
    // `Value::pointer` would make two strings of each part of a path, for every answer.
    let tokens = |field| json.get(field).and_then(Value::as_u64);
    let detail = |of, field| json.get(of)?.get(field)?.as_u64();
    Usage {
        input_tokens: tokens("prompt_tokens").unwrap_or(0),
        output_tokens: tokens("completion_tokens").unwrap_or(0),
        cache_read_tokens: detail("prompt_tokens_details", "cached_tokens")
            .or_else(|| tokens("prompt_cache_hit_tokens"))
            .unwrap_or(0),
        cache_write_tokens: detail("prompt_tokens_details", "cache_write_tokens").unwrap_or(0),
        reasoning_tokens: detail("completion_tokens_details", "reasoning_tokens").unwrap_or(0),
    }
}

/// A string at OpenAI, at times a list of parts elsewhere.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor and not an untagged enum, which would copy each word of a stream into a buffer.
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Part {
                    text: Option<String>,
                    // Whatever else it holds.
                    #[serde(rename = "type")]
                    _type: Option<IgnoredAny>,
                }
                let mut all = String::new();
                while let Some(part) = seq.next_element::<Part>()? {
                    all.push_str(&part.text.unwrap_or_default());
                }
                Ok(Text(all.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
