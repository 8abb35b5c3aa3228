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

use super::Ended;

/// Exit code of an error.
const FAILED: u8 = 2;

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

/// Standard output as a writer, for what is too long for one text. Its errors hold a [`Lost`].
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes).map_err(lost)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush().map_err(lost)
    }
}

fn lost(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, Lost(error)),
    }
}

/// Prints one or more lines, at once.
///
/// # Errors
/// The caller hands them on to [`ended`], after what must be done in any case.
pub fn say(text: impl Display) -> Result<(), Lost> {
    let text = format!("{text}\n");
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Lost)
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
        Err(error) if lost_in(&*error).is_some_and(Lost::is_closed) => ExitCode::SUCCESS,
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

fn lost_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Lost> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref::<Lost>().or_else(|| inner.and_then(|inner| inner.downcast_ref::<Lost>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_is_gone_is_no_error_and_any_other_is() {
        let lost = |kind: ErrorKind| Lost(kind.into());
        let closed: [Box<dyn Error>; 2] = [
            Box::new(lost(ErrorKind::BrokenPipe)),
            Box::new(super::lost(ErrorKind::BrokenPipe.into())),
        ];
        let others: [Box<dyn Error>; 3] = [
            Box::new(lost(ErrorKind::StorageFull)),
            Box::new(super::lost(ErrorKind::StorageFull.into())),
            // Of another pipe than standard output.
            Box::new(io::Error::from(ErrorKind::BrokenPipe)),
        ];
        let shown = |code: ExitCode| format!("{code:?}");
        for error in closed {
            assert_eq!(shown(ended(Err(error))), shown(ExitCode::SUCCESS));
        }
        for error in others {
            assert_eq!(shown(ended(Err(error))), shown(ExitCode::from(FAILED)));
        }
        assert!(unless_closed(Err(lost(ErrorKind::BrokenPipe))).is_ok());
        assert!(unless_closed(Err(lost(ErrorKind::StorageFull))).is_err());
    }
}
