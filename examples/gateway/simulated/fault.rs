//! The ways in which a simulated provider can fail.

use std::time::Duration;

use axum::{body::Bytes, http::StatusCode};

use super::{
    Kind, anthropic,
    ask::Refusal,
    script::{Event, Part, Script, Step},
};

/// What a proxy in front of a provider likes to send in its place.
const RUBBISH: &str = "<!doctype html>\n<html><body><h1>It works!</h1></body></html>\n";

/// How much of an answer that comes in drops comes at a time, in bytes.
const DROP: usize = 16;

/// A way to fail, under the name that `POST /fault/{name}` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing listens, and the connections that there were are gone.
    Refused,
    /// The connection is reset once the request has come.
    Reset,
    /// No answer at all.
    Hang,
    ServerError,
    Unavailable,
    Overloaded,
    RateLimited,
    BadKey,
    NoBalance,
    BadRequest,
    /// `200 OK`, and a body that isn't JSON.
    Rubbish,
    /// `200 OK` and half of the body, or of a stream's first event, then the connection ends.
    Cut,
    /// `200 OK`, and an error in place of the answer.
    ErrorFirst,
    /// A stream that breaks off with an error event.
    ErrorMidStream,
    /// A stream whose connection ends in the middle.
    CutMidStream,
    /// `200 OK`, then nothing.
    Silence,
    /// A part of the answer, then nothing.
    Stall,
    /// A part of the answer, which ends as if it were complete, but without its finish.
    NoFinish,
    /// The whole answer, slowly.
    Trickle,
    /// The whole answer of a stream, after which the connection is held and nothing more comes.
    NoEnd,
}

impl Fault {
    pub(super) const ALL: [Self; 20] = [
        Self::Refused,
        Self::Reset,
        Self::Hang,
        Self::ServerError,
        Self::Unavailable,
        Self::Overloaded,
        Self::RateLimited,
        Self::BadKey,
        Self::NoBalance,
        Self::BadRequest,
        Self::Rubbish,
        Self::Cut,
        Self::ErrorFirst,
        Self::ErrorMidStream,
        Self::CutMidStream,
        Self::Silence,
        Self::Stall,
        Self::NoFinish,
        Self::Trickle,
        Self::NoEnd,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Hang => "hang",
            Self::ServerError => "server-error",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate-limited",
            Self::BadKey => "bad-key",
            Self::NoBalance => "no-balance",
            Self::BadRequest => "bad-request",
            Self::Rubbish => "rubbish",
            Self::Cut => "cut",
            Self::ErrorFirst => "error-first",
            Self::ErrorMidStream => "error-mid-stream",
            Self::CutMidStream => "cut-mid-stream",
            Self::Silence => "silence",
            Self::Stall => "stall",
            Self::NoFinish => "no-finish",
            Self::Trickle => "trickle",
            Self::NoEnd => "no-end",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// The error status that this fault answers with, if it does.
    pub(super) fn refusal(self, kind: Kind) -> Option<Refusal> {
        let (status, message) = match self {
            Self::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
            Self::Overloaded => return Some(overloaded(kind)),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Rate limit reached"),
            Self::BadKey => (StatusCode::UNAUTHORIZED, "The API key is invalid"),
            Self::NoBalance => (StatusCode::PAYMENT_REQUIRED, "Insufficient Balance"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "The request is invalid"),
            _ => return None,
        };
        Some(Refusal::new(status, message))
    }
}

/// How each provider says that it has too much to do.
pub(super) fn overloaded(kind: Kind) -> Refusal {
    match kind {
        Kind::Anthropic => {
            let status = StatusCode::from_u16(anthropic::OVERLOADED);
            let status = status.expect("529 is within the three digits of a status");
            Refusal::new(status, "Overloaded")
        }
        Kind::DeepSeek => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Service is too busy"),
    }
}

/// The fault that is switched on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    pub(super) fault: Fault,
    /// Seconds for a `Retry-After` beside an error status.
    pub(super) retry_after: Option<u64>,
    /// How many pieces of an answer come before a stream fails.
    pub(super) after: usize,
    /// The time between two pieces of an answer that trickles.
    pub(super) gap: Duration,
}

