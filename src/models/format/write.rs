//! Writing JSON into a buffer.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

/// Appends a value.
pub(super) fn json(value: &(impl Serialize + ?Sized), out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value)
        .expect("a buffer takes all that is written, and these types have string keys alone");
}

pub(super) fn body(value: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    json(value, &mut out);
    out.freeze()
}

/// Appends a number.
pub(super) fn number(number: impl Into<u64>, out: &mut BytesMut) {
    json(&number.into(), out);
}

pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
