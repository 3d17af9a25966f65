//! `POST /v1/process`: the gateway's own form of a request, and the answer with all its metadata.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use tower_breaker::models::ModelRequest;

use super::{ask, error::ApiError, read, tell_who_answered};
use crate::app::App;

pub(super) async fn process(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let request: ModelRequest = read::json(&app, body).await?;
    if request.stream {
        let why = "stream: streaming is not supported yet, send false or leave it out";
        return Err(ApiError::invalid("stream".to_owned(), why));
    }
    let answer = ask(&app, request).await;
    let answer = answer.map_err(|error| ApiError::from_model(error, "preferredModel"))?;
    let mut response = Json(&answer).into_response();
    tell_who_answered(&answer, &mut response);
    Ok(response)
}