/// An answer that is whole, as the fault lets it out.
pub(super) fn whole(active: Option<Active>, body: String, error: String) -> Script {
    let length = body.len();
    let body = Bytes::from(body);
    let half = Step::Send(body.slice(..length / 2));
    let (length, steps, whole) = match active.map(|active| active.fault) {
        Some(Fault::Rubbish) => return rubbish(),
        Some(Fault::Cut | Fault::CutMidStream) => (Some(length), vec![half, Step::Break], false),
        Some(Fault::ErrorFirst | Fault::ErrorMidStream) => {
            (Some(error.len()), vec![Step::Send(error.into())], false)
        }
        Some(Fault::Silence) => (Some(length), vec![Step::Hang], false),
        Some(Fault::Stall) => (Some(length), vec![half, Step::Hang], false),
        Some(Fault::NoFinish) => (None, vec![half], false),
        Some(Fault::Trickle) => {
            let gap = active.map_or(Duration::ZERO, |active| active.gap);
            let drops = (0..length).step_by(DROP).flat_map(|at| {
                let drop = body.slice(at..length.min(at + DROP));
                [Step::Wait(gap), Step::Send(drop)]
            });
            (Some(length), drops.collect(), true)
        }
        _ => (Some(length), vec![Step::Send(body)], true),
    };
    Script {
        content_type: "application/json",
        length,
        steps,
        whole,
    }
}

/// An answer that is a stream, as the fault lets it out. `gap` is the time between its pieces.
pub(super) fn stream(
    active: Option<Active>,
    gap: Duration,
    events: &[Event],
    error: &Event,
) -> Script {
    let send = |event: &Event| Step::Send(event.bytes.clone());
    let paced = |events: &[Event], gap: Duration| {
        let mut steps = Vec::new();
        for event in events {
            if event.part == Part::Content && !gap.is_zero() {
                steps.push(Step::Wait(gap));
            }
            steps.push(send(event));
        }
        steps
    };
    // The answer up to so many pieces, and never its finish.
    let begun = |after: usize, then: Step| {
        let mut pieces = 0;
        let events = events.iter().take_while(|event| {
            pieces += usize::from(event.part == Part::Content);
            pieces <= after && event.part != Part::Finish
        });
        let mut steps = paced(&events.cloned().collect::<Vec<_>>(), gap);
        steps.push(then);
        (steps, false)
    };
    let (steps, whole) = match active {
        None => (paced(events, gap), true),
        Some(active) => match active.fault {
            Fault::Rubbish => return rubbish(),
            Fault::Cut => {
                let first = &events[0].bytes;
                let half = first.slice(..first.len() / 2);
                (vec![Step::Send(half), Step::Break], false)
            }
            Fault::ErrorFirst => (vec![send(error)], false),
            Fault::ErrorMidStream => begun(active.after, send(error)),
            Fault::CutMidStream => begun(active.after, Step::Break),
            Fault::Silence => (vec![Step::Hang], false),
            Fault::Stall => begun(active.after, Step::Hang),
            Fault::NoFinish => begun(active.after, Step::Wait(Duration::ZERO)),
            Fault::Trickle => (paced(events, active.gap), true),
            Fault::NoEnd => {
                let mut steps = paced(events, gap);
                steps.push(Step::Hang);
                (steps, true)
            }
            _ => (paced(events, gap), true),
        },
    };
    Script {
        content_type: "text/event-stream; charset=utf-8",
        length: None,
        steps,
        whole,
    }
}

fn rubbish() -> Script {
    Script {
        content_type: "text/html; charset=utf-8",
        length: Some(RUBBISH.len()),
        steps: vec![Step::Send(Bytes::from_static(RUBBISH.as_bytes()))],
        whole: false,
    }
}
