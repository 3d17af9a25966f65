//! `ModelManager` as a library (M1, M2, M4, M6), on a clock that only the tests move.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower::{Service, ServiceExt, service_fn};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitState, ManualClock,
    fallback::AttemptOutcome::{Answered, Failed, Skipped},
    models::{
        Completion, Deadlines, Degraded, Model, ModelError, ModelErrorKind, ModelManager,
        ModelManagerBuilder, ModelRequest, ProviderRequest,
    },
};

/// A provider that fails as it is told to, and answers with the model that it was asked for.
#[derive(Clone, Default)]
struct Scripted {
    failure: Arc<Mutex<Option<ModelError>>>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    fn fail(&self, error: impl Into<Option<ModelError>>) {
        *self.failure.lock().unwrap() = error.into();
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// A manager with this as its provider `p`.
    fn alone(&self) -> ModelManagerBuilder {
        self.add_to(ModelManager::builder(), "p", defaults())
    }

    fn add_to(
        &self,
        manager: ModelManagerBuilder,
        name: &str,
        circuit: impl Into<Circuit>,
    ) -> ModelManagerBuilder {
        let it = self.clone();
        let service = service_fn(move |request: ProviderRequest| {
            it.calls.fetch_add(1, Ordering::Relaxed);
            let result = match it.failure.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => {
                    let cap = request.request.max_tokens;
                    let cap = cap.map_or(String::new(), |cap| format!(", capped at {cap}"));
                    Ok(Completion::new(format!("{} here{cap}", request.model)))
                }
            };
            async { result }
        });
        manager.provider_service(name, service, circuit)
    }
}

fn defaults() -> CircuitBreakerConfig {
    ModelManager::circuit_breaker_defaults().build().unwrap()
}

/// The design's two providers.
fn pair(clock: &ManualClock) -> (ModelManager, Scripted, Scripted) {
    let (claude, deepseek) = (Scripted::default(), Scripted::default());
    let circuit = || Circuit::with_clock(defaults(), clock.clone());
    let manager = claude.add_to(ModelManager::builder(), "claude", circuit());
    let manager = deepseek
        .add_to(manager, "deepseek", circuit())
        .model("big", Model::new("claude", "claude-big").or("small"))
        .model("small", Model::new("deepseek", "deepseek-small").or("big"))
        .build()
        .unwrap();
    (manager, claude, deepseek)
}

fn tokens(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn server_error() -> ModelError {
    ModelError::new(ModelErrorKind::Server, "boom")
}

fn ask(model: &str) -> ModelRequest {
    ModelRequest::prompt("hello").preferred_model(model)
}

#[tokio::test]
async fn m1_the_preferred_model_first_then_its_chain() {
    let (manager, claude, _) = pair(&ManualClock::new());
    let answer = manager.process_request(ask("small")).await.unwrap();
    assert_eq!((&*answer.model, &*answer.provider), ("small", "deepseek"));
    assert_eq!(answer.text, "deepseek-small here");
    assert_eq!(answer.metadata.attempts.len(), 1);

    claude.fail(server_error());
    let answer = manager.process_request(ask("big")).await.unwrap();
    assert_eq!((&*answer.model, &*answer.provider), ("small", "deepseek"));
    let attempts = &answer.metadata.attempts;
    assert_eq!((&*attempts[0].model, attempts[0].outcome), ("big", Failed));
    let reason = attempts[0].reason.as_deref().unwrap();
    assert!(reason.contains("boom"), "{reason}");
    assert_eq!(
        (&*attempts[1].model, attempts[1].outcome),
        ("small", Answered)
    );
    // The metrics are those of the provider that answered.
    assert_eq!(answer.metadata.circuit_breaker.successful_requests, Some(2));
}

#[tokio::test]
async fn m1_without_a_preference_the_default_answers() {
    let (manager, ..) = pair(&ManualClock::new());
    let answer = manager.process_request(ModelRequest::prompt("hi")).await;
    assert_eq!(answer.unwrap().model, "big");
    assert_eq!(manager.default_model(), "big");
}

#[tokio::test]
async fn m1_it_is_a_tower_service() {
    let (mut manager, ..) = pair(&ManualClock::new());
    let call = manager.ready().await.unwrap().call(ask("big"));
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    assert_eq!(is_send(call).await.unwrap().provider, "claude");
}

#[tokio::test]
async fn m1_an_open_circuit_is_skipped_and_probed_when_due() {
    let clock = ManualClock::new();
    let (manager, claude, _) = pair(&clock);
    claude.fail(server_error());
    for _ in 0..10 {
        assert_eq!(
            manager.process_request(ask("big")).await.unwrap().model,
            "small"
        );
    }
    assert_eq!(claude.calls(), 3);
    let answer = manager.process_request(ask("big")).await.unwrap();
    let attempt = &answer.metadata.attempts[0];
    assert_eq!(attempt.outcome, Skipped);
    assert_eq!(
        attempt.reason.as_deref(),
        Some("circuit is open (too many failures in a row), try again in 120s")
    );
    let metrics = &manager.health_check()["claude"].circuit_breaker.metrics;
    assert_eq!(metrics.rejected_requests, 8, "of eleven, three were tried");

    claude.fail(None);
    clock.advance(Duration::from_secs(120));
    for _ in 0..2 {
        assert_eq!(
            manager.process_request(ask("big")).await.unwrap().model,
            "big"
        );
    }
    assert_eq!(
        manager.health_check()["claude"].circuit_breaker.state,
        CircuitState::Closed
    );
}

#[tokio::test]
async fn m1_with_every_circuit_open_the_shortest_wait_is_told_at_once() {
    let clock = ManualClock::new();
    let (manager, claude, deepseek) = pair(&clock);
    let busy = |seconds| {
        ModelError::new(ModelErrorKind::RateLimited, "busy")
            .with_retry_after(Duration::from_secs(seconds))
    };
    claude.fail(busy(50));
    deepseek.fail(busy(20));
    // M4: open at once for that time.
    let error = manager.process_request(ask("big")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ModelErrorKind::RateLimited,
        "the last error wins"
    );
    assert_eq!(error.attempts().len(), 2);
    clock.advance(Duration::from_secs(5));
    let error = manager.process_request(ask("big")).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unavailable);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(15)));
    assert_eq!(
        error.to_string(),
        "no provider is available: the circuits of big and small are open"
    );
    assert_eq!((claude.calls(), deepseek.calls()), (1, 1));
}

