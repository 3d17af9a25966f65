//! Providers whose processes die: two more gateways, whose own endpoints are the providers' and whose answers come
//! from simulated ones. They are killed with streams under way, or stop in the midst of them without a word, as a host
//! does that drops off the network; and they are started again where they were.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering::Relaxed};

use futures_util::future::join_all;
use tokio::{net::TcpSocket, task::JoinSet};

use super::{
    Chaos, HANGS, PROVIDERS, is_whole, number,
    support::{eventually, gateway::Gateway, http, raw::Raw},
};

/// Circuits that turn fast, a model whose streams break with their provider, and one whose streams go on with the other.
fn config(hosts: &BTreeMap<&str, Host>) -> String {
    let [one, two] = PROVIDERS.map(|name| hosts[name].address);
    format!(
        r#"
default_model = "claude"

[circuit_breaker]
failure_threshold = 3
reset_timeout = "200ms"
half_open_requests = 2
half_open_timeout = "2s"
timeout = "1s"

[deadlines]
first_token = "1s"
idle = "1s"
total = "10s"

[providers.one]
kind = "anthropic"
base_url = "http://{one}"

[providers.two]
kind = "deepseek"
base_url = "http://{two}/v1"

[models.claude]
provider = "one"
upstream = "claude-3.5-sonnet"
fallbacks = ["deepseek"]

[models.deepseek]
provider = "two"
upstream = "deepseek-chat"
fallbacks = ["claude"]
mid_stream = "continue"
"#
    )
}

/// The model of each provider, and the name of the simulated one that answers for it.
fn model_of(provider: &str) -> &'static str {
    match provider {
        "one" => "claude",
        _ => "deepseek",
    }
}

/// Where they are asked for streams that are to break.
const PATH: &str = "/v1/chat/completions";

/// How HTTP tells that nothing is missing.
const LAST_CHUNK: &str = "\r\n0\r\n\r\n";

/// How many streams of each provider are under way when it dies, besides the load.
const STREAMS: usize = 4;

/// A provider in a process of its own.
struct Host {
    name: &'static str,
    address: SocketAddr,
    gateway: Gateway,
    /// Of the simulated provider that answers.
    control: String,
    /// Keeps the port of a process that is dead, so that nobody else gets it.
    port: Option<TcpSocket>,
}

impl Host {
    async fn start(name: &'static str, address: SocketAddr) -> Self {
        let listen = address.to_string();
        let gateway = Gateway::start(&["--listen", &listen], &[("RUST_LOG", "error")]).await;
        let address = gateway.url().trim_start_matches("http://");
        Self {
            name,
            address: address.parse().expect("an address of loopback"),
            control: gateway.simulated(model_of(name)).await,
            gateway,
            port: None,
        }
    }

    /// From here on, answers take seconds.
    async fn slow_down(&self) {
        let pace = format!("{}/pace?first_ms=0&gap_ms=200", self.control);
        assert_eq!(http::request("POST", &pace, &[], "").await.status, 200);
    }

    /// The kernel closes what the process had open.
    fn kill(&mut self) {
        self.gateway.kill();
        let socket = TcpSocket::new_v4().unwrap();
        // What is left of the connections may linger on the port.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).expect("nobody has the port");
        self.port = Some(socket);
    }

    async fn start_again(&mut self) {
        self.port = None;
        *self = Self::start(self.name, self.address).await;
    }

    /// How many requests this process has been asked.
    async fn received(&self) -> u64 {
        let stats = http::get(&format!("{}/stats", self.control)).await.json();
        stats["requests"].as_u64().unwrap()
    }
}

/// How a provider goes.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Killed,
    /// It stops first: connections stay, and new ones are taken, but nothing comes any more.
    Frozen,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_a_provider_whose_process_dies_is_survived() {
    let seed = number("CHAOS_SEED", 1618);
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut hosts = BTreeMap::new();
    for name in PROVIDERS {
        hosts.insert(name, Host::start(name, anywhere).await);
    }
    let chaos = Chaos::start("death", &config(&hosts), &[]).await;
    let workers = chaos.load(seed);
    for (victims, end) in [
        (&["one"][..], End::Killed),
        (&["two"], End::Killed),
        (&["two"], End::Frozen),
        (&PROVIDERS, End::Killed),
    ] {
        chaos.die(&mut hosts, victims, end).await;
    }
    chaos.end(workers).await;
    chaos.settle().await;

    // The processes that there are now are the ones that are asked, and as often as their circuits say.
    let mut counted = Vec::new();
    for (name, host) in &hosts {
        counted.push(chaos.calls(name).await - host.received().await);
    }
    let workers = chaos.load(seed + 1);
    let asked = chaos.asked.load(Relaxed);
    eventually("more requests", async || {
        (chaos.asked.load(Relaxed) > asked + 100).then_some(())
    })
    .await;
    chaos.end(workers).await;
    chaos.settle().await;
    for ((name, host), before) in hosts.iter().zip(counted) {
        let now = chaos.calls(name).await - host.received().await;
        assert_eq!(now, before, "{name} was asked as often as its circuit says");
    }
    chaos.agrees().await;
}

