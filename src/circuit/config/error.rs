//! What is wrong with a configuration.

use std::fmt;

/// A field of a configuration is out of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) allowed: String,
}

impl ConfigError {
    pub(in crate::circuit) fn unless(
        allowed: bool,
        field: &'static str,
        value: impl ToString,
        range: impl FnOnce() -> String,
    ) -> Result<(), Self> {
        if allowed {
            return Ok(());
        }
        Err(Self {
            field,
            value: value.to_string(),
            allowed: range(),
        })
    }

    /// The field, as the builder's method is called.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that was refused.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values that are allowed, in words.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, but has to be {}",
            self.field, self.value, self.allowed
        )
    }
}

impl std::error::Error for ConfigError {}