#[tokio::test]
async fn m1_a_quiet_half_open_circuit_is_not_shut_out_for_ever() {
    let clock = ManualClock::new();
    let (manager, claude, _) = pair(&clock);
    claude.fail(server_error());
    for _ in 0..3 {
        manager.process_request(ask("big")).await.unwrap();
    }
    claude.fail(None);
    clock.advance(Duration::from_secs(120));
    assert_eq!(
        manager.process_request(ask("big")).await.unwrap().model,
        "big"
    );
    // The turn ends undecided, with nobody there to see it.
    clock.advance(Duration::from_secs(60));
    assert_eq!(
        manager.process_request(ask("big")).await.unwrap().model,
        "small"
    );
    clock.advance(Duration::from_secs(120));
    for _ in 0..2 {
        assert_eq!(
            manager.process_request(ask("big")).await.unwrap().model,
            "big"
        );
    }
    let health = &manager.health_check()["claude"].circuit_breaker;
    assert_eq!(health.state, CircuitState::Closed);
}

#[tokio::test]
async fn g3_the_next_probe_is_due_at_one_moment_whenever_it_is_asked_for() {
    let clock = ManualClock::new();
    let (manager, claude, _) = pair(&clock);
    claude.fail(server_error());
    for _ in 0..3 {
        manager.process_request(ask("big")).await.unwrap();
    }
    let due = |manager: &ModelManager| {
        let health = &manager.health_check()["claude"].circuit_breaker;
        health
            .next_probe_at
            .unwrap()
            .duration_since(health.since)
            .unwrap()
    };
    assert_eq!(due(&manager), Duration::from_secs(120));
    clock.advance(Duration::from_secs(100));
    assert_eq!(due(&manager), Duration::from_secs(120));
}

