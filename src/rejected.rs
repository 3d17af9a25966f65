use std::time::Duration;

/// Marks an HTTP response that no dependency gave: a circuit answered in its place.
///
/// It stands in the extensions of such a response, so that whoever sees the response can tell a
/// `503` of a circuit from a `503` of the dependency, and can see a rejection in a gRPC response,
/// whose HTTP status is `200` either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How long the circuit stays open, where that is known.
    pub retry_after: Option<Duration>,
}
