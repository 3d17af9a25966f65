//! Whose wire format a simulated provider speaks.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue},
    response::Response,
};

use super::{
    anthropic,
    ask::{Ask, Refusal},
    deepseek,
    fault::{self, Active, overloaded},
    reply::Reply,
    script::Script,
};

/// Whose wire format a simulated provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /chat/completions`, with or without `/v1` or `/beta` before it.
    DeepSeek,
}

impl Kind {
    pub(super) fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Anthropic => &["/v1/messages"],
            Self::DeepSeek => &[
                "/chat/completions",
                "/v1/chat/completions",
                "/beta/chat/completions",
            ],
        }
    }

    pub(super) fn read(self, headers: &HeaderMap, body: &[u8]) -> Result<Ask, Refusal> {
        match self {
            Self::Anthropic => anthropic::read(headers, body),
            Self::DeepSeek => deepseek::read(headers, body),
        }
    }

    /// What is sent to a request that was understood.
    pub(super) fn script(
        self,
        name: &str,
        id: u64,
        ask: &Ask,
        active: Option<Active>,
        gap: Duration,
    ) -> Script {
        let reply = Reply::new(name, ask);
        let trouble = overloaded(self);
        if ask.stream {
            let (events, error) = match self {
                Self::Anthropic => (
                    anthropic::events(id, ask, &reply),
                    anthropic::error_event(id, &trouble),
                ),
                Self::DeepSeek => (
                    deepseek::events(id, ask, &reply),
                    deepseek::error_event(&trouble),
                ),
            };
            return fault::stream(active, gap, &events, &error);
        }
        let (body, error) = match self {
            Self::Anthropic => (
                anthropic::answer(id, ask, &reply),
                anthropic::error(id, &trouble),
            ),
            Self::DeepSeek => (deepseek::answer(id, ask, &reply), deepseek::error(&trouble)),
        };
        fault::whole(active, body.to_string(), error.to_string())
    }

    pub(super) fn refuse(self, id: u64, refusal: &Refusal) -> Response {
        let response = match self {
            Self::Anthropic => anthropic::refuse(id, refusal),
            Self::DeepSeek => deepseek::refuse(refusal),
        };
        self.name(id, response)
    }

    /// Puts the request's id into the head of its response.
    pub(super) fn name(self, id: u64, mut response: Response) -> Response {
        if self == Self::Anthropic {
            let id = HeaderValue::try_from(anthropic::request_id(id));
            let id = id.expect("digits and letters fit into a header");
            response.headers_mut().insert("request-id", id);
        }
        response
    }
}
