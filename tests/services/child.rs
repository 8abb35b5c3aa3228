//! A program that tests start and talk to by lines: commands go in, JSON comes out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

/// The folder of these files.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services")
}

/// A running program; it is ended when this is dropped.
pub(crate) struct Talker {
    child: Child,
    input: Mutex<ChildStdin>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Talker {
    /// Starts a program whose first line says its port.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = Mutex::new(child.stdin.take().unwrap());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        let port = first["port"].as_u64().unwrap() as u16;
        let (sender, events) = mpsc::unbounded_channel();
        // Ends with the program.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, input, events: tokio::sync::Mutex::new(events), port }
    }

    /// Gives a command and waits until it is in force. Events before it are dropped.
    pub(crate) async fn tell(&self, command: &str) {
        {
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(input, "{command}").unwrap();
        }
        self.event("done").await;
    }

    /// The next event of this kind; those of other kinds before it are left out.
    pub(crate) async fn event(&self, kind: &str) -> Value {
        let mut events = self.events.lock().await;
        loop {
            let event = events.recv().await.expect("the program has ended");
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// Gives a command, and fails if anything happened before it.
    pub(crate) async fn tell_and_expect_nothing_before(&self, command: &str) {
        {
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(input, "{command}").unwrap();
        }
        let event = self.events.lock().await.recv().await.expect("the program has ended");
        assert_eq!(event["event"], "done", "something happened before {command:?}");
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
