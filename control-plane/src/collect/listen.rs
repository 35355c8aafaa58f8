//! Where nodes connect: a Unix socket on this machine, mutual TLS from others.

use std::{
    io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{connection, records::Batch, registry::Registry};
use crate::{
    api::metrics::OwnCounters, certs, error::ControlError, publish::ActiveWatch, store::Store,
};

/// Streams that are served at once; more are closed at once and counted.
const LINKS_MAX: usize = 512;
/// A peer that does not finish its TLS handshake in this time is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection shares.
#[derive(Debug)]
pub struct Links {
    pub store: Store,
    pub registry: Arc<Registry>,
    pub active: ActiveWatch,
    pub records: mpsc::Sender<Batch>,
    pub counters: Arc<OwnCounters>,
    pub stop: watch::Receiver<bool>,
}

impl Links {
    /// Ends when the server stops.
    pub(super) async fn stopping(&self) {
        let mut stop = self.stop.clone();
        // An error means that the server is gone, which is the same.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// Listens on the Unix socket at `path`, mode 0600; a stale socket file is replaced. Only processes
/// of this user, or root, are served.
///
/// # Errors
/// Names the socket.
pub fn listen_unix(
    path: &Path,
    links: Arc<Links>,
) -> Result<tokio::task::JoinHandle<()>, ControlError> {
    let failed = |source| ControlError::Listen { address: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // The folder is 0700, so nobody gets in between bind and chmod.
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let owner = std::fs::metadata(path).map_err(failed)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&owner);
    Ok(tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(LINKS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = links.stopping() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept on the link socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = stream.peer_cred().map(|peer| peer.uid());
            if !matches!(peer, Ok(uid) if uid == owner || uid == 0) {
                links.counters.links_refused.inc();
                continue;
            }
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                links.counters.links_refused.inc();
                continue;
            };
            let links = Arc::clone(&links);
            tokio::spawn(async move {
                connection::serve(stream, None, links).await;
                drop(permit);
            });
        }
    }))
}

/// Listener for nodes on other machines.
#[derive(Debug)]
pub struct TlsListener {
    pub address: SocketAddr,
    pub task: tokio::task::JoinHandle<()>,
}

/// Listens for nodes on other machines. A node proves its name by a certificate of `identity`'s CA
/// whose subject alternative name (DNS) or common name is the node's.
///
/// # Errors
/// Names the address.
pub async fn listen_tls(
    address: &str,
    identity: &certs::LinkIdentity,
    links: Arc<Links>,
) -> Result<TlsListener, ControlError> {
    let failed = |source| ControlError::Listen { address: address.to_owned(), source };
    let acceptor = TlsAcceptor::from(certs::server_config(identity)?);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let task = tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(LINKS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = links.stopping() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept on the link listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                links.counters.links_refused.inc();
                continue;
            };
            let (links, acceptor) = (Arc::clone(&links), acceptor.clone());
            tokio::spawn(async move {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "nodelay");
                }
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => match certs::peer_name(stream.get_ref().1) {
                        Some(name) => connection::serve(stream, Some(name), links).await,
                        None => {
                            links.counters.links_refused.inc();
                        }
                    },
                    Ok(Err(error)) => {
                        links.counters.links_refused.inc();
                        tracing::warn!(%error, "TLS handshake of a node");
                    }
                    Err(_) => {
                        links.counters.links_refused.inc();
                    }
                }
                drop(permit);
            });
        }
    });
    Ok(TlsListener { address: bound, task })
}
