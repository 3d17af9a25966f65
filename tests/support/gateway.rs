//! The gateway example as a child process.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use tokio::sync::watch;

use super::{PATIENCE, eventually, example};

/// The line with which the gateway tells its address.
const LISTENING: &str = "gateway listening on ";

/// A command that would run the gateway with nothing of this machine's environment: for `--help`, `--check` and
/// whatever else ends by itself.
pub fn command() -> Command {
    example::command("gateway")
}

/// A running gateway. It is killed when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    url: String,
    stdout: Output,
    stderr: Output,
}

impl Gateway {
    /// Starts the gateway with these arguments and environment variables, and waits until it listens.
    ///
    /// # Panics
    ///
    /// With all that it said, when it ends or 30 seconds pass before it listens.
    pub async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command();
        command
            .args(args)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway's binary runs");
        let stdout = Output::drain(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Output::drain(child.stderr.take().expect("stderr is a pipe"));
        let mut gateway = Self {
            child,
            url: String::new(),
            stdout,
            stderr,
        };
        gateway.url = gateway.address(LISTENING).await;
        gateway
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of a path: `gateway.at("/health")`.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Where the simulated provider of this name listens.
    ///
    /// # Panics
    ///
    /// When the gateway doesn't tell within 30 seconds.
    pub async fn simulated(&self, name: &str) -> String {
        self.address(&format!("{name}: simulated on ")).await
    }

    /// What it has printed on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has printed on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("the gateway is a child of this process")
    }

    /// Sends SIGTERM, and leaves the gateway to its shutdown.
    pub fn ask_to_stop(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Sends SIGSTOP: it keeps what it has, and does nothing more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // Both fail only where it has already ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: &str) {
        // Rust's own `kill` is SIGKILL, and a system call of one's own would be unsafe code.
        let sent = Command::new("kill")
            .arg(signal)
            .arg(self.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "`kill` works");
    }

    /// Sends SIGTERM and waits until the gateway has ended: how, and all that it has printed.
    ///
    /// # Panics
    ///
    /// When it hasn't ended after 30 seconds.
    pub async fn terminate(mut self) -> Ended {
        self.ask_to_stop();
        let status = eventually("the gateway's end after SIGTERM", async || self.ended()).await;
        self.stdout.end().await;
        self.stderr.end().await;
        Ended {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// The word after `before` in the first line of stdout that has it.
    ///
    /// # Panics
    ///
    /// With all that the gateway said, when there is none within 30 seconds.
    pub async fn address(&self, before: &str) -> String {
        let mut lines = self.stdout.0.clone();
        let found = lines.wait_for(|lines| find(lines, before).is_some());
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Ok(lines)) => find(&lines, before).expect("it has just been found"),
            failed => {
                let why = if failed.is_ok() {
                    "has ended"
                } else {
                    "is silent"
                };
                if failed.is_ok() {
                    // The reason for the end is often on stderr, whose thread may be a little behind.
                    let _ = tokio::time::timeout(PATIENCE, self.stderr.end()).await;
                }
                panic!(
                    "no line `{before}...`: the gateway {why}\n--- stdout\n{}--- stderr\n{}",
                    self.stdout(),
                    self.stderr()
                );
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A gateway that was asked to end, and did.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

fn find(lines: &[String], before: &str) -> Option<String> {
    let rest = lines
        .iter()
        .find_map(|line| Some(line.split_once(before)?.1))?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// The lines of one of the child's outputs. A thread keeps reading them, so that the child never blocks on a full
/// pipe; the channel closes when the output ends.
#[derive(Debug)]
struct Output(watch::Receiver<Vec<String>>);

impl Output {
    fn drain(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = watch::channel(Vec::new());
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                sender.send_modify(|lines| lines.push(line));
            }
        });
        Self(lines)
    }

    /// Waits until nothing more can come.
    async fn end(&self) {
        let _ = self.0.clone().wait_for(|_| false).await;
    }

    fn text(&self) -> String {
        self.0
            .borrow()
            .iter()
            .flat_map(|line| [line, "\n"])
            .collect()
    }
}
