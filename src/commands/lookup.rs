//! `sotto lookup`: looks keys up privately and prints what it finds.
//!
//! All keys go in one call. No answer is decoded to an outcome, and none is printed, before the
//! last one is there and the server was told that this client leaves: no byte that is sent and no
//! time at which it is sent depends on what was found, nor on who reads what is printed. Exit code
//! 0: all found; 1: some not found; 2: an error; 130: interrupted, and then nothing is printed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sotto::client::{
    Client, ClientError, LookupError, OperatorKey, Options, Outcome, Pins, Replica,
};
use sotto::limits;
use sotto::shard::read_placement;
use sotto::text::{self, TextError};

use super::pins::{self, PinsFileError};
use super::{Ended, out};

/// Marks a value or key that is shown in base64.
const BASE64: &str = "base64:";

/// Looks keys up; the server does not learn which.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Read keys from a file with one key in each line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    keys_from: Option<PathBuf>,
    /// Print one JSON object in each line.
    #[arg(long)]
    json: bool,
    /// File that keeps what is known of the database from run to run: operator's key, name, seed,
    /// epoch and number of shards. A database that contradicts it is refused. [default: a file
    /// below $XDG_STATE_HOME/sotto/pins or ~/.local/state/sotto/pins, named by operator's key or by
    /// server]
    #[arg(long, value_name = "FILE")]
    pins: Option<PathBuf>,
    /// Keep nothing from run to run.
    #[arg(long, conflicts_with = "pins")]
    no_pins: bool,
    /// Keys, such as phone numbers or addresses, exactly as they are in the database.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
}

/// The servers of a database, and what identifies it.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// Server. Give it several times for replicas of one database; the first is used until it
    /// fails.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "placement")]
    server: Vec<String>,
    /// In place of servers: which hosts have which shards (`sotto placement make`). Their
    /// certificates are for their names, or for `--server-name`.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    placement: Option<PathBuf>,
    /// Name in the certificates of the servers, if it differs from HOST.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Certificates (PEM) of the authorities that sign the servers' certificates.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Certificate chain of this client, for servers that require one.
    #[arg(long, value_name = "PEM", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Private key of that certificate.
    #[arg(long, value_name = "PEM", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The operator's public key: the file `operator.pub` of the database, a file with 64 hex
    /// digits, or these digits. Without it the key that the server shows is trusted.
    #[arg(long, value_name = "FILE|DIGITS")]
    operator_key: Option<PathBuf>,
    /// Name of the database, if the operator signs several with one key.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The least number of records in a shard that is accepted. A look-up hides among them.
    #[arg(long, value_name = "N", default_value_t = limits::RECORDS_PER_SHARD_ACCEPTED_MIN)]
    accept_shard_records: u64,
}

type Found = Result<Outcome, LookupError>;
type Error = Box<dyn std::error::Error>;

pub(crate) fn run(args: Args) -> Ended {
    let keys = keys(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = args.server.options().await?;
        let file = pins_file(&args, &options.pins);
        if let Some(file) = &file {
            options.pins = pins::read(file, options.pins)?;
        }
        let mut client = connect(&args, options).await?;
        // Before anything is looked up, so that what this run saw is kept however it ends.
        store(&args, file.as_deref(), client.pins())?;
        let answers = tokio::select! {
            answers = client.ask(&keys) => Some(answers),
            _ = tokio::signal::ctrl_c() => None,
        };
        let stored = store(&args, file.as_deref(), &client.close().await);
        let Some(answers) = answers else { return Ok(ExitCode::from(out::INTERRUPTED)) };
        let outcomes = answers?.open();
        out::unless_closed(print(&args, &keys, &outcomes))?;
        stored?;
        Ok(exit_code(&outcomes))
    })
}

fn pins_file(args: &Args, sought: &Pins) -> Option<PathBuf> {
    match &args.pins {
        Some(path) => Some(path.clone()),
        None if args.no_pins => None,
        None => pins::default_file(sought, &args.server.name()),
    }
}

/// A default file that cannot be written is a warning only.
fn store(args: &Args, file: Option<&Path>, pins: &Pins) -> Result<(), PinsFileError> {
    match file.map_or(Ok(()), |file| pins::write(file, pins)) {
        Err(error @ PinsFileError::Unwritable { .. }) if args.pins.is_none() => {
            tracing::warn!("{error}");
            Ok(())
        }
        stored => stored,
    }
}

fn print(args: &Args, keys: &[Vec<u8>], outcomes: &[Found]) -> Result<(), out::Lost> {
    let line = |(key, outcome): (&Vec<u8>, &Found)| match args.json {
        true => json_line(key, outcome),
        false => text_line(key, outcome),
    };
    out::say(keys.iter().zip(outcomes).map(line).collect::<Vec<_>>().join("\n"))
}

