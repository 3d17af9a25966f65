//! What is wrong with the configuration, and where.

use std::{fmt, ops::Range, path::Path};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something is wrong with the configuration: `gateway.toml:12: limits.queue: ...`.
#[derive(Debug)]
pub(crate) struct Problem {
    place: String,
    message: String,
}

impl Problem {
    /// `place` is a variable, a flag or a file.
    pub(super) fn new(place: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            place: place.into(),
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Problem {}

/// A configuration's text, to tell where in it something is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    name: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a Path, text: &'a str) -> Self {
        Self { name, text }
    }

    /// The whole text as a value.
    pub(super) fn read<T: Deserialize<'a>>(&self) -> Result<T, Problem> {
        let deserializer = toml::Deserializer::parse(self.text)
            .map_err(|error| self.at(error.span(), error.message()))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            let message = error.message();
            if path == "." {
                self.at(error.span(), message)
            } else {
                self.at(error.span(), &format!("{path}: {message}"))
            }
        })
    }

    /// The value at this path is wrong. Where there is none, the line is that of the table that
    /// should have it.
    pub(super) fn wrong(&self, path: &[&str], message: impl fmt::Display) -> Problem {
        let span = DeTable::parse(self.text)
            .ok()
            .and_then(|root| span_of(root.get_ref(), path));
        // An alias may hold dots, and is quoted then, as it is in the file.
        let path: Vec<_> = path
            .iter()
            .map(|key| {
                if key.contains('.') {
                    format!("{key:?}")
                } else {
                    (*key).to_owned()
                }
            })
            .collect();
        self.at(span, &format!("{}: {message}", path.join(".")))
    }

    /// Whether there is a value at this path.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        DeTable::parse(self.text).is_ok_and(|root| {
            let mut table = root.get_ref();
            path.iter().enumerate().all(|(depth, key)| {
                let Some((_, value)) = entry(table, key) else {
                    return false;
                };
                if let Some(inner) = value.get_ref().as_table() {
                    table = inner;
                    return true;
                }
                depth + 1 == path.len()
            })
        })
    }

    fn at(&self, span: Option<Range<usize>>, message: &str) -> Problem {
        let file = self.name.display();
        let place = match span {
            Some(span) => {
                let before = self.text.get(..span.start).unwrap_or(self.text);
                format!("{file}:{}", before.matches('\n').count() + 1)
            }
            None => file.to_string(),
        };
        Problem::new(place, message)
    }
}

fn entry<'t, 'i>(
    table: &'t DeTable<'i>,
    key: &str,
) -> Option<(Range<usize>, &'t Spanned<DeValue<'i>>)> {
    let (name, value) = table.iter().find(|(name, _)| *name.get_ref() == key)?;
    Some((name.span(), value))
}

/// Where the value at this path is, or the nearest table around it.
fn span_of(table: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let (key, value) = entry(table, first)?;
    let inner = value.get_ref().as_table();
    inner.and_then(|inner| span_of(inner, rest)).or(Some(key))
}
