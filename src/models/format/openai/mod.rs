//! OpenAI's chat completions, as a client speaks them.

mod answer;
mod messages;
mod request;
mod stream;

pub(super) use self::answer::{encode_error, encode_response};
pub(super) use self::request::decode_request;
pub(super) use self::stream::Encoder;