fn keys(args: &Args) -> Result<Vec<Vec<u8>>, Error> {
    if args.keys.iter().any(String::is_empty) {
        let most = limits::KEY_BYTES_MAX;
        return Err(format!("KEY: found an empty key, expected 1 to {most} bytes").into());
    }
    let mut keys: Vec<Vec<u8>> = args.keys.iter().map(|key| key.clone().into_bytes()).collect();
    if let Some(path) = &args.keys_from {
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            std::io::stdin().lock().read_to_end(&mut bytes)?;
            bytes = text::plain(&bytes);
        } else {
            bytes = read(path, "--keys-from")?;
        }
        if text::is_utf16(&bytes) {
            return Err(format!("--keys-from {}: {}", path.display(), TextError::Utf16).into());
        }
        let lines = bytes.split(|&byte| byte == b'\n');
        keys.extend(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    if keys.is_empty() {
        return Err("no key to look up: give keys as arguments or by --keys-from FILE".into());
    }
    Ok(keys)
}

/// A file without the byte order mark that an editor may have put there.
fn read(path: &Path, option: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map(|bytes| text::plain(&bytes))
        .map_err(|error| format!("{option} {}: {error}", path.display()))
}

async fn connect(args: &Args, options: Options) -> Result<Client, Error> {
    let is_first_use = options.pins.operator_key().is_none();
    let client = Client::connect(options).await.map_err(|error| match error {
        ClientError::Option { what: Options::CA_FILE, .. } | ClientError::Connect { .. } => {
            format!("{error} (--ca {})", args.server.ca.display()).into()
        }
        error => Error::from(error),
    })?;
    if is_first_use {
        tracing::info!("to pin this key: --operator-key {}", client.operator_key());
    }
    Ok(client)
}

impl ServerArgs {
    /// What the servers are called together.
    fn name(&self) -> String {
        let of_file = self.placement.iter().map(|file| file.display().to_string());
        self.server.iter().cloned().chain(of_file).next().unwrap_or_default()
    }

    /// The options of a client.
    pub async fn options(&self) -> Result<Options, Error> {
        let mut pins = match &self.operator_key {
            None => Pins::first_use(),
            Some(given) => Pins::operator(operator_key(given)?),
        };
        if let Some(name) = &self.database {
            pins = pins.for_database(name).map_err(|error| format!("--database: {error}"))?;
        }
        let ca = read(&self.ca, "--ca")?;
        let mut options = match &self.placement {
            Some(file) => {
                let placement = read_placement(file)?;
                Options::placed(placement, self.server_name.as_deref(), ca, pins).await?
            }
            None => {
                let mut replicas = Vec::new();
                for server in &self.server {
                    let Replica { addresses, server_name } = Replica::resolve(server).await?;
                    let server_name = self.server_name.clone().unwrap_or(server_name);
                    replicas.push(Replica { addresses, server_name });
                }
                let mut options = Options::new(replicas.remove(0), ca, pins);
                options.replicas.append(&mut replicas);
                options
            }
        };
        options.records_per_shard_min = self.accept_shard_records;
        if let (Some(chain), Some(key)) = (&self.client_cert, &self.client_key) {
            let pem = (read(chain, "--client-cert")?, read(key, "--client-key")?);
            options.identity_pem = Some(pem);
        }
        Ok(options)
    }
}

/// The key's digits themselves, or else a file.
fn operator_key(given: &Path) -> Result<OperatorKey, Error> {
    let digits = given.to_str().filter(|text| text.len() == 64);
    if let Some(Ok(key)) = digits.map(OperatorKey::from_text) {
        return Ok(key);
    }
    let text = read(given, "--operator-key")?;
    let key = OperatorKey::from_text(&String::from_utf8_lossy(&text));
    key.map_err(|error| format!("{}: {error}", given.display()).into())
}

/// Text where a person can read it in one line, else base64.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) && !text.starts_with(BASE64) => text.into(),
        _ => format!("{BASE64}{}", STANDARD.encode(bytes)),
    }
}

/// The value, none where the key is absent, or what is wrong with the answer.
fn told(outcome: &Found) -> Result<Option<String>, String> {
    match outcome {
        Ok(Outcome::Found(value)) => Ok(Some(shown(value))),
        Ok(Outcome::Absent) => Ok(None),
        Ok(Outcome::Invalid) => Err(
            "the answer cannot be believed: a stale or forged hint, a changed matrix or a broken \
             server. Do not look this key up again at once, which would tell that server so: wait \
             until you would have done so anyway"
                .into(),
        ),
        Err(error) => Err(error.to_string()),
    }
}

fn text_line(key: &[u8], outcome: &Found) -> String {
    let result = match told(outcome) {
        Ok(Some(value)) => value,
        Ok(None) => "not found".into(),
        Err(problem) => format!("error: {problem}"),
    };
    format!("{}\t{result}", shown(key))
}

fn json_line(key: &[u8], outcome: &Found) -> String {
    let key = shown(key);
    let object = match told(outcome) {
        Ok(Some(value)) => json!({ "key": key, "found": true, "value": value }),
        Ok(None) => json!({ "key": key, "found": false }),
        Err(problem) => json!({ "key": key, "error": problem }),
    };
    object.to_string()
}

fn exit_code(outcomes: &[Found]) -> ExitCode {
    let code = outcomes.iter().map(|outcome| match told(outcome) {
        Ok(Some(_)) => 0,
        Ok(None) => 1,
        Err(_) => 2,
    });
    ExitCode::from(code.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_in_one_line_is_shown_in_base64() {
        let cases: [(&[u8], &str); 6] = [
            (b"plain", "plain"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"", ""),
            (b"a\tb", "base64:YQli"),
            (b"\xff\x00", "base64:/wA="),
            (b"base64:", "base64:YmFzZTY0Og=="),
        ];
        for (bytes, text) in cases {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_its_exit_code() {
        let (found, invalid) = (Ok(Outcome::Found(b"x".to_vec())), Ok(Outcome::Invalid));
        assert!(text_line(b"k", &invalid).starts_with("k\terror: "));
        assert!(json_line(b"k", &Err(LookupError::HintForged)).starts_with(r#"{"error":"#));
        for last in [invalid, Err(LookupError::ShardUnknown)] {
            let code = exit_code(&[found.clone(), Ok(Outcome::Absent), last]);
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
        }
    }
}
