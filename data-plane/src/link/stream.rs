//! The byte stream to the control plane, and the frames on it: a Unix socket on one machine, mutual
//! TLS between machines. A stream has a reading half for the reader thread and a writing half.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ravelin_contract::link::FRAME_MAX_BYTES;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::{Serialize, de::DeserializeOwned};

/// How long connecting and the TLS handshake may take.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long one write may block before the stream is given up.
pub const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Where the control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Unix(PathBuf),
    Tls { host: String, port: u16 },
}

impl Target {
    /// Reads `unix:PATH` or `tls://HOST:PORT`.
    ///
    /// # Errors
    /// A line that says what is wanted.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wanted = || format!("--control {url:?}: give unix:PATH or tls://HOST:PORT");
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wanted()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) =
            url.strip_prefix("tls://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(wanted)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| wanted())?;
        if host.is_empty() { Err(wanted()) } else { Ok(Self::Tls { host: host.into(), port }) }
    }

    /// Connects. `certs` holds `link.pem`, `link.key` and `link-ca.pem` for TLS.
    ///
    /// # Errors
    /// Of the socket, the certificates, or the handshake.
    pub fn connect(&self, certs: &Path) -> io::Result<Halves> {
        match self {
            Self::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_write_timeout(Some(WRITE_WITHIN))?;
                let (reader, closer) = (socket.try_clone()?, socket.try_clone()?);
                Ok(Halves {
                    reader: Box::new(reader),
                    writer: Box::new(socket),
                    closer: Closer::Unix(closer),
                })
            }
            Self::Tls { host, port } => connect_tls(host, *port, certs),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { host, port } => write!(f, "tls://{host}:{port}"),
        }
    }
}

/// A connected stream.
pub struct Halves {
    pub reader: Box<dyn Read + Send>,
    pub writer: Box<dyn Write + Send>,
    pub closer: Closer,
}

/// Ends both halves from another thread.
#[derive(Debug)]
pub enum Closer {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Closer {
    pub fn close(&self) {
        // An error means that the peer was faster.
        let _ = match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Both),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

fn connect_tls(host: &str, port: u16, certs: &Path) -> io::Result<Halves> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection =
        ClientConnection::new(Arc::new(tls_config(certs)?), name).map_err(io::Error::other)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(mut socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(Some(WRITE_WITHIN))?;
                socket.set_read_timeout(Some(CONNECT_WITHIN))?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut socket)?;
                }
                socket.set_read_timeout(None)?;
                return split_tls(connection, socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn split_tls(connection: ClientConnection, socket: TcpStream) -> io::Result<Halves> {
    let connection = Arc::new(Mutex::new(connection));
    Ok(Halves {
        reader: Box::new(TlsReader {
            connection: Arc::clone(&connection),
            socket: socket.try_clone()?,
        }),
        closer: Closer::Tcp(socket.try_clone()?),
        writer: Box::new(TlsWriter { connection, socket }),
    })
}

fn tls_config(certs: &Path) -> io::Result<ClientConfig> {
    let read = |name: &str| {
        let path = certs.join(name);
        fs::read(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(&read("link-ca.pem")?) {
        roots.add(anchor.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let chain = CertificateDer::pem_slice_iter(&read("link.pem")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(&read("link.key")?).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(io::Error::other)
}

/// Waits on the socket without holding the connection, so that the writer is never kept waiting.
struct TlsReader {
    connection: Arc<Mutex<ClientConnection>>,
    socket: TcpStream,
}

impl Read for TlsReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut raw = [0; 16 * 1024];
        loop {
            {
                let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
                match connection.reader().read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return done,
                }
            }
            let count = self.socket.read(&mut raw)?;
            let mut rest = raw.get(..count).unwrap_or_default();
            let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                connection.read_tls(&mut rest)?;
                connection.process_new_packets().map_err(io::Error::other)?;
                if rest.is_empty() {
                    break;
                }
            }
            while connection.wants_write() {
                connection.write_tls(&mut self.socket)?;
            }
        }
    }
}

struct TlsWriter {
    connection: Arc<Mutex<ClientConnection>>,
    socket: TcpStream,
}

impl Write for TlsWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let written = connection.writer().write(bytes)?;
        while connection.wants_write() {
            connection.write_tls(&mut self.socket)?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Writes one frame.
///
/// # Errors
/// Of the stream, or a frame that is too large.
pub fn write_frame(writer: &mut dyn Write, frame: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    if length > FRAME_MAX_BYTES {
        let text = format!("a frame of {length} bytes is larger than {FRAME_MAX_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if let Some(head) = bytes.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    writer.write_all(&bytes)?;
    writer.flush()
}

/// Reads one frame; `UnexpectedEof` when the stream has ended.
///
/// # Errors
/// Of the stream, or a frame that is too large or not understood.
pub fn read_frame<T: DeserializeOwned>(reader: &mut dyn Read) -> io::Result<T> {
    let mut head = [0; 4];
    reader.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head);
    if length > FRAME_MAX_BYTES {
        let text = format!("a frame of {length} bytes is larger than {FRAME_MAX_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // The memory grows with what arrives, not with what a peer announces.
    let mut bytes = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn urls_name_a_socket_or_a_host() {
        assert_eq!(Target::parse("unix:/run/x"), Ok(Target::Unix("/run/x".into())));
        assert_eq!(Target::parse("unix:///run/x"), Ok(Target::Unix("/run/x".into())));
        let host = |host: &str, port| Ok(Target::Tls { host: host.into(), port });
        assert_eq!(Target::parse("tls://c.example:7000"), host("c.example", 7000));
        assert_eq!(Target::parse("tls://[::1]:7000"), host("::1", 7000));
        for bad in ["", "unix:", "tls://", "tls://x", "tls://x:y", "http://x:1", "/run/x"] {
            let error = Target::parse(bad).unwrap_err();
            assert!(error.contains("unix:PATH or tls://HOST:PORT"), "{error}");
        }
    }
}
