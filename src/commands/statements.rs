//! `sotto statements`: signs, verifies and shows what is said about who is reached where.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sotto::discovery::batch::Batch;
use sotto::discovery::files::{self, Draft};
use sotto::discovery::identifier::{Identifier, Region};
use sotto::discovery::statement::{Preference, Ssi};
use sotto::limits::JWS_BYTES_MAX;
use sotto::shard::files::{read_regular, write_file};

use super::trusted::{directory, in_file, load, now};
use super::{Ended, out};

/// Signs, verifies and shows statements: mappings, withdrawals, preferences and batches.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Sign(Sign),
    SignBatch(SignBatch),
    Prefer(Prefer),
    Verify(Verify),
    /// Print what the statements in a file say. Nothing is verified
    Show {
        /// The file
        file: PathBuf,
    },
}

/// Sign the claims of a mapping or a withdrawal, and print the statement
///
/// Claims are JSON; their member `typ` is sotto-mapping+jwt or sotto-withdrawal+jwt. iat, jti and,
/// for a mapping, exp (a year) and `proof_at` (iat) are added if they are missing.
#[derive(clap::Args)]
struct Sign {
    /// File of the claims
    claims: PathBuf,
    /// Private key of the issuer, or of the user who withdraws (Ed25519, PKCS#8 PEM)
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Private key of the user who agrees to be found: adds uk and up
    #[arg(long, value_name = "PEM")]
    user_key: Option<PathBuf>,
    /// Print the line of a batch, which the issuer does not sign alone
    #[arg(long)]
    for_batch: bool,
}

/// Sign a file of claims as the next batch of an issuer
#[derive(clap::Args)]
struct SignBatch {
    /// File of the lines: claims with typ, and in mappings uk and up
    lines: PathBuf,
    /// Domain of the issuer
    #[arg(long, value_name = "DOMAIN")]
    iss: String,
    /// Private key of the issuer (Ed25519, PKCS#8 PEM)
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// The batch before [default: this is the first one]
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// The batch, a new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Sign a preference as a user, and print it
#[derive(clap::Args)]
struct Prefer {
    /// The phone number or address that it is about
    identifier: String,
    /// Region in which the number is dialled as it is written
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// The preferred service, mimi://domain/u/handle [default: none any more]
    #[arg(long, value_name = "SSI")]
    ssi: Option<String>,
    /// Private key of the user (Ed25519, PKCS#8 PEM)
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
}

/// Verify files of statements and batches; batches of an issuer in their order
///
/// What several statements mean together is checked by `sotto records make`. The exit code is 1 if
/// a statement is refused.
#[derive(clap::Args)]
struct Verify {
    /// The signed directory
    #[arg(long, value_name = "FILE")]
    directory: PathBuf,
    /// Pins that the directory is checked with
    #[arg(long, value_name = "FILE")]
    pins: PathBuf,
    /// Verify as of this time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<u64>,
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(crate) fn run(args: Args) -> Ended {
    match args.command {
        Command::Sign(args) => sign(&args),
        Command::SignBatch(args) => sign_batch(&args),
        Command::Prefer(args) => prefer(&args),
        Command::Verify(args) => verify(&args),
        Command::Show { file } => show(&file),
    }
}

fn sign(args: &Sign) -> Ended {
    let bytes = read_regular(&args.claims, JWS_BYTES_MAX as u64 + 1);
    let bytes = bytes.map_err(|error| in_file(&args.claims, &error))?;
    let key = load(&args.key)?;
    let user = args.user_key.as_deref().map(load).transpose()?;
    let now = now()?;
    let signed = files::read_text(&bytes).and_then(|claims| {
        let draft = Draft::read(claims, user.as_ref(), now)?;
        if args.for_batch { Ok(draft.to_batch_line()) } else { draft.sign(&key) }
    });
    out::say(signed.map_err(|refusal| in_file(&args.claims, &refusal))?)?;
    Ok(ExitCode::SUCCESS)
}

fn sign_batch(args: &SignBatch) -> Ended {
    let key = load(&args.key)?;
    let previous = args.previous.as_deref().map(previous).transpose()?;
    if args.out.exists() {
        return Err(format!("{}: it exists; name a new file", args.out.display()).into());
    }
    let now = now()?;
    let lines = open(&args.lines)?;
    let mut signed = None;
    write_file(&args.out, |out| {
        let batch = files::sign_batch(lines, &args.iss, previous.as_ref(), now, &key, out);
        signed = Some(batch.map_err(std::io::Error::other)?);
        Ok(())
    })
    .map_err(|error| in_file(&args.lines, &error))?;
    if let Some(batch) = signed {
        let (out, count) = (args.out.display(), batch.count);
        out::report(format_args!("{out}: batch {} of {}, {count} lines", batch.seq, batch.iss));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the first line of a batch says.
fn previous(path: &Path) -> Result<Batch, String> {
    let mut line = Vec::new();
    files::next_line(&mut open(path)?, &mut line, |_| {}).map_err(|e| in_file(path, &e))?;
    let batch = files::read_text(&line).and_then(Batch::of_own);
    batch.map_err(|refusal| in_file(path, &refusal))
}

fn prefer(args: &Prefer) -> Ended {
    let sub = Identifier::parse(&args.identifier, args.region)?;
    let ssi = args.ssi.as_deref().map(Ssi::parse).transpose()?;
    out::say(Preference::new(sub, ssi, now()?, &load(&args.key)?).to_line())?;
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &Verify) -> Ended {
    let now = args.now.map_or_else(now, Ok)?;
    let directory = directory(&args.directory, &args.pins, now)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut is_refused = false;
    for path in &args.files {
        let name = path.display();
        let mut said = Ok(());
        let found = files::verify(open(path)?, &directory, now, |line, refusal| {
            is_refused = true;
            if said.is_ok() {
                said = out::say(format_args!("{name}:{line}: {refusal}"));
            }
        });
        let found = found.map_err(|error| in_file(path, &error))?;
        out::unless_closed(said)?;
        let mut summary = format!("{name}: {} accepted", found.accepted);
        for (code, count) in &found.refused {
            summary.push_str(&format!(", {count} refused ({code})"));
        }
        if let Some(batch) = found.batch {
            summary.push_str(&format!(", batch {} of {}", batch.seq, batch.iss));
            let before = batches.iter().rev().find(|before| before.iss == batch.iss);
            if before.is_none() && batch.seq > 1 {
                summary.push_str("; that it follows the one before was not checked");
            } else if let Err(refusal) = batch.follows(before) {
                is_refused = true;
                out::unless_closed(out::say(format_args!("{name}:1: {refusal}")))?;
            }
            batches.push(batch);
        }
        out::unless_closed(out::say(summary))?;
    }
    Ok(ExitCode::from(u8::from(is_refused)))
}

fn show(path: &Path) -> Ended {
    let mut file = open(path)?;
    let mut line = Vec::new();
    out::complain("note: nothing of this was verified");
    while files::next_line(&mut file, &mut line, |_| {}).map_err(|e| in_file(path, &e))? {
        let shown = files::read_text(&line).and_then(files::show);
        out::say(shown.unwrap_or_else(|refusal| refusal.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| in_file(path, &error))?;
    Ok(BufReader::with_capacity(1 << 18, file))
}