impl Chaos {
    /// Lets providers die in the midst of streams, and brings them back.
    async fn die(
        &self,
        hosts: &mut BTreeMap<&'static str, Host>,
        victims: &[&'static str],
        end: End,
    ) {
        let hosts = hosts.values_mut();
        let mut hosts: Vec<_> = hosts.filter(|host| victims.contains(&host.name)).collect();
        for host in &hosts {
            host.slow_down().await;
        }
        let begin = victims
            .iter()
            .flat_map(|name| (0..STREAMS).map(|_| self.begin(name)));
        // The first ones would be over before the last ones had begun, one after another.
        let begun = join_all(begin).await;
        let streams: JoinSet<_> = begun.into_iter().map(Stream::end).collect();
        let before = self.turns(victims).await;
        for host in &mut hosts {
            match end {
                End::Killed => host.kill(),
                End::Frozen => host.gateway.freeze(),
            }
        }

        // A stream whose provider is gone goes on with the other one, where that is wanted and there is one.
        for (model, text) in streams.join_all().await {
            let goes_on = model == "deepseek" && victims.len() == 1;
            assert_eq!(self.ended(&text), goes_on, "{model}, {victims:?}:\n{text}");
        }
        self.turned(victims, &before, "opened").await;
        self.turned(victims, &before, "recovery_failed").await;

        for host in hosts {
            if end == End::Frozen {
                host.kill();
            }
            host.start_again().await;
        }
        self.turned(victims, &before, "recovered").await;
    }

    /// A stream of this provider, of which something has come.
    async fn begin(&self, provider: &str) -> Stream {
        let model = model_of(provider);
        let body = format!(
            r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user",
            "content":"one two three four five six seven eight nine ten eleven twelve"}}]}}"#
        );
        eventually("a stream", async || {
            self.asked.fetch_add(1, Relaxed);
            let mut raw = Raw::connect(self.gateway.url()).await;
            raw.post(PATH, &body).await;
            while !raw.seen.contains("Hello") && raw.more().await.is_some() {}
            let by = format!("x-gateway-provider: {provider}\r\n");
            if raw.seen.contains(&by) && raw.seen.contains("Hello") {
                return Some(Stream { model, raw });
            }
            // Its circuit has opened once more, so the other one has answered, or nobody.
            self.ended(&raw.rest().await);
            None
        })
        .await
    }

    /// Counts a stream, or an error in its place, by its end: whether it is whole.
    fn ended(&self, text: &str) -> bool {
        let begun = text.starts_with("HTTP/1.1 200");
        assert!(!begun || text.ends_with(LAST_CHUNK), "cut off:\n{text}");
        let whole = begun && is_whole(PATH, text.trim_end_matches(LAST_CHUNK));
        if !whole {
            self.failed.fetch_add(1, Relaxed);
        }
        whole
    }

    /// How often the circuits of these have turned, each way.
    async fn turns(&self, names: &[&'static str]) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut turns = BTreeMap::new();
        for name in names {
            for kind in ["opened", "recovery_failed", "recovered"] {
                turns.insert((*name, kind), self.transitions(name, kind).await);
            }
        }
        turns
    }

    async fn turned(
        &self,
        names: &[&'static str],
        before: &BTreeMap<(&'static str, &'static str), u64>,
        kind: &'static str,
    ) {
        for name in names {
            eventually(&format!("{name} {kind}"), async || {
                (self.transitions(name, kind).await > before[&(*name, kind)]).then_some(())
            })
            .await;
        }
    }
}

/// A stream that has begun.
struct Stream {
    model: &'static str,
    raw: Raw,
}

impl Stream {
    /// All that has come at its end.
    async fn end(self) -> (&'static str, String) {
        let rest = tokio::time::timeout(HANGS, self.raw.rest()).await;
        let rest = rest.unwrap_or_else(|_| panic!("a stream of {} hangs", self.model));
        (self.model, rest)
    }
}
