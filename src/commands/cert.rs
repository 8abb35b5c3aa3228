//! `sotto cert`: certificates for localhost, for trying things out.
//!
//! Not a certificate authority: the key that signed is thrown away, and the names are this
//! machine's only. Who serves others brings certificates of their own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sotto::server::certificates;

use super::{Ended, out};

/// Makes test certificates for localhost: ca.pem, server.pem, server.key, client.pem, client.key.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory for the files; it is created if necessary. Existing files are never overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

struct File {
    name: &'static str,
    mode: u32,
    content: String,
}

pub(crate) fn run(args: Args) -> Ended {
    let made = certificates::localhost()?;
    let files = [
        File { name: "ca.pem", mode: 0o644, content: made.ca_pem },
        File { name: "server.pem", mode: 0o644, content: made.server_pem },
        File { name: "server.key", mode: 0o600, content: made.server_key },
        File { name: "client.pem", mode: 0o644, content: made.client_pem },
        File { name: "client.key", mode: 0o600, content: made.client_key },
    ];
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot make the folder {}: {error}", args.out.display()))?;
    if let Some(file) = files.iter().find(|file| args.out.join(file.name).exists()) {
        let path = args.out.join(file.name);
        return Err(format!(
            "{} exists and is not overwritten: remove it, or name another folder",
            path.display()
        )
        .into());
    }
    for (done, file) in files.iter().enumerate() {
        if let Err(error) = write_new(&args.out, file) {
            // All or none: half of them would only be in the way of the next try.
            for file in &files[..=done] {
                let _ = std::fs::remove_file(args.out.join(file.name));
            }
            return Err(error.into());
        }
    }
    let folder = args.out.display();
    out::report(format_args!("{folder}: ca.pem, server.pem, server.key, client.pem, client.key"));
    Ok(ExitCode::SUCCESS)
}

fn write_new(out: &Path, file: &File) -> Result<(), String> {
    let path = out.join(file.name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(&path)
        .and_then(|mut opened| opened.write_all(file.content.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
