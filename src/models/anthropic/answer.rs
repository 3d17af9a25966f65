//! What Anthropic answers, as a whole.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::models::{
    content::{Reasoning, ToolCall},
    response::{Completion, FinishReason, Usage},
};

#[derive(Deserialize)]
pub(super) struct Answer {
    id: Option<String>,
    model: Option<String>,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    // Read leniently: an answer isn't worthless because its bill can't be read.
    #[serde(default)]
    usage: Value,
    pub(super) error: Option<Value>,
}

/// A block of any type.
///
/// No enum by `type`: serde reads one of those by way of a buffer that can't hold raw JSON.
#[derive(Deserialize)]
pub(super) struct Block {
    pub(super) r#type: String,
    pub(super) text: Option<String>,
    pub(super) thinking: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) data: Option<String>,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) input: Option<Box<RawValue>>,
}

impl Answer {
    pub(super) fn into_completion(self) -> Result<Completion, Cow<'static, str>> {
        let blocks = self.content.ok_or("the answer has no `content`")?;
        let mut completion = Completion::new("");
        for block in blocks {
            block.add_to(&mut completion).map_err(|field| {
                format!("the JSON is not what the API promises: a block has no `{field}`")
            })?;
        }
        completion.id = self.id.unwrap_or_default();
        completion.model = self.model.unwrap_or_default();
        completion.finish_reason = finish_reason(self.stop_reason, self.stop_sequence);
        add_usage(&self.usage, &mut completion.usage);
        Ok(completion)
    }
}

impl Block {
    fn add_to(self, completion: &mut Completion) -> Result<(), &'static str> {
        match self.r#type.as_str() {
            "text" => completion.text.push_str(&self.text.ok_or("text")?),
            "thinking" => {
                let text = self.thinking.ok_or("thinking")?;
                let reasoning = completion.reasoning.get_or_insert_default();
                reasoning.push_str(&text);
                let signature = self.signature;
                completion
                    .reasoning_blocks
                    .push(Reasoning::Text { text, signature });
            }
            "redacted_thinking" => {
                let data = self.data.ok_or("data")?;
                completion.reasoning_blocks.push(Reasoning::Redacted(data));
            }
            "tool_use" => completion.tool_calls.push(ToolCall {
                id: self.id.ok_or("id")?,
                name: self.name.ok_or("name")?,
                arguments: self.input.ok_or("input")?.get().to_owned(),
            }),
            // What is yet to come: the API adds types without a version.
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn finish_reason(reason: Option<String>, sequence: Option<String>) -> FinishReason {
    let Some(reason) = reason else {
        return FinishReason::unknown();
    };
    match reason.as_str() {
        "end_turn" => FinishReason::Stop,
        "stop_sequence" => sequence.map_or(FinishReason::Stop, FinishReason::StopSequence),
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Other(reason),
    }
}

/// Takes over the counts that are there. A stream tells them twice, and not all of them each time.
pub(super) fn add_usage(json: &Value, usage: &mut Usage) {
    let tokens = |field| json.get(field).and_then(Value::as_u64);
    // Of the input before it is changed: what went through the cache is left out of `input_tokens`,
    // while other providers count it in.
    let uncached = usage
        .input_tokens
        .saturating_sub(usage.cache_read_tokens)
        .saturating_sub(usage.cache_write_tokens);
    let uncached = tokens("input_tokens").unwrap_or(uncached);
    if let Some(read) = tokens("cache_read_input_tokens") {
        usage.cache_read_tokens = read;
    }
    if let Some(written) = tokens("cache_creation_input_tokens") {
        usage.cache_write_tokens = written;
    }
    usage.input_tokens = uncached
        .saturating_add(usage.cache_read_tokens)
        .saturating_add(usage.cache_write_tokens);
    if let Some(output) = tokens("output_tokens") {
        usage.output_tokens = output;
    }
    // `Value::pointer` would make two strings of each part of the path, for every answer.
    let details = json.get("output_tokens_details");
    let thinking = details.and_then(|details| details.get("thinking_tokens"));
    if let Some(thinking) = thinking.and_then(Value::as_u64) {
        usage.reasoning_tokens = thinking;
    }
}
