use std::{borrow::Cow, fmt, ops::Deref, slice, sync::Arc, time::Duration};

/// What became of each link that was looked at for one request, in the order of the looking.
///
/// Derefs to a slice of [`Attempt`]. A clone shares the list. An empty one allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    list: Option<Arc<Vec<Attempt>>>,
}

/// What became of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The link's place in the chain; the primary's is 0.
    pub link: usize,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why the link was skipped or failed; `None` if it answered.
    pub reason: Option<Cow<'static, str>>,
    /// From the call to its end; for a link that was not called, how long it was waited for.
    pub latency: Duration,
    /// Whether the link gives [degraded](super::Link::degraded) answers.
    pub degraded: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// Not called: unavailable by its probe, busy, or out of reach of the request.
    Skipped,
    /// Called, and the result was a failure; or its `poll_ready` returned an error.
    Failed,
    /// Called, and what it returned was taken as the answer.
    Answered,
}

impl AttemptOutcome {
    /// The name that JSON, metrics and logs use: `skipped`, `failed` or `answered`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Answered => "answered",
        }
    }
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Attempt {
    fn was_called(&self) -> bool {
        self.outcome != AttemptOutcome::Skipped
    }
}

impl Attempts {
    /// Whether the answer came from a [degraded](super::Link::degraded) link.
    ///
    /// The last link that was called gave the answer, so this also holds for a failed response
    /// that was returned because no link was left.
    #[must_use]
    pub fn degraded(&self) -> bool {
        let last = self.iter().rev().find(|attempt| attempt.was_called());
        last.is_some_and(|attempt| attempt.degraded)
    }

    /// The answer is a degraded one, as whoever gave it has told.
    #[cfg(feature = "http")]
    pub(super) fn mark_degraded(&mut self) {
        let list = Arc::make_mut(self.list.get_or_insert_default());
        if let Some(last) = list.iter_mut().rev().find(|attempt| attempt.was_called()) {
            last.degraded = true;
        }
    }

    pub(super) fn push(&mut self, attempt: Attempt) {
        // While a list grows it has one owner, so this copies nothing.
        Arc::make_mut(self.list.get_or_insert_default()).push(attempt);
    }

    pub(super) fn skip(&mut self, link: usize, reason: &'static str, latency: Duration) {
        self.push(Attempt {
            link,
            outcome: AttemptOutcome::Skipped,
            reason: Some(Cow::Borrowed(reason)),
            latency,
            degraded: false,
        });
    }
}

impl Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        self.list.as_ref().map_or(&[], |list| list.as_slice())
    }
}

impl<'a> IntoIterator for &'a Attempts {
    type Item = &'a Attempt;
    type IntoIter = slice::Iter<'a, Attempt>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
