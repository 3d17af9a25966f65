//! [`ModelStream`]: one unbroken answer, whoever it comes from.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tower::ServiceExt;

use super::{
    MidStream, ModelEntry, ModelManager,
    account::Account,
    cache::{Cached, Key},
    link::{ChainRequest, Member, stream_chain},
    open::Opened,
    report::{self, CircuitSnapshot, Join, Metadata, ModelAttempt},
    segment::Segment,
};
use crate::{
    fallback::AttemptOutcome,
    models::{
        Completion, FinishReason, ModelError, ModelRequest, StreamEvent, Usage,
        stream::{Progress, pieces},
    },
};

/// A streamed answer that has begun. [`ModelManager::stream`] makes it.
///
/// It begins with one [`Start`](StreamEvent::Start) and is complete with its
/// [`Finish`](StreamEvent::Finish). An answer that breaks off ends with an error instead, and
/// counts as a failure of its provider, unless the model is configured to
/// [continue](MidStream::Continue).
///
/// The provider's body is read only when this is polled, so a slow reader slows the provider down.
///
/// # Cancel safety
///
/// Dropping it drops the connection to the provider. That doesn't count against the provider, except
/// as the circuit's [`OnCancel`](crate::OnCancel) says.
pub struct ModelStream {
    model: Arc<ModelEntry>,
    /// What another model would be asked, if one may go on. Otherwise prompts would take memory for as
    /// long as their answers come.
    request: Option<ChainRequest>,
    state: State,
    /// What came and was not yet taken.
    events: VecDeque<StreamEvent>,
    /// What comes after that.
    error: Option<ModelError>,
    account: Account,
    /// The manager whose cache the answer goes into, when it is complete.
    cache: Option<(ModelManager, Key)>,
}

enum State {
    Streaming(Segment),
    /// The one that answered has broken off with this error, and another is asked to go on.
    Continuing(Continuation, ModelError),
    Ended,
}

type Continuation = Pin<Box<dyn Future<Output = Result<Opened, ModelError>> + Send>>;

impl ModelStream {
    pub(super) fn new(
        model: Arc<ModelEntry>,
        request: ChainRequest,
        opened: Opened,
        cache: Option<(ModelManager, Key)>,
    ) -> Self {
        let may_go_on = model.mid_stream == MidStream::Continue;
        let attempts = report::attempts(&opened.attempts, &model.members);
        let mut account = Account::by(opened.segment.member(), attempts);
        account.text = (may_go_on || cache.is_some()).then(String::new);
        let mut stream = Self {
            model,
            request: may_go_on.then_some(request),
            state: State::Ended,
            events: VecDeque::new(),
            error: None,
            account,
            cache,
        };
        stream.take_over(opened);
        stream
    }

    /// An answer that nobody is asked for.
    pub(super) fn last_resort(model: Arc<ModelEntry>, last: &Cached, metadata: Metadata) -> Self {
        let mut account = Account::by(model.itself(), metadata.attempts);
        account.model = last.model.clone();
        account.provider = last.provider.clone();
        account.degraded = true;
        let mut stream = Self {
            model,
            request: None,
            state: State::Ended,
            events: pieces(last.completion.clone()).collect(),
            error: None,
            account,
            cache: None,
        };
        stream.observe();
        stream
    }

    /// The model that answers, by its alias; after a join the one that went on.
    pub fn model(&self) -> &str {
        &self.account.model
    }

    /// Its provider.
    pub fn provider(&self) -> &str {
        &self.account.provider
    }

    /// What became of each model that was considered so far, in order.
    pub fn attempts(&self) -> &[ModelAttempt] {
        &self.account.attempts
    }

    /// Whether the answer, or a part of it, is one of the last resorts.
    pub fn is_degraded(&self) -> bool {
        self.account.degraded
    }

    /// Where other models have gone on so far.
    pub fn joins(&self) -> &[Join] {
        &self.account.joins
    }

    /// What the answer has cost as far as is known, all that answered taken together.
    pub fn usage(&self) -> Usage {
        self.account.usage
    }

