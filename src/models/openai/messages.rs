//! A conversation, as an API of OpenAI's kind reads it.

use std::borrow::Cow;

use serde::Serialize;

use super::Habits;
use crate::models::{
    content::{Image, Message, Part, Reasoning, Role},
    error::{ModelError, ModelErrorKind},
    provider::{CONTINUE, Seam},
    request::ModelRequest,
};

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum WireMessage<'a> {
    System {
        content: Cow<'a, str>,
    },
    User {
        content: WireContent<'a>,
    },
    Assistant {
        content: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reasoning_content: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<WireCall<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        prefix: bool,
    },
    Tool {
        tool_call_id: &'a str,
        content: Cow<'a, str>,
    },
}

/// A string wherever there is only text: not everyone who speaks this format reads an array.
#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<WirePart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// A conversation, with the beginning of the answer if there is one.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Messages<'a>(Vec<WireMessage<'a>>);

pub(super) fn messages(request: &ModelRequest, habits: Habits) -> Result<Messages<'_>, ModelError> {
    let mut messages = Vec::with_capacity(request.messages.len() + 1);
    if let Some(text) = &request.system {
        messages.push(WireMessage::System {
            content: text.into(),
        });
    }
    for (index, message) in request.messages.iter().enumerate() {
        match message.role {
            Role::User => user(message, index, habits, &mut messages)?,
            Role::Assistant => messages.extend(assistant(message, habits)),
        }
    }
    let beginning = request.continue_from.as_deref();
    match habits {
        Habits::DeepSeek => {
            if let Some(text) = beginning.filter(|text| !text.is_empty()) {
                go_on(&mut messages, text);
                if let Some(WireMessage::Assistant { prefix, .. }) = messages.last_mut() {
                    *prefix = true;
                }
            }
        }
        Habits::OpenAi => {
            if let (Some(text), _) = Seam::split(beginning) {
                go_on(&mut messages, text);
                messages.push(WireMessage::User {
                    content: WireContent::Text(CONTINUE.into()),
                });
            }
        }
    }
    Ok(Messages(messages))
}

/// Ends the messages with the beginning of the answer.
fn go_on<'a>(messages: &mut Vec<WireMessage<'a>>, beginning: &'a str) {
    match messages.last_mut() {
        // The caller had begun the answer for the model already.
        Some(WireMessage::Assistant {
            content: Some(content),
            ..
        }) => content.to_mut().push_str(beginning),
        _ => messages.push(WireMessage::Assistant {
            content: Some(beginning.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            prefix: false,
        }),
    }
}

/// The results of tools as messages of their own, then what the user says. Images in a result, which
/// a result can't hold here, become the user's.
fn user<'a>(
    message: &'a Message,
    index: usize,
    habits: Habits,
    out: &mut Vec<WireMessage<'a>>,
) -> Result<(), ModelError> {
    let mut said: Vec<&Part> = Vec::new();
    for part in message.content.parts() {
        let Part::ToolResult(result) = part else {
            said.push(part);
            continue;
        };
        out.push(WireMessage::Tool {
            tool_call_id: &result.id,
            content: result.content.text(),
        });
        let images = result.content.parts().iter();
        said.extend(images.filter(|part| matches!(part, Part::Image(_))));
    }
    if said.is_empty() {
        return Ok(());
    }
    let has_image = said.iter().any(|part| matches!(part, Part::Image(_)));
    if has_image && habits == Habits::DeepSeek {
        return Err(unsupported(format!(
            "`messages[{index}].content` holds an image, which DeepSeek does not take"
        )));
    }
    let content = if has_image {
        WireContent::Parts(said.into_iter().filter_map(wire_part).collect())
    } else {
        WireContent::Text(text(&said))
    };
    out.push(WireMessage::User { content });
    Ok(())
}

fn text<'a>(parts: &[&'a Part]) -> Cow<'a, str> {
    match parts {
        [Part::Text(text)] => text.into(),
        parts => parts.iter().filter_map(|part| part.as_text()).collect(),
    }
}

fn wire_part(part: &Part) -> Option<WirePart<'_>> {
    match part {
        Part::Text(text) => Some(WirePart::Text { text }),
        Part::Image(image) => Some(WirePart::ImageUrl {
            image_url: ImageUrl {
                url: match image {
                    Image::Url(url) => url.into(),
                    Image::Base64 { media_type, data } => {
                        format!("data:{media_type};base64,{data}").into()
                    }
                },
            },
        }),
        _ => None,
    }
}

/// `None` for a message of which nothing is left: thoughts alone.
fn assistant(message: &Message, habits: Habits) -> Option<WireMessage<'_>> {
    let mut tool_calls = Vec::new();
    let mut thoughts: Option<String> = None;
    for part in message.content.parts() {
        match part {
            Part::ToolCall(call) => tool_calls.push(WireCall {
                id: &call.id,
                r#type: "function",
                function: Function {
                    name: &call.name,
                    arguments: &call.arguments,
                },
            }),
            Part::Reasoning(Reasoning::Text { text, .. }) => {
                thoughts.get_or_insert_default().push_str(text);
            }
            _ => {}
        }
    }
    let content = Some(message.content.text()).filter(|text| !text.is_empty());
    if content.is_none() && tool_calls.is_empty() {
        return None;
    }
    Some(WireMessage::Assistant {
        content,
        // DeepSeek wants its thoughts back beside a call to a tool, and nowhere else; nobody else
        // wants them.
        reasoning_content: thoughts
            .filter(|_| habits == Habits::DeepSeek && !tool_calls.is_empty()),
        tool_calls,
        prefix: false,
    })
}

pub(super) fn unsupported(message: impl AsRef<str>) -> ModelError {
    ModelError::new(ModelErrorKind::Unsupported, message)
}
