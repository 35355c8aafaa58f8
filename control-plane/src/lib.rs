//! The control plane: config store, REST API, pages, link to the nodes, audit and CDR collection.
//! Handles no call: SIP, media and emergency routing go on without it.
//!
//! | Folder | What |
//! |---|---|
//! | [`api`] | REST API, its description, metrics |
//! | [`store`] | tables of SQLite or PostgreSQL; one writer |
//! | [`publish`] | config versions: check, activate, roll back, publish |
//! | [`collect`] | the link: nodes connect, take config, hand in records |
//! | [`certs`] | certificates of the link |
//! | [`e911`] | sites of the multi-site E911 routes |
//! | [`karis`] | checks of Kari's Law settings |
//! | [`soc2`] | SOC 2 controls, tests, report |
//! | [`notify`] | emergency contacts, the queue of notifications and their delivery |
//! | [`stir`] | signing and verification for the routes of ATIS-1000082 |
//! | [`reports`] | monthly reports |
//! | [`ui`] | pages for people |
#![forbid(unsafe_code)]

pub mod api;
pub mod certs;
pub mod clock;
pub mod collect;
pub mod datadir;
pub mod e911;
pub mod error;
mod http;
pub mod ident;
pub mod karis;
pub mod log;
pub mod notify;
pub mod publish;
pub mod reports;
mod server;
pub mod soc2;
pub mod stir;
pub mod store;
pub mod ui;

pub use error::{ControlError, StoreError};
pub use server::{ControlOptions, Server};

/// Runs the control plane until SIGTERM or SIGINT; SIGHUP reads the config file again. Blocks.
///
/// # Errors
/// See [`ControlError`]. A config file with faults is [`ControlError::Config`], whose text lists
/// every fault with its path and line; the caller exits with 2.
pub fn run(options: ControlOptions) -> Result<(), ControlError> {
    log::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| ControlError::File { path: "tokio runtime".into(), source })?;
    runtime.block_on(async {
        let signal = |kind| {
            tokio::signal::unix::signal(kind)
                .map_err(|source| ControlError::File { path: "signal handler".into(), source })
        };
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
        // From the start on: a signal that nobody listens to would end the process.
        let mut hangup = signal(tokio::signal::unix::SignalKind::hangup())?;
        let server = Server::start(options).await?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => server.reload().await,
            }
        }
        tracing::info!("control plane stops");
        server.stop().await
    })
}
