//! TCP sockets as streams want them.

use crate::sockets::set_dscp;
use crate::sys::socket::bind_address_no_port;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

pub(super) fn tcp(at: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new_raw(Domain::for_address(at), kind, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What every connection gets: small messages leave at once, and the kernel notices when the peer
/// is gone.
pub(super) fn prepare(socket: &TcpStream, dscp: Option<u8>) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    dscp.map_or(Ok(()), |dscp| set_dscp(&socket, dscp))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15))
            .with_retries(4),
    )
}

/// Begins to connect from a local address, on a port that the kernel chooses.
pub(super) fn connect(from: IpAddr, to: SocketAddr, dscp: Option<u8>) -> io::Result<TcpStream> {
    let socket = tcp(to)?;
    // The SYN has it too.
    dscp.map_or(Ok(()), |dscp| set_dscp(&socket, dscp))?;
    if !from.is_unspecified() {
        // The port is chosen when connecting: it must differ per peer only, not per connection.
        bind_address_no_port(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => {
            let socket = TcpStream::from(socket);
            prepare(&socket, dscp)?;
            Ok(socket)
        }
    }
}
