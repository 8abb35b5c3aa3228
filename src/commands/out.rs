//! Standard output and standard error of every command: nothing else writes to them.
//!
//! What a command is asked for goes through [`say`]: when the reader has closed standard output the
//! command ends there, without a message and with exit code 0; when it cannot be written (a full
//! disk) the command ends with an error. What a command has done already goes through [`report`],
//! which never fails: a reader changes neither what was done nor the exit code.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// How a command ends: an exit code of its own, or an error for `error: ...` and exit code 2.
pub type Ended = Result<ExitCode, Box<dyn Error>>;

/// Exit code of an error.
const FAILED: u8 = 2;
/// Exit code after Ctrl-C, as shells have it.
pub(super) const INTERRUPTED: u8 = 130;

/// Standard output takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Lost(io::Error);

impl Lost {
    /// Whether the reader has closed it, which is no error.
    pub fn is_closed(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Has standard output written by what makes a text that is too long to be held.
pub(super) fn write(text: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Lost> {
    let mut out = io::stdout().lock();
    text(&mut out).and_then(|()| out.flush()).map_err(Lost)
}

/// Prints one or more lines, at once.
///
/// # Errors
/// The caller hands them on to [`ended`], after what must be done in any case.
pub fn say(text: impl Display) -> Result<(), Lost> {
    write(|out| out.write_all(format!("{text}\n").as_bytes()))
}

/// Prints what was done. Where standard output cannot be written, standard error has it.
pub fn report(text: impl Display) {
    let text = text.to_string();
    if let Err(lost) = say(&text)
        && !lost.is_closed()
    {
        complain(format_args!("{text}\nnote: {lost}, so this was written to standard error"));
    }
}

/// Prints a line on standard error, if that is possible.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// For commands whose exit code is a result: it stays what it is when the reader has gone.
pub fn unless_closed(said: Result<(), Lost>) -> Result<(), Lost> {
    said.or_else(|lost| if lost.is_closed() { Ok(()) } else { Err(lost) })
}

/// The exit code of a command that ended so; prints its error.
pub fn ended(ended: Ended) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(error) if error.downcast_ref().is_some_and(Lost::is_closed) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Prints an error; its exit code.
pub fn failed(error: &dyn Display) -> ExitCode {
    complain(format_args!("error: {error}"));
    ExitCode::from(FAILED)
}

/// Prints what clap has to say: help and version are results, the rest are errors.
pub fn parsed(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED));
    match error.print() {
        Err(lost) if !error.use_stderr() && lost.kind() != ErrorKind::BrokenPipe => {
            failed(&Lost(lost))
        }
        _ => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_is_gone_is_no_error_and_any_other_is() {
        let lost = |kind: ErrorKind| Lost(kind.into());
        let code = |error: Box<dyn Error>| format!("{:?}", ended(Err(error)));
        let [fine, failed] = [ExitCode::SUCCESS, ExitCode::from(FAILED)].map(|c| format!("{c:?}"));
        assert_eq!(code(Box::new(lost(ErrorKind::BrokenPipe))), fine);
        assert_eq!(code(Box::new(lost(ErrorKind::StorageFull))), failed);
        // Of another pipe than standard output.
        assert_eq!(code(Box::new(io::Error::from(ErrorKind::BrokenPipe))), failed);
        assert!(unless_closed(Err(lost(ErrorKind::BrokenPipe))).is_ok());
        assert!(unless_closed(Err(lost(ErrorKind::StorageFull))).is_err());
    }
}
