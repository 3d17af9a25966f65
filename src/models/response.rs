//! What a provider answered, in one shape for all of them.

use std::fmt;

use serde::{Serialize, Serializer};

use super::content::{Reasoning, ToolCall};

/// A whole answer of one provider.
///
/// As JSON its fields are in camel case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Completion {
    /// The provider's own id of the answer; empty if it gave none.
    pub id: String,
    /// The model that answered, as the provider names it: often a dated version of what was asked
    /// for. Empty if the provider didn't say.
    pub model: String,
    /// The answer.
    pub text: String,
    /// What the model thought before it answered, where the provider tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The same thoughts in the blocks and with the signatures that the provider needs to know them
    /// again; empty where it needs none.
    #[serde(skip)]
    pub reasoning_blocks: Vec<Reasoning>,
    /// The tools that the model wants to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// What the answer cost.
    pub usage: Usage,
}

impl Completion {
    /// An answer with this text, which ended by itself; the other fields are empty.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            id: String::new(),
            model: String::new(),
            text: text.into(),
            reasoning: None,
            reasoning_blocks: Vec::new(),
            tool_calls: Vec::new(),
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
        }
    }
}

/// The tokens that an answer was billed for; zero where the provider didn't say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// The tokens of the request, those read from or written to a cache included.
    pub input_tokens: u64,
    /// The tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// Those of the input that were read from a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    /// Those of the input that were written to a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Those of the output that went into reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
}

impl Usage {
    /// So many tokens of the request and of the answer, and no details.
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens,
            output_tokens,
            ..Self::default()
        }
    }
}

fn is_zero(tokens: &u64) -> bool {
    *tokens == 0
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }
}

/// Why an answer ended.
///
/// As JSON a string: `stop`, `length`, `tool_calls`, `content_filter`, or the provider's own word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model had said all it wanted, or met a stop sequence.
    Stop,
    /// The model met this stop sequence, where the provider tells which; in JSON `stop` as well.
    StopSequence(String),
    /// The answer reached `max_tokens`, or the end of the model's context.
    Length,
    /// The model wants a tool to be called.
    ToolCalls,
    /// The provider or the model declined to go on.
    ContentFilter,
    /// Something else, in the provider's own word; `unknown` if it gave none.
    Other(String),
}

impl FinishReason {
    /// The reason in one word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop | Self::StopSequence(_) => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other(word) => word,
        }
    }

    /// The reason of an answer that is complete and names none.
    pub(super) fn unknown() -> Self {
        Self::Other("unknown".to_owned())
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FinishReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_an_answer_is_camel_case_json() {
        let mut completion = Completion::new("Hello");
        completion.id = "msg_1".to_owned();
        completion.model = "claude".to_owned();
        completion.finish_reason = FinishReason::ToolCalls;
        completion.usage = Usage::new(3, 5);
        assert_eq!(
            serde_json::to_value(&completion).unwrap(),
            serde_json::json!({
                "id": "msg_1",
                "model": "claude",
                "text": "Hello",
                "finishReason": "tool_calls",
                "usage": { "inputTokens": 3, "outputTokens": 5 },
            })
        );
        completion.reasoning = Some("hm".to_owned());
        completion.finish_reason = FinishReason::Other("pause_turn".to_owned());
        let json = serde_json::to_value(&completion).unwrap();
        assert_eq!(json["reasoning"], "hm");
        assert_eq!(json["finishReason"], "pause_turn");
    }
}
