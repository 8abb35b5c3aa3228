//! What the relay, the front-end and the services of registration have in common while they run:
//! endpoints for the operator, and files that are read again at SIGHUP.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};

use sotto::https::{Admin, AdminCallers, AdminError, Shown};
use tokio::signal::unix::{SignalKind, signal};

use super::Ended;
use super::serve::AdminAt;

/// Runs a command that speaks to others.
pub(super) fn to_end(command: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the network's threads: {error}"))?;
    let ended = runtime.block_on(command);
    // This does not wait for work on files that hangs.
    runtime.shutdown_background();
    ended
}

/// What runs a command that moves bytes and is over then.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start the network's thread: {error}"))
}

/// Where the endpoints of the operator are, and who may reach them.
pub(super) struct AdminArgs {
    pub(super) at: Option<AdminAt>,
    pub(super) anyone: bool,
    /// The port on 127.0.0.1 where nothing else is asked for.
    pub(super) port: u16,
}

pub(super) async fn start_admin(args: AdminArgs, shown: Shown) -> Result<(), AdminError> {
    let address = match args.at {
        Some(AdminAt::Off) => return Ok(()),
        Some(AdminAt::Address(address)) => address,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
    };
    let callers = if args.anyone { AdminCallers::Anyone } else { AdminCallers::Loopback };
    let admin = match Admin::bind(address, callers).await {
        Ok(admin) => admin,
        // Nobody asked for this address.
        Err(error) if args.at.is_none() => {
            tracing::warn!("there are no admin endpoints: {error}; give them an address (--admin)");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let address = admin.local_addr();
    if args.anyone && !address.ip().is_loopback() {
        tracing::warn!("ANYONE WHO REACHES {address} (TCP) MAY READ METRICS");
    }
    tracing::info!("admin endpoints are at http://{address}/metrics");
    tokio::spawn(admin.run(shown));
    Ok(())
}

/// Has files read again whenever the process is told to.
pub(super) fn reload_at_hangup<E: Display + Send + 'static>(
    reload: impl Fn() -> Result<(), E> + Clone + Send + 'static,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tokio::task::spawn_blocking(reload.clone()).await {
                Ok(Ok(())) => tracing::info!("files were read again"),
                Ok(Err(error)) => tracing::error!(%error, "not all was read again"),
                Err(_) => tracing::error!("this is a bug: reading again panicked"),
            }
        }
    });
    Ok(())
}

/// Ends when the process is asked to end.
pub(super) fn told_to_leave() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
