//! Chains of streams that fail in any way at any place, against a model of what has to come of it that
//! is too simple to be wrong: no time, no circuits, one provider after the other.

use proptest::prelude::*;
use tower_breaker::{
    CircuitBreakerConfig,
    models::{Deadlines, MidStream, Model, ModelErrorKind, ModelManager, StreamEvent},
};

use super::{
    SECOND, ask, metrics, read,
    remote::{
        Lines, Remote,
        Step::{self, Cut, Hang, Say, Wait},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Ping,
    Thought,
    Text,
    Tool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finish,
    Overloaded,
    Invalid,
    Cut,
    Missing,
    Hang,
}

/// What one provider says.
type Script = (Vec<Piece>, End);

fn script() -> impl Strategy<Value = Script> {
    use Piece::{Ping, Text, Thought, Tool};
    let piece = prop::sample::select(vec![Ping, Thought, Text, Text, Text, Tool]);
    let ends = vec![
        End::Finish,
        End::Overloaded,
        End::Invalid,
        End::Cut,
        End::Missing,
        End::Hang,
    ];
    (
        prop::collection::vec(piece, 0..5),
        prop::sample::select(ends),
    )
}

/// The same as a provider's steps, with a pause after each so that nothing is seen together.
fn steps((pieces, end): &Script, who: usize) -> Vec<Step> {
    const SAID: [[&str; 4]; 3] = [
        ["start 0 A\n", "thought A\n", "text A\n", "tool A\n"],
        ["start 1 B\n", "thought B\n", "text B\n", "tool B\n"],
        ["start 2 C\n", "thought C\n", "text C\n", "tool C\n"],
    ];
    let [start, thought, text, tool] = SAID[who];
    let mut steps = vec![Say(start), Say("usage 1 1\n"), Wait(SECOND)];
    for piece in pieces {
        let said = match piece {
            Piece::Ping => "ping\n",
            Piece::Thought => thought,
            Piece::Text => text,
            Piece::Tool => tool,
        };
        steps.extend([Say(said), Wait(SECOND)]);
    }
    steps.extend(match end {
        End::Finish => Some(Say("finish\n")),
        End::Overloaded => Some(Say("overloaded\n")),
        End::Invalid => Some(Say("invalid\n")),
        End::Cut => Some(Cut),
        End::Missing => None,
        End::Hang => Some(Hang),
    });
    steps
}

impl End {
    fn error(self) -> Option<ModelErrorKind> {
        match self {
            Self::Finish => None,
            Self::Overloaded => Some(ModelErrorKind::Overloaded),
            Self::Invalid => Some(ModelErrorKind::InvalidRequest),
            Self::Cut | Self::Missing => Some(ModelErrorKind::Malformed),
            Self::Hang => Some(ModelErrorKind::Timeout),
        }
    }
}

/// What has to come of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    /// The caller has a stream, and not just an error.
    has_begun: bool,
    text: String,
    thoughts: String,
    tools: usize,
    error: Option<ModelErrorKind>,
    joins: usize,
    /// How many providers were asked.
    asked: usize,
}

fn expected(scripts: &[Script; 3], goes_on: bool) -> Expected {
    let mut all = Expected::default();
    for ((pieces, end), who) in scripts.iter().zip(["A", "B", "C"]) {
        all.asked += 1;
        let has_content = pieces.iter().any(|piece| *piece != Piece::Ping);
        let error = end.error();
        if has_content || error.is_none() {
            // It takes over, or begins.
            all.joins += usize::from(all.has_begun);
            all.has_begun = true;
            all.error = None;
            let thinks = all.text.is_empty();
            for piece in pieces {
                match piece {
                    Piece::Ping => {}
                    Piece::Thought if thinks => all.thoughts += who,
                    Piece::Thought => {}
                    Piece::Text => all.text += who,
                    Piece::Tool => all.tools += 1,
                }
            }
            all.error = error;
            let may_go_on = error.is_some_and(|kind| kind.falls_back());
            if !may_go_on || !goes_on || all.tools > 0 {
                return all;
            }
        } else {
            // What broke an answer off stays its error, whoever else fails.
            if !all.has_begun {
                all.error = error;
            }
            if !error.is_some_and(|kind| kind.falls_back()) {
                return all;
            }
        }
    }
    all
}

async fn check(scripts: &[Script; 3], mid_stream: MidStream) {
    let never = CircuitBreakerConfig::builder()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .build()
        .unwrap();
    let remotes = [0, 1, 2].map(|who| Remote::default().then(steps(&scripts[who], who)));
    let mut builder = ModelManager::builder();
    for (remote, name) in remotes.iter().zip(["p0", "p1", "p2"]) {
        builder = builder.provider(name, Lines::default(), remote.http(), never.clone());
    }
    let manager = builder
        .model(
            "a",
            Model::new("p0", "A").or("b").or("c").mid_stream(mid_stream),
        )
        .model("b", Model::new("p1", "B"))
        .model("c", Model::new("p2", "C").deadlines(Deadlines::default()))
        .build()
        .unwrap();

    let mut got = Expected::default();
    match manager.stream(ask()).await {
        Err(error) => got.error = Some(error.kind()),
        Ok(stream) => {
            got.has_begun = true;
            let all = read(stream).await;
            let (mut starts, mut finishes, mut usage) = (0, 0, 0);
            for event in &all.events {
                assert_eq!(finishes, 0, "the finish comes last");
                match event {
                    StreamEvent::Start { .. } => starts += 1,
                    StreamEvent::Text(text) => got.text += text,
                    StreamEvent::Reasoning(text) => got.thoughts += text,
                    StreamEvent::ToolCall { .. } => got.tools += 1,
                    StreamEvent::Finish(_) => finishes += 1,
                    StreamEvent::Usage(sum) => {
                        assert!(sum.input_tokens > usage, "it is summed");
                        usage = sum.input_tokens;
                    }
                    _ => {}
                }
            }
            assert_eq!(starts, 1);
            assert_eq!(finishes, u32::from(all.error.is_none()), "one or the other");
            got.error = all.error.map(|error| error.kind());
            got.joins = all.stream.metadata().joins.len();
            assert_eq!(usage, got.joins as u64 + 1);
        }
    }
    got.asked = remotes.iter().filter(|r| !r.calls().is_empty()).count();
    assert_eq!(got, expected(scripts, mid_stream == MidStream::Continue));

    for ((name, (_, end)), _) in ["p0", "p1", "p2"]
        .into_iter()
        .zip(scripts)
        .zip(0..got.asked)
    {
        let seen = metrics(&manager, name);
        let failed = end
            .error()
            .is_some_and(|kind| kind != ModelErrorKind::InvalidRequest);
        assert_eq!(seen.in_flight, Some(0));
        assert_eq!(seen.failed_requests, u64::from(failed));
        assert_eq!(seen.timed_out_requests, u64::from(*end == End::Hang));
        assert_eq!(
            seen.successful_requests,
            Some(u64::from(*end == End::Finish))
        );
        assert_eq!(seen.cancelled_requests, 0);
    }
}

proptest! {
    #[test]
    fn m5_whatever_fails_wherever_the_caller_sees_one_answer_or_its_error(
        scripts in [script(), script(), script()],
        goes_on in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let mid_stream = if goes_on { MidStream::Continue } else { MidStream::Error };
        runtime.block_on(check(&scripts, mid_stream));
    }
}
