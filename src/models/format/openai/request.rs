//! What a client asks in OpenAI's format.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::messages::{Conversation, WireMessage};
use crate::models::{
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
    max_completion_tokens: Option<NonZeroU32>,
    max_tokens: Option<NonZeroU32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop: Option<TextOr<String>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<WireChoice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<WireFormat>,
    reasoning_effort: Option<Effort>,
    thinking: Option<WireThinking>,
    seed: Option<i64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    user: Option<String>,
    // Refused.
    n: Option<u64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    logit_bias: Option<std::collections::HashMap<String, IgnoredAny>>,
    modalities: Option<Vec<String>>,
    audio: Option<IgnoredAny>,
    functions: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct WireTool {
    r#type: String,
    function: Option<WireFunction>,
}

#[derive(Deserialize)]
struct WireFunction {
    name: String,
    description: Option<String>,
    parameters: Option<Json>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
struct WireThinking {
    r#type: ThinkingType,
    budget_tokens: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ThinkingType {
    Enabled,
    Adaptive,
    Disabled,
}

#[derive(Deserialize)]
struct WireFormat {
    r#type: FormatType,
    json_schema: Option<WireSchema>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatType {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize)]
struct WireSchema {
    name: String,
    schema: Option<Json>,
    strict: Option<bool>,
}

pub(in crate::models::format) fn decode_request(body: &[u8]) -> Result<ClientRequest, FormatError> {
    let wire: Request = read::json(body)?;
    wire.refuse_what_nobody_answers()?;

    let mut conversation = Conversation::default();
    for (index, message) in wire.messages.into_iter().enumerate() {
        conversation.add(message, &format!("messages[{index}]"))?;
    }
    let mut request = ModelRequest::messages(conversation.messages);
    if request.messages.is_empty() {
        let problem = "must hold at least one message of the user or the assistant";
        return Err(FormatError::at("messages", problem));
    }
    if !conversation.system.is_empty() {
        request.system = Some(conversation.system.join("\n\n"));
    }
    request.preferred_model = Some(wire.model);
    request.max_tokens = wire.max_completion_tokens.or(wire.max_tokens);
    request.temperature = number("temperature", wire.temperature, 0.0, 2.0)?;
    request.top_p = number("top_p", wire.top_p, 0.0, 1.0)?;
    request.frequency_penalty = number("frequency_penalty", wire.frequency_penalty, -2.0, 2.0)?;
    request.presence_penalty = number("presence_penalty", wire.presence_penalty, -2.0, 2.0)?;
    request.seed = wire.seed;
    request.user = wire.user;
    request.stop = stops(wire.stop, "stop")?;
    request.stream = wire.stream.unwrap_or(false);
    request.tools = tools(wire.tools.unwrap_or_default())?;
    request.tool_choice = wire.tool_choice.map(|choice| choice.0);
    check_tool_choice(&request)?;
    request.parallel_tool_calls = wire.parallel_tool_calls;
    request.response_format = wire
        .response_format
        .map(response_format)
        .transpose()?
        .flatten();
    request.effort = wire.reasoning_effort;
    request.thinking = match wire.thinking {
        Some(thinking) => Some(match (thinking.r#type, thinking.budget_tokens) {
            (ThinkingType::Disabled, _) => Thinking::Disabled,
            (ThinkingType::Enabled, Some(budget)) => Thinking::Budget(budget),
            (ThinkingType::Enabled | ThinkingType::Adaptive, _) => Thinking::Adaptive,
        }),
        // No effort is OpenAI's way to say it.
        None => (wire.reasoning_effort == Some(Effort::None)).then_some(Thinking::Disabled),
    };
    let include_usage = wire
        .stream_options
        .and_then(|options| options.include_usage);
    Ok(ClientRequest {
        request,
        include_usage: include_usage.unwrap_or(false),
    })
}

impl Request {
    fn refuse_what_nobody_answers(&self) -> Result<(), FormatError> {
        let one = self.n.is_none_or(|n| n == 1);
        refuse("n", !one, "only 1 choice is supported")?;
        let wants_logprobs = self.logprobs == Some(true);
        refuse(
            "logprobs",
            wants_logprobs,
            "is not supported, send false or leave it out",
        )?;
        let top_logprobs = self.top_logprobs.is_some_and(|top| top > 0);
        refuse("top_logprobs", top_logprobs, "is not supported")?;
        let biased = self
            .logit_bias
            .as_ref()
            .is_some_and(|bias| !bias.is_empty());
        refuse("logit_bias", biased, "is not supported")?;
        let modalities = self.modalities.iter().flatten();
        let speaks = modalities.clone().any(|modality| modality != "text");
        refuse("modalities", speaks, "only \"text\" is supported")?;
        refuse("audio", self.audio.is_some(), "is not supported")?;
        refuse(
            "functions",
            self.functions.is_some(),
            "is not supported, use `tools`",
        )?;
        let called = self.function_call.is_some();
        refuse(
            "function_call",
            called,
            "is not supported, use `tool_choice`",
        )?;
        let searches = self.web_search_options.is_some();
        refuse("web_search_options", searches, "is not supported")
    }
}

fn tools(tools: Vec<WireTool>) -> Result<Vec<Tool>, FormatError> {
    let tool = |(index, tool): (usize, WireTool)| {
        if tool.r#type != "function" {
            return Err(FormatError::at(
                format!("tools[{index}].type"),
                format_args!("`{}` is not supported, only `function` is", tool.r#type),
            ));
        }
        let function = tool.function.ok_or_else(|| {
            FormatError::at(format!("tools[{index}].function"), "the field is missing")
        })?;
        Ok(Tool {
            name: function.name,
            description: function.description,
            parameters: function.parameters,
            strict: function.strict,
        })
    };
    tools.into_iter().enumerate().map(tool).collect()
}

/// A word, or the one function that has to be called.
struct WireChoice(ToolChoice);

impl<'de> Deserialize<'de> for WireChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
        use std::fmt;

        #[derive(Deserialize)]
        struct Named {
            r#type: String,
            function: Option<Name>,
        }

        #[derive(Deserialize)]
        struct Name {
            name: String,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", \"none\", \"required\" or an object that names a function")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" => Ok(ToolChoice::Required),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                match Named::deserialize(MapAccessDeserializer::new(map))? {
                    Named {
                        r#type,
                        function: Some(function),
                    } if r#type == "function" => Ok(ToolChoice::Tool(function.name)),
                    Named { r#type: kind, .. } => Err(A::Error::custom(format_args!(
                        "`{kind}` is not supported, only `function` with its name is"
                    ))),
                }
            }
        }

        deserializer.deserialize_any(Either).map(Self)
    }
}

/// `None` for plain text.
fn response_format(format: WireFormat) -> Result<Option<ResponseFormat>, FormatError> {
    Ok(match format.r#type {
        FormatType::Text => None,
        FormatType::JsonObject => Some(ResponseFormat::Json),
        FormatType::JsonSchema => {
            let missing = |field: &str| {
                FormatError::at(format!("response_format.{field}"), "the field is missing")
            };
            let schema = format.json_schema.ok_or_else(|| missing("json_schema"))?;
            Some(ResponseFormat::JsonSchema {
                name: schema.name,
                schema: schema.schema.ok_or_else(|| missing("json_schema.schema"))?,
                strict: schema.strict,
            })
        }
    })
}
