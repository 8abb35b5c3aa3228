//! The messages that people get.

use std::io::BufRead as _;

use sotto::registrar::channels::Arrived;
use tokio::sync::mpsc;

use crate::commands::demo::stage::Error;
use crate::commands::out::say;

/// The phones and mailboxes of everybody.
pub(super) struct Messages {
    /// Those that the gateway in this process plays.
    played: mpsc::Receiver<Arrived>,
    /// Lines of standard input, where text messages go to a message centre.
    typed: Option<mpsc::Receiver<String>>,
}

/// A message, as far as it is known here.
pub(super) struct Message {
    /// All of it, where the phone is played.
    pub(super) text: Option<String>,
    /// The domain that the code is bound to.
    pub(super) domain: Option<String>,
    pub(super) code: String,
}

impl Messages {
    pub(super) fn new(played: mpsc::Receiver<Arrived>, are_typed: bool) -> Self {
        let typed = are_typed.then(|| {
            let (sender, lines) = mpsc::channel(1);
            // Ends with the input, or with the first line after this demo.
            std::thread::spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            });
            lines
        });
        Self { played, typed }
    }

    /// The next message, which is to somebody's number or address.
    pub(super) async fn next(&mut self, to: &str) -> Result<Message, Error> {
        let is_phone = !to.contains('@');
        let Some(typed) = self.typed.as_mut().filter(|_| is_phone) else {
            return shown(self.played.recv().await.ok_or("the gateway has ended")?);
        };
        say(format_args!("  Type the code that the message centre was given for {to}:"))?;
        tokio::select! {
            line = typed.recv() => {
                let line = line.ok_or("standard input ended before all codes were typed")?;
                read(line.trim())
            }
            _ = self.played.recv() => Err("the message centre did not take the message".into()),
        }
    }
}

fn shown(arrived: Arrived) -> Result<Message, Error> {
    let (domain, code) = arrived.bound_code().ok_or("a message without a code")?;
    let (domain, code) = (Some(domain.to_owned()), code.to_owned());
    Ok(Message { text: Some(arrived.text.to_string()), domain, code })
}

/// A code, or the last line of a message: `@aero.example #123456`.
fn read(line: &str) -> Result<Message, Error> {
    let bound = line.strip_prefix('@').and_then(|rest| rest.split_once(" #"));
    let (domain, code) = bound.map_or((None, line), |(domain, code)| (Some(domain), code));
    match code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()) {
        true => {
            Ok(Message { text: None, domain: domain.map(str::to_owned), code: code.to_owned() })
        }
        false => Err("found another line than six digits, or the last line of the message".into()),
    }
}