#[tokio::test]
async fn m1_models_of_a_provider_share_its_circuit_unless_they_have_their_own() {
    let provider = Scripted::default();
    let own = CircuitBreakerConfig::builder()
        .failure_threshold(1)
        .build()
        .unwrap();
    let manager = provider
        .add_to(ModelManager::builder(), "p", defaults())
        .model("a", Model::new("p", "a"))
        .model("b", Model::new("p", "b"))
        .model("own", Model::new("p", "own").circuit_breaker(own.clone()))
        .build()
        .unwrap();
    provider.fail(server_error());
    manager.process_request(ask("own")).await.unwrap_err();
    let health = &manager.health_check()["p"];
    assert_eq!(
        health.model_circuit_breakers["own"].state,
        CircuitState::Open
    );
    assert_eq!(health.circuit_breaker.state, CircuitState::Closed);
    assert_eq!(health.models, ["a", "b", "own"]);
    for model in ["a", "b", "a"] {
        let error = manager.process_request(ask(model)).await.unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Server);
    }
    let error = manager.process_request(ask("b")).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unavailable);

    // M2
    assert_eq!(manager.circuit_breaker_config("own"), Some(own));
    assert_eq!(manager.circuit_breaker_config("a"), Some(defaults()));
    assert_eq!(manager.circuit_breaker_config("none"), None);
    manager.reset_circuit_breakers();
    assert!(
        manager
            .circuits()
            .all(|(_, circuit)| circuit.state() == CircuitState::Closed)
    );
    assert_eq!(manager.circuits().count(), 2);
}

#[tokio::test]
async fn m4_the_callers_mistake_neither_falls_back_nor_counts() {
    let (manager, claude, deepseek) = pair(&ManualClock::new());
    claude.fail(
        ModelError::new(ModelErrorKind::InvalidRequest, "max_tokens is too large")
            .with_status(http::StatusCode::UNPROCESSABLE_ENTITY),
    );
    for _ in 0..5 {
        let error = manager.process_request(ask("big")).await.unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::InvalidRequest);
        assert!(error.message().contains("max_tokens"));
        let attempt = &error.attempts()[0];
        assert_eq!(attempt.outcome, Failed);
        assert!(attempt.reason.as_deref().unwrap().contains("max_tokens"));
    }
    assert_eq!(deepseek.calls(), 0);
    let health = manager.health_check();
    assert_eq!(health["claude"].circuit_breaker.metrics.failed_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn m4_a_provider_that_hangs_misses_its_deadline() {
    let hang = service_fn(|_: ProviderRequest| std::future::pending());
    let manager = ModelManager::builder()
        .provider_service("p", hang, defaults())
        .model("m", Model::new("p", "m"))
        .build()
        .unwrap();
    let error = manager.process_request(ask("m")).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Timeout);
    assert_eq!(
        error.to_string(),
        "the provider did not answer in time: no answer within 45s"
    );
    let health = manager.health_check();
    assert_eq!(health["p"].circuit_breaker.metrics.timed_out_requests, 1);
}

#[tokio::test]
async fn a_request_that_is_wrong_reaches_nobody() {
    let (manager, claude, _) = pair(&ManualClock::new());
    for (request, kind, message) in [
        (
            ask("huge"),
            ModelErrorKind::UnknownModel,
            "there are big, small",
        ),
        (
            ModelRequest::prompt(""),
            ModelErrorKind::InvalidRequest,
            "must not be empty",
        ),
        (
            ask("big").temperature(f64::NAN),
            ModelErrorKind::InvalidRequest,
            "temperature",
        ),
    ] {
        let error = manager.process_request(request).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(message), "{error}");
        assert!(error.attempts().is_empty());
    }
    assert_eq!(claude.calls(), 0);
}

#[test]
fn names_that_nobody_bears_are_refused() {
    let provider = Scripted::default();
    let with = |models: &[(&str, Model)]| {
        let manager = provider.add_to(ModelManager::builder(), "p", defaults());
        let add = |manager: ModelManagerBuilder, (name, model): &(&str, Model)| {
            manager.model(*name, model.clone())
        };
        models.iter().fold(manager, add)
    };
    let wrong = |manager: ModelManagerBuilder| manager.build().unwrap_err().to_string();
    assert_eq!(wrong(with(&[])), "`models` must have at least one model");
    let elsewhere = Model::new("q", "a");
    assert_eq!(
        wrong(with(&[("a", elsewhere)])),
        "`provider` of `a` is `q`, which is not among the providers"
    );
    let a = Model::new("p", "a");
    assert_eq!(
        wrong(with(&[("a", a.clone().degraded(Degraded::model("b")))])),
        "`degraded` of `a` name `b`, which is not among the models"
    );
    assert_eq!(
        wrong(with(&[("a", a.clone().degraded(Degraded::cached()))])),
        "`cache` must have room for an answer: `a` wants cached ones"
    );
    assert_eq!(
        wrong(with(&[("a", a.clone())]).deadlines("q", Deadlines::default())),
        "`deadlines` are of `q`, which is not among the providers"
    );
    assert_eq!(
        wrong(with(&[("a", a.clone().or("b"))])),
        "`fallbacks` of `a` name `b`, which is not among the models"
    );
    assert_eq!(
        wrong(with(&[("a", a.clone()), ("a", a.clone())])),
        "`models` must have an alias each, no two the same"
    );
    assert_eq!(
        wrong(with(&[("a", a.clone().or("a"))])),
        "`fallbacks` of `a` name `a` twice"
    );
    assert_eq!(
        wrong(with(&[("p", a.clone().circuit_breaker(defaults()))])),
        "`models` with circuits of their own need names of their own: `p` is a provider's"
    );
    let twice = provider.add_to(with(&[("a", a.clone())]), "p", defaults());
    assert_eq!(
        wrong(twice),
        "`providers` must have a name each, but two are `p`"
    );
    assert_eq!(
        wrong(with(&[("a", a)]).default_model("z")),
        "`default_model` names `z`, which is not among the models"
    );
}

