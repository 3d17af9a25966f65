//! What both wire formats ask, read into one shape and checked about as strictly as the real APIs do.

use axum::http::StatusCode;
use serde_json::Value;

use super::Kind;

/// A model request, read from either wire format.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) max_tokens: Option<u64>,
    pub(super) stream: bool,
    /// `stream_options.include_usage`.
    pub(super) include_usage: bool,
    pub(super) thinks: bool,
    pub(super) stop: Vec<String>,
    pub(super) tools: Vec<Tool>,
    pub(super) tool_choice: ToolChoice,
    /// The text of the last message that a user wrote.
    pub(super) said: String,
    pub(super) images: usize,
    /// What a tool returned, if that is what the conversation ends with.
    pub(super) tool_result: Option<String>,
    /// The beginning of the answer, which is to be continued.
    pub(super) prefix: Option<String>,
    /// The message before the one that is read, if it was an assistant's.
    before: String,
    pub(super) prompt_tokens: usize,
}

/// A tool that may be called.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    /// The JSON schema of its arguments.
    pub(super) schema: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ToolChoice {
    Auto,
    None,
    Any,
    Named(String),
}

impl Ask {
    /// Reads a body. Fields that aren't simulated are let through, as the real APIs do with most.
    pub(super) fn read(kind: Kind, body: &[u8]) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body isn't JSON: {error}")))?;
        let model = match body.get("model") {
            Some(Value::String(model)) if !model.is_empty() => model.clone(),
            Some(_) => return wrong("model: must be a string that isn't empty"),
            None => return wrong("model: Field required"),
        };
        let max_tokens = match body.get("max_tokens").or(body.get("max_completion_tokens")) {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64() {
                Some(tokens) if tokens > 0 => Some(tokens),
                _ => return wrong("max_tokens: must be a whole number above 0"),
            },
        };
        let stream = match body.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return wrong("stream: must be true or false"),
        };
        let hottest = if kind == Kind::Anthropic { 1.0 } else { 2.0 };
        if let Some(temperature) = body.get("temperature").and_then(Value::as_f64)
            && !(0.0..=hottest).contains(&temperature)
        {
            return wrong(format!("temperature: range: 0..{hottest}"));
        }
        let messages = match body.get("messages") {
            Some(Value::Array(messages)) if !messages.is_empty() => messages,
            Some(_) => return wrong("messages: at least one message is required"),
            None => return wrong("messages: Field required"),
        };
        let system = body.get("system").and_then(text).unwrap_or_default();
        let mut ask = Self {
            // DeepSeek's reasoner always thinks; elsewhere it is asked for.
            thinks: model.contains("reasoner") || body["thinking"]["type"] == "enabled",
            model,
            max_tokens,
            stream,
            include_usage: body["stream_options"]["include_usage"] == true,
            stop: stop(body.get("stop_sequences").or(body.get("stop"))),
            tools: tools(&body),
            tool_choice: tool_choice(&body["tool_choice"]),
            said: String::new(),
            images: 0,
            tool_result: None,
            prefix: None,
            before: String::new(),
            prompt_tokens: words(&system),
        };
        let mut calls = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            ask.read_message(kind, index, message, &mut calls)
                .map_err(|what| Refusal::bad_request(format!("messages.{index}{what}")))?;
        }
        Ok(ask)
    }

    /// `calls` are the ids of the tool calls so far.
    fn read_message<'a>(
        &mut self,
        kind: Kind,
        index: usize,
        message: &'a Value,
        calls: &mut Vec<&'a str>,
    ) -> Result<(), String> {
        let role = message["role"].as_str().ok_or(".role: Field required")?;
        let content = &message["content"];
        let parts = content.as_array().map_or(&[][..], Vec::as_slice);
        if kind == Kind::Anthropic {
            if role != "user" && role != "assistant" {
                return Err(format!(".role: Unexpected role \"{role}\""));
            }
            if index == 0 && role != "user" {
                return Err(": first message must use the \"user\" role".to_owned());
            }
            let empty = |part: &Value| part["type"] == "text" && part["text"] == "";
            if content == "" || parts.iter().any(empty) {
                return Err(": text content blocks must be non-empty".to_owned());
            }
        }
        // A list of calls and results may stand for the text.
        let text = text(content);
        if text.is_none() && role == "user" {
            return Err(".content: Field required".to_owned());
        }
        let text = text.unwrap_or_default();
        self.prompt_tokens += words(&text);
        let before = std::mem::take(&mut self.before);
        (self.prefix, self.tool_result) = (None, None);

        let own_calls = message["tool_calls"].as_array().into_iter().flatten();
        let blocks = parts.iter().filter(|part| part["type"] == "tool_use");
        calls.extend(
            own_calls
                .chain(blocks)
                .filter_map(|call| call["id"].as_str()),
        );
        let results = parts.iter().filter(|part| part["type"] == "tool_result");
        let message_result = (role == "tool").then_some(message);
        for result in results.chain(message_result) {
            let id = result.get("tool_use_id").or(result.get("tool_call_id"));
            let id = id.and_then(Value::as_str).unwrap_or_default();
            if !calls.contains(&id) {
                return Err(format!(": no tool call before this has the id \"{id}\""));
            }
            let content = self::text(&result["content"]).unwrap_or_default();
            self.prompt_tokens += words(&content);
            self.tool_result = Some(content);
        }
        match role {
            "user" => {
                let is_image =
                    |part: &&Value| part["type"] == "image" || part["type"] == "image_url";
                // Where an API has no other way, one asks in words for an answer to be continued.
                if !before.is_empty() && text.contains("cut off") {
                    self.prefix = Some(before);
                    return Ok(());
                }
                self.images = parts.iter().filter(is_image).count();
                self.prompt_tokens += self.images;
                self.said = text;
            }
            "assistant" if kind == Kind::Anthropic || message["prefix"] == true => {
                if kind == Kind::Anthropic && text.ends_with(char::is_whitespace) {
                    return Err(
                        ": final assistant content cannot end with trailing whitespace".to_owned(),
                    );
                }
                self.prefix = Some(text);
            }
            "assistant" => self.before = text,
            _ => {}
        }
        Ok(())
    }
}

fn wrong<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::bad_request(message))
}

/// The text of a `content`, which is a string or a list of parts.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<_> = parts
                .iter()
                .filter_map(|part| part.get("text")?.as_str())
                .collect();
            Some(texts.join(" "))
        }
        _ => None,
    }
}

fn stop(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => {
            let many = many.iter().filter_map(Value::as_str);
            many.filter(|stop| !stop.is_empty())
                .map(str::to_owned)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Anthropic's tools are flat, OpenAI's stand under `function`.
fn tools(body: &Value) -> Vec<Tool> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            let tool = tool.get("function").unwrap_or(tool);
            let schema = tool.get("input_schema").or(tool.get("parameters"));
            Some(Tool {
                name: tool["name"].as_str()?.to_owned(),
                schema: schema.cloned().unwrap_or_default(),
            })
        })
        .collect()
}

fn tool_choice(choice: &Value) -> ToolChoice {
    let word = choice.as_str().or(choice["type"].as_str());
    let name = choice["name"].as_str();
    match (word, name.or(choice["function"]["name"].as_str())) {
        (_, Some(name)) => ToolChoice::Named(name.to_owned()),
        (Some("any" | "required"), _) => ToolChoice::Any,
        (Some("none"), _) => ToolChoice::None,
        _ => ToolChoice::Auto,
    }
}

/// Usage is counted by words: nobody has to know a tokenizer to check the sums.
pub(super) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Why a request gets no answer. Each wire format gives it its own shape.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}