    /// Why the answer ended; `None` until it is complete.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.account.finish_reason.as_ref()
    }

    /// How the answer came about, as far as is known: all of it once the stream has ended.
    pub fn metadata(&self) -> Metadata {
        let account = &self.account;
        Metadata {
            provider_model: account.provider_model.clone(),
            attempts: account.attempts.clone(),
            circuit_breaker: CircuitSnapshot::of(&account.circuit),
            degraded: account.degraded,
            joins: account.joins.clone(),
        }
    }

    /// Waits for more, and appends all that is there, so that it can be passed on in one go. `None`
    /// once the stream has ended, whether with its finish or with an error, which comes last.
    pub fn poll_ready_events(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Option<Result<(), ModelError>>> {
        let polled = self.poll_fill(cx);
        if let Poll::Ready(Some(Ok(()))) = polled {
            events.append(&mut self.events);
        }
        polled
    }

    /// Ready once there is an event, or there will be none.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), ModelError>>> {
        loop {
            if !self.events.is_empty() {
                return Poll::Ready(Some(Ok(())));
            }
            match &mut self.state {
                State::Ended => return Poll::Ready(self.error.take().map(Err)),
                State::Streaming(segment) => {
                    let result = ready!(segment.poll(cx, &mut self.events));
                    self.observe();
                    match result {
                        Ok(Progress::Alive) => {}
                        Ok(Progress::Finished) => self.complete(),
                        Err(error) => self.broken(error),
                    }
                }
                State::Continuing(next, _) => {
                    let result = ready!(next.as_mut().poll(cx));
                    let state = mem::replace(&mut self.state, State::Ended);
                    match (result, state) {
                        (Ok(opened), _) => self.join(opened),
                        (Err(next), State::Continuing(_, error)) => {
                            self.account.attempts.extend_from_slice(next.attempts());
                            // What broke the answer off is what ended it.
                            self.fail(error);
                        }
                        (Err(error), _) => self.fail(error),
                    }
                }
            }
        }
    }

    /// Goes on with what has been opened.
    fn take_over(&mut self, opened: Opened) {
        self.events = opened.events;
        self.state = State::Streaming(opened.segment);
        self.observe();
        match opened.end {
            None => {}
            Some(Ok(())) => self.complete(),
            Some(Err(error)) => self.broken(error),
        }
    }

    /// The answer has come to its finish.
    fn complete(&mut self) {
        self.state = State::Ended;
        let account = &self.account;
        if let Some((manager, key)) = self.cache.take()
            && let (Some(text), Some(finish_reason)) = (&account.text, &account.finish_reason)
            && !account.calls_tool
            && !account.degraded
        {
            let mut completion = Completion::new(text);
            completion.id.clone_from(&account.id);
            completion.model.clone_from(&account.provider_model);
            completion.finish_reason = finish_reason.clone();
            let cached = Cached {
                completion,
                model: account.model.clone(),
                provider: account.provider.clone(),
            };
            manager.shared.cache.put(key, cached);
        }
    }

    /// The one that answered has failed, with the answer half told.
    fn broken(&mut self, error: ModelError) {
        let State::Streaming(segment) = mem::replace(&mut self.state, State::Ended) else {
            return self.fail(error);
        };
        if let Some(attempt) = self.account.attempts.last_mut() {
            attempt.outcome = AttemptOutcome::Failed;
            attempt.reason = Some(error.to_string().into());
            attempt.latency = segment.elapsed();
        }
        match self.others(segment.member(), &error) {
            Some(next) => self.state = State::Continuing(next, error),
            None => self.fail(error),
        }
    }

    fn fail(&mut self, error: ModelError) {
        self.state = State::Ended;
        self.error = Some(error.with_attempts(self.account.attempts.clone()));
    }

    /// Asks those after `member` to go on, if that is wanted and can be done.
    fn others(&self, member: &Arc<Member>, error: &ModelError) -> Option<Continuation> {
        let request = self.request.as_ref()?;
        if !error.falls_back() || self.account.calls_tool {
            return None;
        }
        let first = self.place(member) + 1;
        if first == self.model.members.len() {
            return None;
        }
        let mut request = ModelRequest::clone(request);
        // The caller may have had it go on from somewhere to begin with.
        let mut begun = request.continue_from.take().unwrap_or_default();
        begun.push_str(self.account.text.as_deref().unwrap_or_default());
        // Of thoughts, or of nothing, nobody can go on: the answer begins anew.
        request.continue_from = Some(begun).filter(|text| !text.trim().is_empty());
        let model = self.model.clone();
        Some(Box::pin(async move {
            let members = &model.members[first..];
            let next = stream_chain(members).oneshot(Arc::new(request)).await;
            next.map_err(|error| report::error(error, members, |error| error))
        }))
    }

    /// Where a model stands in the chain.
    fn place(&self, member: &Arc<Member>) -> usize {
        let mut members = self.model.members.iter();
        let place = members.position(|other| Arc::ptr_eq(other, member));
        place.expect("only members of the chain are asked")
    }

    /// Another model goes on.
    fn join(&mut self, opened: Opened) {
        let member = opened.segment.member();
        // Attempts are numbered from the first that was asked, and the last one answered.
        let asked = opened.attempts.last().map_or(0, |last| last.link);
        let members = &self.model.members[self.place(member) - asked..];
        let attempts = report::attempts(&opened.attempts, members);
        let account = &mut self.account;
        account.attempts.extend(attempts);
        account.model = member.model.clone();
        account.provider = member.provider.clone();
        account.circuit = member.circuit.clone();
        account.degraded |= member.degraded;
        account.begins_at = account.length;
        account.usage_before = account.usage;
        account.joins.push(Join {
            at: account.length,
            model: member.model.to_string(),
            provider: member.provider.to_string(),
        });
        self.take_over(opened);
    }

    /// Learns from the events that have just come, and makes those after a join go on with those
    /// before it.
    fn observe(&mut self) {
        let account = &mut self.account;
        if account.joins.is_empty() {
            self.events.iter().for_each(|event| account.observe(event));
        } else {
            self.events.retain_mut(|event| {
                let stays = account.adapt(event);
                account.observe(event);
                stays
            });
        }
    }
}

impl Stream for ModelStream {
    type Item = Result<StreamEvent, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.poll_fill(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(())) => Poll::Ready(self.events.pop_front().map(Ok)),
        }
    }
}

impl fmt::Debug for ModelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStream")
            .field("model", &self.account.model)
            .field("provider", &self.account.provider)
            .field("finish_reason", &self.account.finish_reason)
            .finish_non_exhaustive()
    }
}
