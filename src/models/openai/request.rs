//! What an API of OpenAI's kind is asked.

use std::borrow::Cow;

use serde::Serialize;

use super::Habits;
use crate::models::{
    content::{Image, Message, Part, Reasoning, Role},
    error::{ModelError, ModelErrorKind},
    provider::{CONTINUE, Seam},
    request::ModelRequest,
    tools::{Effort, Json, ResponseFormat, Thinking, Tool, ToolChoice},
};

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<WireChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<WireThinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<WireFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        request: &'a ModelRequest,
        model: &'a str,
        max_completion_tokens: bool,
        habits: Habits,
    ) -> Result<Self, ModelError> {
        let deepseek = habits == Habits::DeepSeek;
        let response_format = match &request.response_format {
            Some(ResponseFormat::JsonSchema { .. }) if deepseek => {
                return Err(unsupported(
                    "`response_format` of the type `json_schema` is not known to DeepSeek",
                ));
            }
            format => format.as_ref().map(WireFormat::from),
        };
        let limit = request.max_tokens.map(u32::from);
        let (max_tokens, max_completion_tokens) = if max_completion_tokens {
            (None, limit)
        } else {
            (limit, None)
        };
        let has_tools = !request.tools.is_empty();
        Ok(Self {
            model,
            messages: messages(request, habits)?,
            max_tokens,
            max_completion_tokens,
            temperature: request.temperature,
            top_p: request.top_p,
            seed: request.seed.filter(|_| !deepseek),
            frequency_penalty: request.frequency_penalty,
            presence_penalty: request.presence_penalty,
            stop: &request.stop,
            tools: request
                .tools
                .iter()
                .map(|tool| WireTool::new(tool, deepseek))
                .collect(),
            // Without tools there is nothing to choose, and the API refuses both.
            tool_choice: request
                .tool_choice
                .as_ref()
                .filter(|_| has_tools)
                .map(WireChoice::from),
            parallel_tool_calls: request
                .parallel_tool_calls
                .filter(|_| has_tools && !deepseek),
            thinking: request
                .thinking
                .filter(|_| deepseek)
                .map(|thinking| match thinking {
                    Thinking::Disabled => WireThinking::Disabled,
                    _ => WireThinking::Enabled,
                }),
            reasoning_effort: request.effort.and_then(|effort| match effort {
                // DeepSeek's way to say it is to disable thinking.
                Effort::None if deepseek => None,
                effort => Some(effort),
            }),
            response_format,
            user: request.user.as_deref().filter(|_| !deepseek),
            stream: request.stream,
            stream_options: request.stream.then_some(StreamOptions {
                include_usage: true,
            }),
        })
    }
}

fn unsupported(message: impl AsRef<str>) -> ModelError {
    ModelError::new(ModelErrorKind::Unsupported, message)
}

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

fn messages(request: &ModelRequest, habits: Habits) -> Result<Vec<WireMessage<'_>>, ModelError> {
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
    Ok(messages)
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

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl<'a> WireTool<'a> {
    fn new(tool: &'a Tool, deepseek: bool) -> Self {
        Self {
            r#type: "function",
            function: WireFunction {
                name: &tool.name,
                description: tool.description.as_deref(),
                parameters: tool.parameters.as_ref(),
                // DeepSeek takes it only at the address of its beta.
                strict: tool.strict.filter(|_| !deepseek),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireChoice<'a> {
    Word(&'static str),
    Tool {
        r#type: &'static str,
        function: Name<'a>,
    },
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

impl<'a> From<&'a ToolChoice> for WireChoice<'a> {
    fn from(choice: &'a ToolChoice) -> Self {
        match choice {
            ToolChoice::Auto => Self::Word("auto"),
            ToolChoice::None => Self::Word("none"),
            ToolChoice::Required => Self::Word("required"),
            ToolChoice::Tool(name) => Self::Tool {
                r#type: "function",
                function: Name { name },
            },
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireThinking {
    Enabled,
    Disabled,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: WireSchema<'a> },
}

#[derive(Serialize)]
struct WireSchema<'a> {
    name: &'a str,
    schema: &'a Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl<'a> From<&'a ResponseFormat> for WireFormat<'a> {
    fn from(format: &'a ResponseFormat) -> Self {
        match format {
            ResponseFormat::Json => Self::JsonObject,
            ResponseFormat::JsonSchema {
                name,
                schema,
                strict,
            } => Self::JsonSchema {
                json_schema: WireSchema {
                    name,
                    schema,
                    strict: *strict,
                },
            },
        }
    }
}
