//! What an API of OpenAI's kind is asked.

use serde::Serialize;

use super::Habits;
use super::messages::{Messages, messages, unsupported};
use crate::models::{
    error::ModelError,
    request::ModelRequest,
    tools::{Effort, Json, ResponseFormat, Thinking, Tool, ToolChoice},
};

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    messages: Messages<'a>,
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
