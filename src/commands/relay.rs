//! `sotto relay`: knows the accounts of devices, and forwards their sealed requests to a front-end
//! and to key services.
//!
//! Standard output gets one line, `listening on ADDR:PORT`, when it is ready; everything else goes
//! to the log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::value_parser;
use sotto::https::{Bounds, TlsFiles};
use sotto::limits;
use sotto::relay::{
    AccountsFrom, FrontEndFiles, KeyServiceFiles, Options, Quota, Relay, system_clock,
};

use super::log::LogFormat;
use super::running::{self, AdminArgs, reload_at_hangup, start_admin, told_to_leave};
use super::serve::{AdminAt, raise_file_limit};
use super::{Ended, out};

/// Forwards sealed requests of devices with an account to a front-end.
///
/// It reads certificates, keys, the keys of accounts and the directory again at SIGHUP.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// TOML file of options.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TCP address for devices; port 0 selects a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Certificate chain that devices see, beginning with the relay's own.
    #[arg(long, value_name = "PEM")]
    cert: PathBuf,
    /// Private key of the certificate.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Address of the front-end, such as https://front-end.example:8443.
    #[arg(long, value_name = "URL")]
    front_end: String,
    /// Authority that signs the front-end's certificate.
    #[arg(long, value_name = "PEM")]
    front_end_ca: PathBuf,
    /// Certificate that this relay shows to the front-end, which knows its name.
    #[arg(long, value_name = "PEM")]
    client_cert: PathBuf,
    /// Private key of that certificate.
    #[arg(long, value_name = "PEM")]
    client_key: PathBuf,
    /// The signed directory, which has the key services of providers: requests for keys go there.
    /// Without it this relay forwards none.
    #[arg(long, value_name = "FILE")]
    directory: Option<PathBuf>,
    /// Pins that the directory has to satisfy.
    #[arg(long, value_name = "FILE")]
    directory_pins: Option<PathBuf>,
    /// Authorities that sign the certificates of key services.
    #[arg(long, value_name = "PEM", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    key_services_ca: PathBuf,
    /// How accounts are recognised: jwks:FILE (tokens are JWTs, EdDSA, verified by a JWK set) or
    /// introspect:URL (a service is asked about each token, RFC 7662).
    #[arg(long, value_name = "HOW")]
    accounts: AccountsArg,
    /// Whom JWTs have to be for (`aud`). Without it every audience is accepted.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Authorities that sign the certificate of the service that knows tokens.
    #[arg(long, value_name = "PEM", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    introspect_ca: PathBuf,
    /// File with the value of the Authorization header that this service wants.
    #[arg(long, value_name = "FILE")]
    introspect_authorization: Option<PathBuf>,
    /// New identifiers that an account may have evaluated, and requests for keys that it may send:
    /// so many at once, so many more a day.
    #[arg(long, value_name = "BURST,REFILL/day", default_value = "1024,128/day")]
    evaluate: Quota,
    /// Look-ups that an account may make: so many at once, so many more a day.
    #[arg(long, value_name = "BURST,REFILL/day", default_value = "2048,512/day")]
    lookup: Quota,
    /// Folder of what accounts have used, and of the key under which they are stored. It is made
    /// if it is missing.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Memory for bodies of requests and replies on their way.
    #[arg(long, value_name = "MIB", default_value_t = (limits::RELAY_MEMORY_BYTES >> 20) as u32,
        value_parser = value_parser!(u32).range(4..))]
    memory: u32,
    /// Most requests that wait for the front-end at once.
    #[arg(long, value_name = "N", default_value_t = limits::RELAY_FORWARDS_MAX as u32,
        value_parser = value_parser!(u32).range(1..))]
    forwards: u32,
    /// Most connections of devices.
    #[arg(long, value_name = "N", default_value_t = limits::RELAY_CONNECTIONS_MAX as u32,
        value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// Address of the operator's HTTP endpoints (/metrics, /readyz, /livez), or `off`. By default
    /// 127.0.0.1:9465, and none if that is taken.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics.
    #[arg(long)]
    admin_anyone: bool,
    /// Form of the log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    pub(super) log_format: LogFormat,
}

/// The value of `--accounts`.
#[derive(Debug, Clone)]
enum AccountsArg {
    Jwks(PathBuf),
    Introspect(String),
}

impl FromStr for AccountsArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("jwks", file)) if !file.is_empty() => Ok(Self::Jwks(file.into())),
            Some(("introspect", url)) if !url.is_empty() => Ok(Self::Introspect(url.into())),
            _ => Err("expected jwks:FILE or introspect:URL"),
        }
    }
}

/// The port of the endpoints for the operator.
const ADMIN_PORT: u16 = 9465;

pub(crate) fn run(args: Args) -> Ended {
    if args.audience.is_some() && matches!(args.accounts, AccountsArg::Introspect(_)) {
        return Err("--audience is for jwks:FILE: a service that is asked knows its tokens".into());
    }
    if args.directory.is_some() != args.directory_pins.is_some() {
        return Err("--directory and --directory-pins go together: found one of them".into());
    }
    running::to_end(start(args))
}

async fn start(args: Args) -> Ended {
    raise_file_limit();
    if let Some(file) = &args.config {
        tracing::info!("options are also read from {}", file.display());
    }
    let admin = AdminArgs { at: args.admin, anyone: args.admin_anyone, port: ADMIN_PORT };
    let relay = Relay::start(options(args)).await?;
    let control = relay.control();
    start_admin(admin, control.shown()).await?;
    reload_at_hangup(move || control.reload())?;
    let leave = told_to_leave()?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", relay.local_addr())))?;
    relay.run(leave).await;
    tracing::info!("left");
    Ok(ExitCode::SUCCESS)
}

fn options(args: Args) -> Options {
    let accounts = match args.accounts {
        AccountsArg::Jwks(file) => AccountsFrom::Jwks { file, audience: args.audience },
        AccountsArg::Introspect(url) => AccountsFrom::Introspection {
            url,
            ca: args.introspect_ca,
            authorization: args.introspect_authorization,
        },
    };
    let found = args.directory.zip(args.directory_pins);
    let ca = args.key_services_ca;
    Options {
        listen: args.listen,
        tls: TlsFiles { cert: args.cert, key: args.key, client_ca: None },
        front_end: FrontEndFiles {
            url: args.front_end,
            ca: args.front_end_ca,
            cert: args.client_cert,
            key: args.client_key,
            time: limits::RELAY_FORWARD_TIME,
        },
        key_services: found.map(|(directory, pins)| KeyServiceFiles { directory, pins, ca }),
        accounts,
        evaluate: args.evaluate,
        lookup: args.lookup,
        state: args.state,
        memory_bytes: (args.memory as usize) << 20,
        forwards: args.forwards as usize,
        bounds: Bounds {
            connections: args.connections as usize,
            handshakes: limits::RELAY_HANDSHAKES_MAX,
            handshake_time: limits::RELAY_HANDSHAKE_TIME,
            head_time: limits::RELAY_HEAD_TIME,
            idle_time: limits::RELAY_IDLE_TIME,
            body_time: limits::RELAY_BODY_TIME,
        },
        clock: system_clock(),
    }
}
