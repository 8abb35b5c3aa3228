//! `sotto doctor`: whether this machine and these options make a good server, and what to change.
//!
//! Each check prints one line. It fails where the server would not start or would not serve whom
//! it should; it warns of what makes the server slow or fragile. The checks change nothing, take
//! little memory and some seconds of one disk, and leave out what was not given.

mod files;
mod finding;
mod machine;

use std::path::Path;
use std::process::ExitCode;

use sotto::shard::{Database, Opening};

use self::finding::{Finding, Status};
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

pub(crate) fn run(args: Args) -> Ended {
    let Args { serve, json } = args;
    let open = |db: &Path| Database::open_held(db, serve.held_by(), &Opening::default());
    let database = serve.db.as_deref().map(open);
    let opened = database.as_ref().and_then(|opened| opened.as_ref().ok());
    let mut findings = vec![options(&serve)];
    findings.extend(machine::engines(&serve));
    match &database {
        Some(Ok(database)) => findings.extend(files::database(database, &serve)),
        Some(Err(failed)) => {
            let finding = Finding::new("database", serve::explain(failed), "a database that opens");
            let advice = "give the folder that `sotto build` made, readable (--db)";
            findings.push(finding.fail(advice));
        }
        None => {}
    }
    findings.extend(files::certificates(&serve));
    findings.push(machine::memory(opened, &serve));
    findings.extend(machine::limits(opened));
    findings.extend(machine::sockets(serve.listen));
    let lifetime = opened.map(|database| database.manifest().lifetime());
    let now = machine::now().unsigned_abs();
    findings.extend(lifetime.map(|lifetime| files::lifetime(lifetime, now)));
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

/// Whether options agree with each other.
fn options(args: &serve::Args) -> Finding {
    let reachable = args.listen.filter(|address| !address.ip().is_loopback());
    let wrong = match (args.check(), reachable) {
        (Err(wrong), _) => Some(wrong),
        (Ok(()), Some(address)) if args.client_ca.is_none() && !args.anyone_may_ask => {
            Some(format!(
                "{address} is not a loopback address, and neither client-ca nor anyone-may-ask is \
                 set"
            ))
        }
        _ => None,
    };
    let is_wrong = wrong.is_some();
    let found = wrong.unwrap_or_else(|| "agree with each other".to_owned());
    Finding::new("options", found, "options that agree with each other")
        .fail_if(is_wrong, "change one of them; `sotto config` says where each comes from")
}

fn not_checked(args: &serve::Args) -> Vec<&'static str> {
    let given = [
        (args.db.is_some(), "database and disk (--db)"),
        (args.cert.is_some() && args.key.is_some(), "certificate (--cert, --key)"),
        (args.listen.is_some(), "address (--listen)"),
    ];
    given.into_iter().filter(|(given, _)| !given).map(|(_, what)| what).collect()
}
