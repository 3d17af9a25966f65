//! Reading request bodies: bounded in size and time, with errors that name the field.

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::app::App;

/// How much of a body that is too large is read and thrown away before the answer, as a multiple
/// of the limit. A client that is still sending when the connection closes may never see why.
const DRAIN: usize = 8;

/// The body as JSON of this type.
pub(super) async fn json<T: DeserializeOwned>(app: &App, body: Body) -> Result<T, ApiError> {
    let body = bytes(app, body).await?;
    let deserializer = &mut serde_json::Deserializer::from_slice(&body);
    let value = serde_path_to_error::deserialize(&mut *deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() && path != "." {
            ApiError::invalid(path.clone(), format!("{path}: {error}"))
        } else if error.is_data() {
            ApiError::invalid(None, error.to_string())
        } else {
            ApiError::invalid(None, format!("the body is not JSON: {error}"))
        }
    })?;
    deserializer
        .end()
        .map_err(|error| ApiError::invalid(None, format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// The body, which isn't empty.
pub(super) async fn bytes(app: &App, body: Body) -> Result<Bytes, ApiError> {
    let running = app.running();
    let time = running.limits.body_timeout;
    let body = tokio::time::timeout(time, whole(body, running.limits.body_bytes))
        .await
        .map_err(|_| ApiError::too_slow(format!("the body did not arrive within {time:?}")))??;
    if body.is_empty() {
        return Err(ApiError::invalid(None, "the body is empty, expected JSON"));
    }
    Ok(body)
}

async fn whole(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut kept = Vec::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::invalid(None, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen += data.len();
        if seen <= limit {
            kept.extend_from_slice(&data);
        } else if seen / DRAIN > limit {
            break;
        }
    }
    if seen > limit {
        let limit = match limit >> 20 {
            0 => format!("{limit} bytes"),
            mebibytes => format!("{mebibytes} MiB"),
        };
        return Err(ApiError::too_large(format!(
            "the body is larger than the limit of {limit}"
        )));
    }
    Ok(kept.into())
}
