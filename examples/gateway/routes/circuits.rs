//! `/admin/circuit-breakers`: each circuit by its name, which is its provider's, or its model's
//! for one of its own.

#![allow(
    clippy::result_large_err,
    reason = "an error here is the rare answer to an administrator"
)]

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use tower_breaker::{Circuit, CircuitBreakerConfig};

use super::{admin::Details, error::ApiError, read};
use crate::{app::App, config};

pub(super) async fn list(State(app): State<App>) -> Json<BTreeMap<String, Value>> {
    let manager = app.manager();
    let circuits = manager.circuits();
    Json(
        circuits
            .map(|(name, circuit)| (name.to_owned(), describe(circuit)))
            .collect(),
    )
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    find(&app, &name).map(|circuit| Json(describe(&circuit)))
}

pub(super) async fn reset(app: State<App>, name: Path<String>) -> Result<Json<Value>, ApiError> {
    change(&app, &name, Circuit::reset)
}

pub(super) async fn force_open(
    app: State<App>,
    name: Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(&app, &name, Circuit::force_open)
}

pub(super) async fn disable(app: State<App>, name: Path<String>) -> Result<Json<Value>, ApiError> {
    change(&app, &name, Circuit::disable)
}

pub(super) async fn config(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<CircuitBreakerConfig>, ApiError> {
    find(&app, &name).map(|circuit| Json(circuit.config()))
}

/// Goes on with another configuration, in place. Fields that are left out stay as they are.
pub(super) async fn reconfigure(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let circuit = find(&app, &name)?;
    let given: Map<String, Value> = read::json(&app, body).await?;
    let now = serde_json::to_value(circuit.config())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut fields = now.as_object().cloned().unwrap_or_default();
    config::lay_over(&mut fields, &given);
    let config = config::circuit(fields).map_err(|(field, message)| {
        let field = config::spelled(&given, field);
        let message = format!("{field}: {message}");
        ApiError::invalid_config(field, message)
    })?;
    circuit.reconfigure(config);
    let mut response = Json(circuit.config()).into_response();
    let details = Details(Value::Object(given).to_string());
    response.extensions_mut().insert(details);
    Ok(response)
}

fn change(app: &App, name: &str, change: impl Fn(&Circuit)) -> Result<Json<Value>, ApiError> {
    let circuit = find(app, name)?;
    change(&circuit);
    Ok(Json(describe(&circuit)))
}

fn find(app: &App, name: &str) -> Result<Circuit, ApiError> {
    let manager = app.manager();
    let found = manager.circuits().find(|(known, _)| *known == name);
    found.map(|(_, circuit)| circuit.clone()).ok_or_else(|| {
        let known: Vec<_> = manager.circuits().map(|(name, _)| name).collect();
        ApiError::not_found(format!(
            "there is no circuit breaker `{name}`; there are {}",
            known.join(", ")
        ))
    })
}

fn describe(circuit: &Circuit) -> Value {
    let metrics = circuit.metrics();
    json!({
        "state": metrics.current_state,
        "available": metrics.available,
        "reason": metrics.trip_reason,
        "metrics": metrics,
        "config": circuit.config(),
    })
}
