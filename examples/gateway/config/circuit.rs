//! A circuit breaker's configuration, from the defaults and what is laid over them.

use serde_json::{Value, json};
use tower_breaker::{CircuitBreakerConfig, RetryAfterPolicy};

use super::{
    file::Fields,
    problem::{Problem, Source},
};

const VARIABLE: &str = "GATEWAY_CIRCUIT_BREAKER";

/// What lies under and over each circuit's own table: the file's table for all of them, and what
/// the environment says.
pub(super) struct Layers<'a> {
    pub(super) source: Source<'a>,
    pub(super) file: &'a Fields,
    pub(super) over: &'a Fields,
}

impl Layers<'_> {
    /// The circuit of these tables, the last of which comes first; each with the path to what
    /// holds it.
    pub(super) fn circuit(
        &self,
        tables: &[(&[&str], &Fields)],
    ) -> Result<CircuitBreakerConfig, Problem> {
        // A provider that says when to come back is left alone until then, unless told otherwise.
        let mut fields = Fields::new();
        fields.insert("retry_after".to_owned(), json!(RetryAfterPolicy::Open));
        lay_over(&mut fields, self.file);
        for (_, table) in tables {
            lay_over(&mut fields, table);
        }
        lay_over(&mut fields, self.over);
        read(fields).map_err(|(field, message)| {
            let spelled = [snake_case(&field), camel_case(&field)];
            if spelled.iter().any(|name| self.over.contains_key(name)) {
                return Problem::new(VARIABLE, message);
            }
            let tables = tables.iter().rev().map(|(path, _)| *path);
            let mut paths = Vec::new();
            for table in tables.chain([&[] as &[&str]]) {
                for name in &spelled {
                    paths.push([table, &["circuit_breaker", name.as_str()]].concat());
                }
            }
            let path = paths.iter().find(|path| self.source.has(path));
            self.source.wrong(path.unwrap_or(&paths[0]), message)
        })
    }
}

/// What the environment says about every circuit.
pub(super) fn from_json(json: Option<&str>) -> Result<Fields, Problem> {
    let Some(json) = json else {
        return Ok(Fields::new());
    };
    serde_json::from_str(json)
        .map_err(|error| Problem::new(VARIABLE, format!("{error}, in `{json}`")))
}

/// Checks the fields; or else names the one that is wrong, and says why.
pub(crate) fn read(fields: Fields) -> Result<CircuitBreakerConfig, (String, String)> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        let field = if path == "." {
            // What is out of its range is known only to the whole, whose message begins with it.
            message.split(' ').next().unwrap_or_default().to_owned()
        } else {
            path.split('.').next().unwrap_or_default().to_owned()
        };
        (field, message)
    })
}

/// The field as it is spelled in `given`, if it is there.
pub(crate) fn spelled(given: &Fields, field: String) -> String {
    let same = |name: &&String| snake_case(name) == snake_case(&field);
    given.keys().find(same).cloned().unwrap_or(field)
}

/// Each field of `over` takes the place of the one below it, whichever way the two are spelled.
pub(crate) fn lay_over(fields: &mut Fields, over: &Fields) {
    for (name, value) in over {
        fields.remove(&snake_case(name));
        fields.remove(&camel_case(name));
        // TOML has no null, so `false` switches a rule off.
        let value = match value {
            Value::Bool(false) => Value::Null,
            value => value.clone(),
        };
        fields.insert(name.clone(), value);
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    camel
}
