//! What a client asks in Anthropic's format.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::messages::{Block, Reader, WireMessage, WireRole, missing, unsupported};
use crate::models::{
    content::Role,
    format::{
        ClientRequest, FormatError,
        read::{self, TextOr, check_tool_choice, number, refuse, stops},
    },
    request::ModelRequest,
    tools::{Effort, Json, ResponseFormat, Thinking, Tool, ToolChoice},
};

/// Members that are not here are read over: SDKs send more than anyone reads.
#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<WireMessage>,
    max_tokens: NonZeroU32,
    system: Option<TextOr<Block>>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u32>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<WireChoice>,
    thinking: Option<WireThinking>,
    output_config: Option<OutputConfig>,
    metadata: Option<Metadata>,
    cache_control: Option<IgnoredAny>,
    // Refused.
    container: Option<IgnoredAny>,
    mcp_servers: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct WireTool {
    r#type: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Json>,
    strict: Option<bool>,
    cache_control: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireChoice {
    r#type: ChoiceType,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceType {
    Auto,
    Any,
    Tool,
    None,
}

#[derive(Deserialize)]
struct WireThinking {
    r#type: ThinkingType,
    budget_tokens: Option<u32>,
    display: Option<Display>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Display {
    Summarized,
    Omitted,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ThinkingType {
    Enabled,
    Adaptive,
    BetweenTools,
    Disabled,
}

#[derive(Deserialize)]
struct OutputConfig {
    effort: Option<Effort>,
    format: Option<OutputFormat>,
}

#[derive(Deserialize)]
struct OutputFormat {
    r#type: FormatType,
    schema: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatType {
    JsonSchema,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

pub(in crate::models::format) fn decode_request(body: &[u8]) -> Result<ClientRequest, FormatError> {
    let wire: Request = read::json(body)?;
    refuse("container", wire.container.is_some(), "is not supported")?;
    let servers = wire.mcp_servers.is_some_and(|servers| !servers.is_empty());
    refuse("mcp_servers", servers, "is not supported")?;

    let mut reader = Reader { marked: false };
    let mut system: Vec<_> = reader.system(wire.system, "system")?.into_iter().collect();
    let mut cache_system = std::mem::take(&mut reader.marked);
    let mut messages = Vec::with_capacity(wire.messages.len());
    for (index, message) in wire.messages.into_iter().enumerate() {
        let path = format!("messages[{index}].content");
        let role = match message.role {
            WireRole::User => Role::User,
            WireRole::Assistant => Role::Assistant,
            WireRole::System => {
                system.extend(reader.system(Some(message.content), &path)?);
                continue;
            }
        };
        messages.push(reader.message(role, message.content, &path)?);
    }
    if messages.is_empty() {
        let problem = "must hold at least one message of the user or the assistant";
        return Err(FormatError::at("messages", problem));
    }
    let mut request = ModelRequest::messages(messages);
    request.system = (!system.is_empty()).then(|| system.join("\n\n"));
    request.preferred_model = Some(wire.model);
    request.max_tokens = Some(wire.max_tokens);
    request.temperature = number("temperature", wire.temperature, 0.0, 1.0)?;
    request.top_p = number("top_p", wire.top_p, 0.0, 1.0)?;
    request.top_k = wire.top_k;
    request.stop = stops(wire.stop_sequences.map(TextOr::List), "stop_sequences")?;
    request.stream = wire.stream.unwrap_or(false);
    for (index, tool) in wire.tools.unwrap_or_default().into_iter().enumerate() {
        cache_system |= tool.cache_control.is_some();
        request.tools.push(self::tool(tool, index)?);
    }
    if let Some(choice) = wire.tool_choice {
        let one_at_a_time = choice.disable_parallel_tool_use;
        request.parallel_tool_calls = one_at_a_time.map(|one_at_a_time| !one_at_a_time);
        request.tool_choice = Some(tool_choice(choice)?);
        check_tool_choice(&request)?;
    }
    if let Some(wire) = wire.thinking {
        let display = wire.display.as_ref();
        request.show_thinking = display.map(|it| matches!(it, Display::Summarized));
        request.thinking = Some(thinking(wire)?);
    }
    if let Some(config) = wire.output_config {
        request.effort = config.effort;
        request.response_format = config.format.map(|format| match format.r#type {
            FormatType::JsonSchema => ResponseFormat::JsonSchema {
                // This format gives it none, and OpenAI's wants one.
                name: "answer".to_owned(),
                schema: format.schema,
                strict: Some(true),
            },
        });
    }
    request.user = wire.metadata.and_then(|metadata| metadata.user_id);
    request.cache_system = cache_system;
    request.cache = reader.marked || wire.cache_control.is_some();
    Ok(ClientRequest {
        request,
        include_usage: true,
    })
}

fn tool(tool: WireTool, index: usize) -> Result<Tool, FormatError> {
    match tool.r#type.as_deref() {
        None | Some("custom") => {}
        // One that Anthropic runs, or has trained its models on.
        Some(kind) => return Err(unsupported(&format!("tools[{index}]"), kind)),
    }
    let schema = tool.input_schema;
    Ok(Tool {
        name: tool.name,
        description: tool.description,
        parameters: Some(
            schema.ok_or_else(|| missing(&format!("tools[{index}]"), "input_schema"))?,
        ),
        strict: tool.strict,
    })
}

fn tool_choice(choice: WireChoice) -> Result<ToolChoice, FormatError> {
    Ok(match choice.r#type {
        ChoiceType::Auto => ToolChoice::Auto,
        ChoiceType::Any => ToolChoice::Required,
        ChoiceType::None => ToolChoice::None,
        ChoiceType::Tool => {
            ToolChoice::Tool(choice.name.ok_or_else(|| missing("tool_choice", "name"))?)
        }
    })
}

fn thinking(thinking: WireThinking) -> Result<Thinking, FormatError> {
    Ok(match thinking.r#type {
        ThinkingType::Disabled => Thinking::Disabled,
        ThinkingType::Adaptive => Thinking::Adaptive,
        ThinkingType::BetweenTools => Thinking::BetweenTools,
        ThinkingType::Enabled => {
            let budget = thinking.budget_tokens;
            Thinking::Budget(budget.ok_or_else(|| missing("thinking", "budget_tokens"))?)
        }
    })
}