#[tokio::test]
async fn m1_a_model_caps_the_tokens_wherever_it_stands() {
    let provider = Scripted::default();
    let manager = provider
        .alone()
        .model("a", Model::new("p", "a").max_tokens(tokens(100)))
        .build()
        .unwrap();
    for (asked, got) in [(None, 100), (Some(99), 99), (Some(101), 100)] {
        let mut request = ask("a");
        request.max_tokens = asked.map(tokens);
        let answer = manager.process_request(request).await.unwrap();
        assert_eq!(answer.text, format!("a here, capped at {got}"));
    }
}

#[tokio::test]
async fn f6_when_no_model_can_answer_the_last_resorts_are_tried_and_marked() {
    let (provider, small) = (Scripted::default(), Scripted::default());
    let model = Model::new("p", "a")
        .degraded(Degraded::message("come back later"))
        .degraded(Degraded::cached())
        .degraded(Degraded::model("small"));
    let manager = small
        .add_to(provider.alone(), "q", defaults())
        .model("a", model)
        .model("small", Model::new("q", "small"))
        .cache(10)
        .build()
        .unwrap();
    let fresh = manager.process_request(ask("a")).await.unwrap();
    assert!(!fresh.metadata.degraded);

    provider.fail(server_error());
    let smaller = manager.process_request(ask("a")).await.unwrap();
    assert_eq!((&*smaller.model, &*smaller.provider), ("small", "q"));
    assert!(smaller.metadata.degraded);

    small.fail(server_error());
    let cached = manager.process_request(ask("a")).await.unwrap();
    assert_eq!((&*cached.text, &*cached.model), ("a here", "a"));
    assert!(cached.metadata.degraded);
    let attempts = &cached.metadata.attempts;
    let providers: Vec<_> = attempts.iter().map(|a| (&*a.provider, a.outcome)).collect();
    let expected = [("p", Failed), ("q", Failed), ("cache", Answered)];
    assert_eq!(providers, expected);

    let other = ModelRequest::prompt("something else").preferred_model("a");
    let canned = manager.process_request(other).await.unwrap();
    assert_eq!(
        (&*canned.text, &*canned.provider),
        ("come back later", "message")
    );
    assert!(canned.metadata.degraded);

    // The caller's mistake is the caller's.
    provider.fail(ModelError::new(ModelErrorKind::InvalidRequest, "no"));
    manager.reset_circuit_breakers();
    let error = manager.process_request(ask("a")).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::InvalidRequest);
}

#[tokio::test]
async fn m4_a_manager_in_place_of_another_goes_on_with_its_circuits_and_credentials() {
    let provider = Scripted::default();
    let model = || Model::new("p", "a");
    let before = provider.alone().model("a", model()).build().unwrap();
    provider.fail(ModelError::new(ModelErrorKind::Credentials, "no such key"));
    before.process_request(ask("a")).await.unwrap_err();
    provider.fail(server_error());
    for _ in 0..2 {
        before.process_request(ask("a")).await.unwrap_err();
    }

    let (_, circuit) = before.circuits().next().unwrap();
    let after = provider
        .add_to(ModelManager::builder(), "p", circuit.clone())
        .model("a", model())
        .credentials_from("p", &before)
        .credentials_from("unknown", &before)
        .build()
        .unwrap();
    let health = &after.health_check()["p"];
    assert_eq!(health.credentials.as_ref().unwrap().message, "no such key");
    after.process_request(ask("a")).await.unwrap_err();
    let health = &after.health_check()["p"];
    assert_eq!(
        health.circuit_breaker.state,
        CircuitState::Open,
        "the third failure in a row"
    );
}
