//! What a simulated provider says: the same to both wire formats, and always the same to the same question.

use serde_json::{Map, Value, json};

use super::ask::{Ask, Tool, ToolChoice, words};

/// How much of the last user message an answer repeats.
const ECHOED_WORDS: usize = 12;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) blocks: Vec<Block>,
    pub(super) finish: Finish,
    pub(super) completion_tokens: usize,
    pub(super) thought_tokens: usize,
}

/// A part of an answer, cut into the pieces in which it is streamed. No piece is empty.
#[derive(Debug)]
pub(super) enum Block {
    Thought(Vec<String>),
    Text(Vec<String>),
    /// A call of the tool with this name. The pieces are those of the arguments' JSON.
    Call(String, Vec<String>),
}

/// Why an answer ended.
#[derive(Debug)]
pub(super) enum Finish {
    Done,
    CutShort,
    /// At this stop sequence.
    Stopped(String),
    Called,
}

impl Reply {
    pub(super) fn new(name: &str, ask: &Ask) -> Self {
        let mut reply = Self {
            blocks: Vec::new(),
            finish: Finish::Done,
            completion_tokens: 0,
            thought_tokens: 0,
        };
        if ask.thinks {
            let thought = pieces("They said something, so I repeat it.");
            reply.thought_tokens = thought.len();
            reply.blocks.push(Block::Thought(thought));
        }
        if let Some(tool) = called(ask) {
            let arguments = arguments(tool, &ask.said).to_string();
            let middle = arguments.len() / 2;
            let middle = (middle..).find(|&at| arguments.is_char_boundary(at));
            let halves = arguments.split_at(middle.unwrap_or(0));
            reply.completion_tokens = 2;
            reply.finish = Finish::Called;
            let halves = vec![halves.0.to_owned(), halves.1.to_owned()];
            reply.blocks.push(Block::Call(tool.name.clone(), halves));
        } else {
            let mut text = pieces(&whole(name, ask));
            if let Some(prefix) = &ask.prefix {
                // Who began has said as many words, so that both parts join to one answer, whoever wrote which.
                text.drain(..text.len().min(words(prefix)));
            }
            reply.say(text, ask);
        }
        reply.completion_tokens += reply.thought_tokens;
        reply
    }

    /// Ends the text where the request wants it to end.
    fn say(&mut self, mut text: Vec<String>, ask: &Ask) {
        let limit = ask.max_tokens.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        if text.len() > limit {
            text.truncate(limit);
            self.finish = Finish::CutShort;
        }
        let spoken = text.concat();
        let first = ask
            .stop
            .iter()
            .filter_map(|stop| Some((spoken.find(stop.as_str())?, stop)))
            .min();
        if let Some((at, stop)) = first {
            text = pieces(&spoken[..at]);
            self.finish = Finish::Stopped(stop.clone());
        }
        self.completion_tokens = text.len();
        self.blocks.push(Block::Text(text));
    }
}

/// The answer before anything ends it.
fn whole(name: &str, ask: &Ask) -> String {
    let (verb, what) = match &ask.tool_result {
        Some(result) => ("The tool said", result),
        None => ("You said", &ask.said),
    };
    let said: Vec<_> = what.split_whitespace().collect();
    let echo = said[..said.len().min(ECHOED_WORDS)].join(" ");
    let more = if said.len() > ECHOED_WORDS {
        " ..."
    } else {
        ""
    };
    let shown = match ask.images {
        0 => String::new(),
        count => format!(" Images: {count}"),
    };
    format!("Hello! This is {name}, simulated. {verb}: {echo}{more}{shown}")
}

/// The words, each with the space before it, as real tokens are.
fn pieces(text: &str) -> Vec<String> {
    let words = text.split(' ').enumerate();
    words
        .filter(|(_, word)| !word.is_empty())
        .map(|(index, word)| {
            if index == 0 {
                word.to_owned()
            } else {
                format!(" {word}")
            }
        })
        .collect()
}

/// The tool that is called: the one that has to be, or the one that a user's message has in mind. `get_weather` is
/// it for "What is the weather in Paris?".
fn called(ask: &Ask) -> Option<&Tool> {
    if ask.tool_result.is_some() || ask.prefix.is_some() {
        return None;
    }
    match &ask.tool_choice {
        ToolChoice::None => None,
        ToolChoice::Any => ask.tools.first(),
        ToolChoice::Named(name) => ask.tools.iter().find(|tool| tool.name == *name),
        ToolChoice::Auto => {
            let said = ask.said.to_lowercase();
            let meant = |word: &str| word.len() > 3 && said.contains(&word.to_lowercase());
            let mut tools = ask.tools.iter();
            tools.find(|tool| tool.name.split(['_', '-']).any(meant))
        }
    }
}

/// Arguments that fit the schema of a tool: the last word said, wherever there is room for text.
fn arguments(tool: &Tool, said: &str) -> Value {
    let word = said
        .split_whitespace()
        .last()
        .map_or("", |word| word.trim_end_matches(['?', '.', '!']));
    let none = Map::new();
    let fields = tool.schema["properties"].as_object().unwrap_or(&none);
    let fields = fields.iter().map(|(name, field)| {
        let first = field["enum"].get(0);
        let value = match (first, field["type"].as_str()) {
            (Some(first), _) => first.clone(),
            (_, Some("integer" | "number")) => json!(1),
            (_, Some("boolean")) => json!(true),
            (_, Some("array")) => json!([]),
            (_, Some("object")) => json!({}),
            _ => json!(word),
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}
