//! What the tests of all decoders need.

use std::collections::VecDeque;

use super::error::ModelError;
use super::event::{StreamDecoder, StreamEvent};

/// What a decoder makes of these pieces, and of their end.
pub(super) fn run<'a>(
    mut decoder: Box<dyn StreamDecoder>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<StreamEvent>, Result<(), ModelError>) {
    let mut events = VecDeque::new();
    for piece in pieces {
        if let Err(error) = decoder.feed(piece, &mut events) {
            return (events.into(), Err(error));
        }
    }
    let end = decoder.end();
    (events.into(), end)
}

/// The same bytes in pieces of every size from 1 to 7, and in two at every place.
pub(super) fn splits(text: &str) -> impl Iterator<Item = Vec<&[u8]>> {
    let bytes = text.as_bytes();
    let sizes = (1..8).map(move |size| bytes.chunks(size).collect());
    let halves = (0..=bytes.len()).map(move |at| {
        let (one, two) = bytes.split_at(at);
        vec![one, two]
    });
    sizes.chain(halves)
}
