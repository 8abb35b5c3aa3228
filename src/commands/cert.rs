//! `sotto cert`: certificates for localhost, for trying things out.
//!
//! This is not a certificate authority: the key that signs is thrown away, and the names are those
//! of this machine only. A server for others needs certificates of another source.

use std::path::PathBuf;
use std::process::ExitCode;

use sotto::server::certificates;

use super::folder::write_new;
use super::{Ended, out};

/// Makes test certificates for localhost: ca.pem, server.pem, server.key, client.pem, client.key.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory for the files; it is created if necessary. Existing files are never overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Ended {
    let made = certificates::localhost()?;
    let files = [
        ("ca.pem", made.ca_pem, 0o644),
        ("server.pem", made.server_pem, 0o644),
        ("server.key", made.server_key, 0o600),
        ("client.pem", made.client_pem, 0o644),
        ("client.key", made.client_key, 0o600),
    ];
    let folder = args.out.display();
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot make the folder {folder}: {error}"))?;
    let paths = files.each_ref().map(|(name, ..)| args.out.join(name));
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        let path = path.display();
        let advice = "remove it, or name another folder";
        return Err(format!("{path} exists and is not overwritten: {advice}").into());
    }
    for (done, (path, (_, content, mode))) in paths.iter().zip(&files).enumerate() {
        if let Err(error) = write_new(path, content, *mode) {
            // All or none: some of them would be in the way of the next attempt.
            for path in &paths[..=done] {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    }
    out::report(format_args!("{folder}: ca.pem, server.pem, server.key, client.pem, client.key"));
    Ok(ExitCode::SUCCESS)
}
