//! What a model may do besides talking: call tools, think, and answer in a given form.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{ModelError, ModelErrorKind};

/// A JSON value, kept as the text that it was written in.
///
/// A schema goes from the client to the provider, and nobody in between has to understand it. As
/// text it keeps the order of its members, which is the order in which a model fills them in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The value that this text stands for.
    ///
    /// # Errors
    ///
    /// [`ModelErrorKind::InvalidRequest`] if it isn't JSON.
    pub fn new(text: impl Into<String>) -> Result<Self, ModelError> {
        let raw = RawValue::from_string(text.into()).map_err(|error| {
            ModelError::new(ModelErrorKind::InvalidRequest, "the text is not JSON")
                .with_source(error)
        })?;
        Ok(Self(raw))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// A tool that the model may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tool {
    /// Its name, by which the model calls it.
    pub name: String,
    /// What it is for, in words for the model.
    pub description: Option<String>,
    /// The JSON schema of its arguments; without one it takes none.
    pub parameters: Option<Json>,
    /// Whether the arguments are held to the schema, where the provider can do that.
    pub strict: Option<bool>,
}

impl Tool {
    /// A tool without a description that takes no arguments.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            parameters: None,
            strict: None,
        }
    }

    /// Sets what the tool is for, in words for the model.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Sets the JSON schema of the arguments.
    #[must_use]
    pub fn parameters(mut self, schema: Json) -> Self {
        self.parameters = Some(schema);
        self
    }
}

/// Whether the model has to call a tool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolChoice {
    /// It decides.
    Auto,
    /// It must not.
    None,
    /// It must, whichever.
    Required,
    /// It must call the one of this name.
    Tool(String),
}

/// Whether the model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Thinking {
    /// It doesn't.
    Disabled,
    /// It does, as much as it finds right.
    Adaptive,
    /// It does between its calls of tools.
    BetweenTools,
    /// It does, for at most so many tokens.
    Budget(u32),
}

/// How much work the model puts into its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the providers' own words, from little to much")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// The form that the answer has to have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseFormat {
    /// A JSON object, whichever.
    Json,
    /// JSON that a schema describes.
    JsonSchema {
        /// The name of the schema.
        name: String,
        /// The schema.
        schema: Json,
        /// Whether the answer is held to it, where the provider leaves the choice.
        strict: Option<bool>,
    },
}
