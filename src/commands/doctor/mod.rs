//! `sotto doctor`: whether this machine and these options make a good server, and what to change.
//!
//! One line a check. What would keep the server from starting or from serving whom it should fails;
//! what makes it slow or fragile is a warning. Nothing is changed, a running server is left alone
//! (little memory, some seconds of one disk), and what was not given is not checked.

mod files;
mod machine;

use std::net::SocketAddr;
use std::process::ExitCode;

use serde::Serialize;

use super::{Ended, out, serve};

/// Checks this machine and the server's options. Exit code 1 means that the server would fail.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    serve: serve::Args,
    /// Print JSON: a list of {check, status, found, expected, advice}; the status is ok, warn or
    /// fail.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    expected: String,
    /// What to do; empty where all is well.
    advice: String,
}

impl Finding {
    /// All is well, until said otherwise.
    fn new(check: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self { check, status: Status::Ok, found, expected, advice: String::new() }
    }

    fn warn(self, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, advice: advice.into(), ..self }
    }

    fn fail(self, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, advice: advice.into(), ..self }
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Ended {
    let Args { serve, json } = args;
    let database = serve.db.as_deref().map(files::open);
    let opened = database.as_ref().and_then(|opened| opened.as_ref().ok());
    let mut findings = vec![options(&serve)];
    findings.extend(machine::engines(&serve));
    match &database {
        Some(Ok(database)) => findings.extend(files::database(database, &serve)),
        Some(Err(failed)) => {
            let finding = Finding::new("database", failed, "a database that opens");
            let advice = "give the folder that `sotto build` made, readable (--db)";
            findings.push(finding.fail(advice));
        }
        None => {}
    }
    findings.extend(files::certificates(&serve));
    findings.push(machine::memory(opened, &serve));
    findings.extend(machine::limits(opened));
    findings.extend(machine::sockets(serve.listen));
    findings.push(machine::large_pages());
    let lifetime = opened.map(|database| database.manifest().lifetime());
    findings.push(machine::clock(lifetime.map(|lifetime| lifetime.created)));
    findings
        .extend(lifetime.map(|lifetime| files::lifetime(lifetime, machine::now().unsigned_abs())));
    let missing = not_checked(&serve);
    let said =
        if json { serde_json::to_string_pretty(&findings)? } else { text(&findings, &missing) };
    out::unless_closed(out::say(said))?;
    let failed = findings.iter().any(|finding| finding.status == Status::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A line a finding, for people.
fn text(findings: &[Finding], missing: &[&str]) -> String {
    let line = |finding: &Finding| {
        let Finding { check, status, found, expected, advice } = finding;
        match status {
            Status::Ok => format!("ok    {check}: {found}"),
            Status::Warn => format!("warn  {check}: {found}; expected {expected}: {advice}"),
            Status::Fail => format!("FAIL  {check}: {found}; expected {expected}: {advice}"),
        }
    };
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    if !missing.is_empty() {
        lines.push(format!("not given, so not checked: {}", missing.join(", ")));
    }
    lines.join("\n")
}

/// What options want of each other.
fn options(args: &serve::Args) -> Finding {
    let wrong = args.check().err().or_else(|| strangers(args));
    match wrong {
        None => Finding::new("options", "agree with each other", "that they do"),
        Some(wrong) => Finding::new("options", wrong, "options that agree with each other")
            .fail("change one of them; `sotto config` says where each comes from"),
    }
}

/// Why the server would refuse to listen, though each option is right.
fn strangers(args: &serve::Args) -> Option<String> {
    let address: SocketAddr = args.listen?;
    let known = args.client_ca.is_some() || args.anyone_may_ask || address.ip().is_loopback();
    (!known).then(|| {
        format!(
            "{address} is not a loopback address, and neither client-ca nor anyone-may-ask is set"
        )
    })
}

fn not_checked(args: &serve::Args) -> Vec<&'static str> {
    let given = [
        (args.db.is_some(), "database and disk (--db)"),
        (args.cert.is_some() && args.key.is_some(), "certificate (--cert, --key)"),
        (args.listen.is_some(), "address (--listen)"),
    ];
    given.into_iter().filter(|(given, _)| !given).map(|(_, what)| what).collect()
}
