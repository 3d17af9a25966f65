//! What a client asks in Anthropic's format.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::models::{
    content::{Content, Image, Message, Part, Reasoning, Role, ToolCall, ToolResult},
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
struct WireMessage {
    role: WireRole,
    content: TextOr<Block>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    User,
    Assistant,
    System,
}

/// A block of any type.
#[derive(Deserialize)]
struct Block {
    r#type: String,
    text: Option<String>,
    source: Option<Source>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Box<RawValue>>,
    tool_use_id: Option<String>,
    content: Option<TextOr<Block>>,
    is_error: Option<bool>,
    cache_control: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Source {
    r#type: String,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
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

    let mut reader = Reader {
        cache: wire.cache_control.is_some(),
    };
    let mut system: Vec<_> = reader.system(wire.system, "system")?.into_iter().collect();
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
        request.tools.push(reader.tool(tool, index)?);
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
    request.cache = reader.cache;
    Ok(ClientRequest {
        request,
        include_usage: true,
    })
}

fn missing(path: &str, field: &str) -> FormatError {
    FormatError::at(format!("{path}.{field}"), "the field is missing")
}

fn unsupported(path: &str, kind: &str) -> FormatError {
    let problem = format_args!("`{kind}` is not supported here");
    FormatError::at(format!("{path}.type"), problem)
}

struct Reader {
    /// Something of the request was marked to be cached.
    cache: bool,
}

impl Reader {
    fn message(
        &mut self,
        role: Role,
        content: TextOr<Block>,
        path: &str,
    ) -> Result<Message, FormatError> {
        let content = match content {
            TextOr::Text(text) => Content::from(text),
            TextOr::List(blocks) => {
                self.blocks(blocks, path, |reader, block, path| match role {
                    Role::User => reader.users(block, path),
                    Role::Assistant => assistants(block, path),
                })?
            }
        };
        if content.is_blank() {
            return Err(FormatError::at(path, "must not be empty"));
        }
        Ok(Message { role, content })
    }

    fn system(
        &mut self,
        system: Option<TextOr<Block>>,
        path: &str,
    ) -> Result<Option<String>, FormatError> {
        let text = match system {
            None => return Ok(None),
            Some(TextOr::Text(text)) => text,
            Some(TextOr::List(blocks)) => {
                let content = self.blocks(blocks, path, |_, block, path| text(block, path))?;
                let texts: Vec<_> = content.parts().iter().filter_map(Part::as_text).collect();
                texts.join("\n\n")
            }
        };
        // Providers refuse an empty system text, and mean the same by none.
        Ok((!text.trim().is_empty()).then_some(text))
    }

    fn blocks(
        &mut self,
        blocks: Vec<Block>,
        path: &str,
        read: impl Fn(&mut Self, Block, &str) -> Result<Part, FormatError>,
    ) -> Result<Content, FormatError> {
        let mut parts = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.into_iter().enumerate() {
            self.cache |= block.cache_control.is_some();
            parts.push(read(self, block, &format!("{path}[{index}]"))?);
        }
        Ok(parts.into())
    }

    fn users(&mut self, block: Block, path: &str) -> Result<Part, FormatError> {
        if block.r#type != "tool_result" {
            return seen(block, path);
        }
        let content = match block.content {
            None => Content::default(),
            Some(TextOr::Text(text)) => Content::from(text),
            Some(TextOr::List(blocks)) => {
                let path = format!("{path}.content");
                self.blocks(blocks, &path, |_, block, path| seen(block, path))?
            }
        };
        Ok(Part::ToolResult(ToolResult {
            id: block
                .tool_use_id
                .ok_or_else(|| missing(path, "tool_use_id"))?,
            content,
            is_error: block.is_error.unwrap_or(false),
        }))
    }

    fn tool(&mut self, tool: WireTool, index: usize) -> Result<Tool, FormatError> {
        self.cache |= tool.cache_control.is_some();
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
}

/// What can be read or seen: text, images, and documents of plain text.
fn seen(block: Block, path: &str) -> Result<Part, FormatError> {
    let kind = block.r#type.as_str();
    if kind != "image" && kind != "document" {
        return text(block, path);
    }
    let source = block.source.ok_or_else(|| missing(path, "source"))?;
    let path = format!("{path}.source");
    match (kind, source.r#type.as_str()) {
        ("image", "url") => {
            let url = source.url.ok_or_else(|| missing(&path, "url"))?;
            Ok(Part::Image(Image::Url(url)))
        }
        ("image", "base64") => Ok(Part::Image(Image::Base64 {
            media_type: source
                .media_type
                .ok_or_else(|| missing(&path, "media_type"))?,
            data: source.data.ok_or_else(|| missing(&path, "data"))?,
        })),
        ("document", "text") => source
            .data
            .ok_or_else(|| missing(&path, "data"))
            .map(Part::Text),
        (_, source) => Err(unsupported(&path, source)),
    }
}

fn text(block: Block, path: &str) -> Result<Part, FormatError> {
    match block.r#type.as_str() {
        "text" => block
            .text
            .ok_or_else(|| missing(path, "text"))
            .map(Part::Text),
        kind => Err(unsupported(path, kind)),
    }
}

fn assistants(block: Block, path: &str) -> Result<Part, FormatError> {
    match block.r#type.as_str() {
        "thinking" => Ok(Part::Reasoning(Reasoning::Text {
            text: block.thinking.ok_or_else(|| missing(path, "thinking"))?,
            // Empty where another provider has thought, and the answer came in this format.
            signature: block.signature.filter(|signature| !signature.is_empty()),
        })),
        "redacted_thinking" => {
            let data = block.data.ok_or_else(|| missing(path, "data"))?;
            Ok(Part::Reasoning(Reasoning::Redacted(data)))
        }
        "tool_use" => Ok(Part::ToolCall(ToolCall {
            id: block.id.ok_or_else(|| missing(path, "id"))?,
            name: block.name.ok_or_else(|| missing(path, "name"))?,
            arguments: block
                .input
                .ok_or_else(|| missing(path, "input"))?
                .get()
                .to_owned(),
        })),
        _ => text(block, path),
    }
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
