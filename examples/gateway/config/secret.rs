//! Keys and tokens. They come from variables and files, never from the configuration itself, which
//! ends up in repositories and chats.

use std::{env, fs, path::Path};

use tower_breaker::models::ApiKey;

use super::{
    file::{Admin, Kind, ProviderTable},
    problem::{Problem, Source},
};
use crate::routes::AdminToken;

const ADMIN_TOKEN: &str = "GATEWAY_ADMIN_TOKEN";

/// A variable's value; one that is empty counts as unset, as in a shell's `KEY= command`.
pub(super) fn variable(name: &str) -> Result<Option<String>, Problem> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Problem::new(name, "is not valid UTF-8")),
    }
}

/// The key of a provider's API. A server of one's own often asks for none, so with an address
/// there need not be one.
pub(super) fn api_key(
    name: &str,
    table: &ProviderTable,
    source: Source<'_>,
) -> Result<ApiKey, Problem> {
    let wrong = |field, message: String| source.wrong(&["providers", name, field], message);
    let (field, key) = match (&table.api_key_env, &table.api_key_file) {
        (Some(_), Some(_)) => {
            let message = "there is an api_key_env too: take one of the two away";
            return Err(wrong("api_key_file", message.to_owned()));
        }
        (Some(name), None) => {
            let key = variable(name)?;
            let unset = || wrong("api_key_env", format!("the variable {name} is not set"));
            ("api_key_env", key.ok_or_else(unset)?)
        }
        (None, Some(file)) => {
            let key = read(file).map_err(|error| wrong("api_key_file", error))?;
            ("api_key_file", key)
        }
        (None, None) if table.simulated => ("api_key_env", "simulated".to_owned()),
        (None, None) => {
            let usual = match table.kind {
                Kind::Anthropic => "ANTHROPIC_API_KEY",
                Kind::OpenAi => "OPENAI_API_KEY",
                Kind::DeepSeek => "DEEPSEEK_API_KEY",
            };
            let key = match variable(usual)? {
                None if table.base_url.is_some() => "none".to_owned(),
                None => {
                    let message = format!(
                        "has to name the variable that holds the key: {usual}, where it is \
                         looked for without this, is not set"
                    );
                    return Err(wrong("api_key_env", message));
                }
                Some(key) => key,
            };
            ("api_key_env", key)
        }
    };
    ApiKey::new(key).map_err(|error| wrong(field, error.to_string()))
}

/// The token of `/admin`. One that is asked for and not there is an error: the gateway would be
/// less guarded than it was meant to be.
pub(super) fn admin_token(
    admin: &Admin,
    source: Source<'_>,
) -> Result<Option<AdminToken>, Problem> {
    let wrong = |field, message: String| source.wrong(&["admin", field], message);
    match (&admin.token_env, &admin.token_file) {
        (Some(_), Some(_)) => {
            let message = "there is a token_env too: take one of the two away";
            Err(wrong("token_file", message.to_owned()))
        }
        (Some(name), None) => {
            let unset = || wrong("token_env", format!("the variable {name} is not set"));
            let token = variable(name)?.ok_or_else(unset)?;
            AdminToken::new(&token, format!("env:{name}"))
                .map(Some)
                .map_err(|error| Problem::new(name.clone(), error))
        }
        (None, Some(file)) => {
            let token = read(file).map_err(|error| wrong("token_file", error))?;
            AdminToken::new(&token, format!("file:{}", file.display()))
                .map(Some)
                .map_err(|error| wrong("token_file", error.to_owned()))
        }
        (None, None) => {
            let token = variable(ADMIN_TOKEN)?;
            token
                .map(|token| AdminToken::new(&token, format!("env:{ADMIN_TOKEN}")))
                .transpose()
                .map_err(|error| Problem::new(ADMIN_TOKEN, error))
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
