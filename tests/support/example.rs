//! The examples as child processes.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What the child keeps of the environment; everything else, keys and proxies above all, would let the machine
/// decide what a test sees. Windows can't open sockets without the first, coverage needs the second.
const KEPT: [&str; 2] = ["SYSTEMROOT", "LLVM_PROFILE_FILE"];

/// The binary of the example with this name, which cargo puts beside the folder of the test that runs.
///
/// # Panics
///
/// When it hasn't been built: `cargo test` builds it, `cargo test --test NAME` doesn't.
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a test is in the profile's `deps`");
    let binary = profile
        .join("examples")
        .join(name)
        .with_extension(env::consts::EXE_EXTENSION);
    assert!(
        binary.is_file(),
        "{} is missing: run `cargo build --example {name}` first",
        binary.display()
    );
    binary
}

/// A command that would run the example with nothing of this machine's environment.
///
/// # Panics
///
/// As [`binary`].
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    // Escape codes would only be in the way of whoever searches the output.
    command
        .env_clear()
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
