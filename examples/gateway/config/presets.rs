//! The providers and models of a gateway that nobody has told of any.

use std::collections::BTreeMap;

use tower_breaker::models::{ApiKey, Deadlines, MidStream};

use super::{
    Args, Model, Provider, circuit::Layers, file::Kind, problem::Problem, secret::variable,
};

const CLAUDE: &str = "claude-3.5-sonnet";
const DEEPSEEK: &str = "deepseek-chat";

type Presets = (
    BTreeMap<String, Provider>,
    BTreeMap<String, Model>,
    Option<String>,
);

/// Those whose keys there are, or both of them, simulated; each stands in for the other. With them
/// the model that is the default.
pub(super) fn presets(
    args: &Args,
    layers: &Layers<'_>,
    deadlines: Deadlines,
) -> Result<Presets, Problem> {
    let all = [
        (
            ("claude", Kind::Anthropic, "ANTHROPIC"),
            args.anthropic_base_url.as_ref(),
            (CLAUDE, &args.anthropic_model),
        ),
        (
            ("deepseek", Kind::DeepSeek, "DEEPSEEK"),
            args.deepseek_base_url.as_ref(),
            (DEEPSEEK, &args.deepseek_model),
        ),
    ];
    let mut keys = Vec::new();
    for ((_, _, prefix), base_url, _) in &all {
        let name = format!("{prefix}_API_KEY");
        let key = match variable(&name)? {
            // A server of one's own often asks for none.
            None if base_url.is_some() => Some("none".to_owned()),
            key => key,
        };
        let key = key.map(ApiKey::new).transpose();
        keys.push(key.map_err(|error| Problem::new(name, error))?);
    }
    let simulated = keys.iter().all(Option::is_none);
    if simulated {
        let key = ApiKey::new("simulated").map_err(|error| Problem::new("key", error))?;
        keys = vec![Some(key.clone()), Some(key)];
    }
    let both = keys.iter().all(Option::is_some);

    let mut providers = BTreeMap::new();
    let mut models = BTreeMap::new();
    let mut first = None;
    for (((name, kind, prefix), base_url, (alias, upstream)), key) in all.into_iter().zip(keys) {
        let Some(key) = key else { continue };
        let provider = Provider {
            kind,
            base_url: base_url.cloned(),
            key,
            simulated,
            forward_headers: Vec::new(),
            circuit: layers.circuit(&[])?,
            deadlines,
        };
        provider
            .codec(provider.base_url.as_deref())
            .map_err(|error| Problem::new(format!("{prefix}_BASE_URL"), error))?;
        providers.insert(name.to_owned(), provider);
        let other = if alias == CLAUDE { DEEPSEEK } else { CLAUDE };
        let model = Model {
            provider: name.to_owned(),
            upstream: upstream.clone(),
            fallbacks: both.then(|| other.to_owned()).into_iter().collect(),
            degraded: Vec::new(),
            mid_stream: MidStream::default(),
            max_tokens: None,
            deadlines,
            circuit: None,
        };
        models.insert(alias.to_owned(), model);
        first.get_or_insert_with(|| alias.to_owned());
    }
    Ok((providers, models, first))
}
