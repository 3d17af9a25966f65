//! What Anthropic is asked.

use std::borrow::Cow;

use serde::Serialize;

use super::messages::{WireMessage, go_on, message};
use crate::models::{
    content::Part,
    error::{ModelError, ModelErrorKind},
    provider::Seam,
    request::ModelRequest,
    tools::{Effort, Json, ResponseFormat, Thinking, Tool, ToolChoice},
};

/// The API wants a limit; this is the highest that every model of the Claude 3 family and later
/// takes.
const DEFAULT_MAX_TOKENS: u32 = 4096;

/// What stands in for a mode that this API doesn't have.
const ANSWER_IN_JSON: &str =
    "Answer with one JSON object and nothing else: no words around it, no code fence.";

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<WireChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<WireThinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        request: &'a ModelRequest,
        model: &'a str,
        prefill: bool,
    ) -> Result<Self, ModelError> {
        if let Some(at) = request.stop.iter().position(|stop| stop.trim().is_empty()) {
            let message = format!("`stop[{at}]` must not be white space alone for this provider");
            return Err(ModelError::new(ModelErrorKind::Unsupported, message));
        }
        let mut messages: Vec<_> = request.messages.iter().filter_map(message).collect();
        let (beginning, _) = Seam::split(request.continue_from.as_deref());
        if let Some(beginning) = beginning {
            go_on(&mut messages, beginning, prefill);
        }
        let prefilled = prefill && beginning.is_some();

        let mut system = request.system.as_deref().map(Cow::Borrowed);
        let mut format = None;
        match &request.response_format {
            Some(ResponseFormat::Json) => {
                system = Some(match system {
                    Some(text) => format!("{text}\n\n{ANSWER_IN_JSON}").into(),
                    None => ANSWER_IN_JSON.into(),
                });
            }
            Some(ResponseFormat::JsonSchema { schema, .. }) => {
                format = Some(OutputFormat::JsonSchema { schema });
            }
            None => {}
        }
        let thinking = request.thinking.filter(|_| !prefilled);
        let effort = request
            .effort
            .filter(|_| thinking.is_some())
            .and_then(effort);
        let output_config =
            (format.is_some() || effort.is_some()).then_some(OutputConfig { format, effort });

        let mut tools: Vec<_> = request.tools.iter().map(WireTool::from).collect();
        let mut tool_choice = tool_choice(request);
        if tools.is_empty() {
            tools = tools_of_old(request);
            tool_choice = (!tools.is_empty()).then_some(WireChoice::NONE);
        }
        // The system text comes after the tools, and its mark stands for both.
        if let (true, None, Some(last)) = (request.cache_system, &system, tools.last_mut()) {
            last.cache_control = Some(CacheControl::Ephemeral);
        }

        Ok(Self {
            model,
            max_tokens: request.max_tokens.map_or(DEFAULT_MAX_TOKENS, u32::from),
            messages,
            system: system.map(|text| System::new(text, request.cache_system)),
            temperature: request.temperature.map(|t| t.min(1.0)),
            top_p: request.top_p,
            top_k: request.top_k,
            stop_sequences: &request.stop,
            tools,
            tool_choice,
            thinking: thinking.map(|it| WireThinking::new(it, request.show_thinking)),
            output_config,
            metadata: request.user.as_deref().map(|user_id| Metadata { user_id }),
            cache_control: request.cache.then_some(CacheControl::Ephemeral),
            stream: request.stream,
        })
    }
}

/// The effort in this API's words, which begin at "low".
fn effort(effort: Effort) -> Option<Effort> {
    match effort {
        Effort::None => None,
        Effort::Minimal => Some(Effort::Low),
        effort => Some(effort),
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum System<'a> {
    Text(Cow<'a, str>),
    /// A mark has to stand on a block.
    Marked([SystemBlock<'a>; 1]),
}

#[derive(Serialize)]
struct SystemBlock<'a> {
    r#type: &'static str,
    text: Cow<'a, str>,
    cache_control: CacheControl,
}

impl<'a> System<'a> {
    fn new(text: Cow<'a, str>, cache: bool) -> Self {
        if !cache {
            return Self::Text(text);
        }
        Self::Marked([SystemBlock {
            r#type: "text",
            text,
            cache_control: CacheControl::Ephemeral,
        }])
    }
}

#[derive(Serialize)]
struct WireTool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Schema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Schema<'a> {
    Given(&'a Json),
    None { r#type: &'static str },
}

impl<'a> From<&'a Tool> for WireTool<'a> {
    fn from(tool: &'a Tool) -> Self {
        Self {
            name: &tool.name,
            description: tool.description.as_deref(),
            input_schema: match &tool.parameters {
                Some(schema) => Schema::Given(schema),
                None => Schema::None { r#type: "object" },
            },
            cache_control: None,
        }
    }
}

#[derive(Serialize)]
struct WireChoice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

impl WireChoice<'_> {
    const NONE: Self = Self {
        r#type: "none",
        name: None,
        disable_parallel_tool_use: false,
    };
}

/// The tools that were called earlier in a conversation that has none any more. This API wants to
/// know them all the same, and others don't.
fn tools_of_old(request: &ModelRequest) -> Vec<WireTool<'_>> {
    let parts = request.messages.iter().flat_map(|it| it.content.parts());
    let mut tools: Vec<WireTool<'_>> = Vec::new();
    for part in parts {
        if let Part::ToolCall(call) = part
            && !tools.iter().any(|tool| tool.name == call.name)
        {
            tools.push(WireTool {
                name: &call.name,
                description: None,
                input_schema: Schema::None { r#type: "object" },
                cache_control: None,
            });
        }
    }
    tools
}

fn tool_choice(request: &ModelRequest) -> Option<WireChoice<'_>> {
    // Without tools there is nothing to choose, and the API refuses a choice.
    if request.tools.is_empty() {
        return None;
    }
    let one_at_a_time = request.parallel_tool_calls == Some(false);
    let (kind, name) = match &request.tool_choice {
        Some(ToolChoice::Auto) => ("auto", None),
        None if one_at_a_time => ("auto", None),
        None => return None,
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required) => ("any", None),
        Some(ToolChoice::Tool(name)) => ("tool", Some(name.as_str())),
    };
    Some(WireChoice {
        r#type: kind,
        name,
        disable_parallel_tool_use: one_at_a_time && kind != "none",
    })
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireThinking {
    Disabled,
    BetweenTools,
    Adaptive {
        #[serde(skip_serializing_if = "Option::is_none")]
        display: Option<Display>,
    },
    Enabled {
        budget_tokens: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        display: Option<Display>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Display {
    Summarized,
    Omitted,
}

impl WireThinking {
    fn new(thinking: Thinking, show: Option<bool>) -> Self {
        let display = show.map(|show| match show {
            true => Display::Summarized,
            false => Display::Omitted,
        });
        match thinking {
            Thinking::Disabled => Self::Disabled,
            Thinking::BetweenTools => Self::BetweenTools,
            Thinking::Adaptive => Self::Adaptive { display },
            Thinking::Budget(budget_tokens) => Self::Enabled {
                budget_tokens,
                display,
            },
        }
    }
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<OutputFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputFormat<'a> {
    JsonSchema { schema: &'a Json },
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CacheControl {
    Ephemeral,
}
