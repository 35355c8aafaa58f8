//! The UDP sockets of one shard, as both drivers open them.

use crate::driver::{Options, Rx, Stats};
use crate::sys::socket::{report_icmp, set_queues, stamp_arrivals, take_error};
use ravelin_engine::port::{Egress, ListenerId, Local, MediaPortId};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::{io, iter};

/// Entries taken from one error queue at a time; more are taken the next time.
const ERRORS_TAKEN_MAX: usize = 64;

/// The sockets by number: listeners first, then media ports. The number is also the socket's place
/// in a ring's file table.
pub(crate) struct Sockets {
    sockets: Vec<Option<Socket>>,
    listeners_max: usize,
    media_ports_max: usize,
    listener_buffer_bytes: usize,
    media_buffer_bytes: usize,
}

impl Sockets {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            sockets: Vec::new(),
            listeners_max: usize::from(options.listeners_max),
            media_ports_max: options.media_ports_max as usize,
            listener_buffer_bytes: options.listener_socket_buffer_bytes,
            media_buffer_bytes: options.media_socket_buffer_bytes,
        }
    }

    /// Opens a listener; returns its number and address.
    pub(crate) fn open_listener(
        &mut self,
        id: ListenerId,
        at: SocketAddr,
    ) -> io::Result<(u32, SocketAddr)> {
        let number = self.vacant(self.listener_number(id))?;
        let socket = udp(at)?;
        socket.set_reuse_port(true)?;
        set_queues(&socket, self.listener_buffer_bytes);
        report_icmp(&socket, at.is_ipv6())?;
        self.bind(number, socket, at)
    }

    /// Opens a media port; returns its number and address.
    pub(crate) fn open_media(
        &mut self,
        id: MediaPortId,
        at: SocketAddr,
    ) -> io::Result<(u32, SocketAddr)> {
        let number = self.vacant(self.media_number(id))?;
        let socket = udp(at)?;
        set_queues(&socket, self.media_buffer_bytes);
        stamp_arrivals(&socket)?;
        self.bind(number, socket, at)
    }

    fn listener_number(&self, id: ListenerId) -> Option<usize> {
        Some(usize::from(id.0)).filter(|id| *id < self.listeners_max)
    }

    fn media_number(&self, id: MediaPortId) -> Option<usize> {
        let id = usize::try_from(id.0).ok().filter(|id| *id < self.media_ports_max)?;
        Some(self.listeners_max + id)
    }

    fn vacant(&mut self, number: Option<usize>) -> io::Result<usize> {
        let number = number.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "more ports than this driver may open")
        })?;
        if self.sockets.len() <= number {
            self.sockets.extend(iter::repeat_with(|| None).take(number + 1 - self.sockets.len()));
        }
        match self.sockets.get(number) {
            Some(None) => Ok(number),
            _ => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn bind(
        &mut self,
        number: usize,
        socket: Socket,
        at: SocketAddr,
    ) -> io::Result<(u32, SocketAddr)> {
        socket.bind(&SockAddr::from(at))?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(at);
        self.sockets[number] = Some(socket);
        let number = u32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok((number, bound))
    }

    /// Sets the code point of what leaves an open port.
    pub(crate) fn mark(&self, port: Local, dscp: u8) -> io::Result<()> {
        let number = match port {
            Local::Signalling { listener } => self.listener_number(listener),
            Local::Media { port } => self.media_number(port),
            Local::Stream { .. } => None,
        };
        let socket = number.and_then(|number| self.sockets.get(number)?.as_ref());
        set_dscp(socket.ok_or(io::ErrorKind::NotConnected)?, dscp)
    }

    /// Forgets a socket that a driver could not take into use.
    pub(crate) fn close(&mut self, number: u32) {
        if let Some(socket) = self.sockets.get_mut(number as usize) {
            *socket = None;
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Socket> {
        self.sockets.get(number as usize)?.as_ref()
    }

    pub(crate) fn is_listener(&self, number: u32) -> bool {
        (number as usize) < self.listeners_max
    }

    pub(crate) fn local(&self, number: u32) -> Local {
        match (number as usize).checked_sub(self.listeners_max) {
            // Numbers are made from ids of these types.
            None => Local::Signalling { listener: ListenerId(number as u16) },
            Some(id) => Local::Media { port: MediaPortId(id as u32) },
        }
    }

    /// Where a UDP entry goes out: number of its socket, if open, and destination. None for an
    /// entry that is a stream's.
    pub(crate) fn route(&self, egress: &Egress) -> Option<(Option<u32>, SocketAddr)> {
        let (number, to) = match *egress {
            Egress::Udp { listener, to } => (self.listener_number(listener), to),
            Egress::Media { port, to } => (self.media_number(port), to),
            Egress::Flow { .. } | Egress::Connect { .. } => return None,
        };
        let open = number.filter(|number| matches!(self.sockets.get(*number), Some(Some(_))));
        Some((open.and_then(|number| u32::try_from(number).ok()), to))
    }

    /// Sends one datagram by a call of its own, without blocking.
    pub(crate) fn send_one(&self, number: u32, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let socket = self.get(number).ok_or(io::ErrorKind::NotConnected)?;
        socket.send_to_with_flags(bytes, &SockAddr::from(to), libc::MSG_DONTWAIT).map(drop)
    }

    /// As [`Self::send_one`] after a send that failed with `first`. A pending ICMP error makes the
    /// next send of its socket fail, whoever that is for; taking it clears the way.
    pub(crate) fn send_again(
        &self,
        number: u32,
        to: SocketAddr,
        bytes: &[u8],
        first: io::Error,
    ) -> io::Result<()> {
        if self.may_be_icmp(number, &first) { self.send_one(number, to, bytes) } else { Err(first) }
    }

    /// Whether the error of a send may be that of an earlier datagram, reported by ICMP.
    pub(crate) fn may_be_icmp(&self, number: u32, error: &io::Error) -> bool {
        let kind = matches!(
            error.raw_os_error(),
            Some(
                libc::ECONNREFUSED
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EACCES
                    | libc::EPROTO
                    | libc::ENOPROTOOPT
                    | libc::EOPNOTSUPP
                    | libc::ENONET
                    // The path MTU of another datagram; one that is too long itself fails again.
                    | libc::EMSGSIZE
            )
        );
        kind && self.is_listener(number)
    }

    /// Delivers the ICMP errors that wait on a listener.
    pub(crate) fn take_errors(&self, number: u32, stats: &mut Stats, sink: &mut dyn FnMut(Rx<'_>)) {
        let Local::Signalling { listener } = self.local(number) else { return };
        let Some(socket) = self.get(number) else { return };
        for error in iter::from_fn(|| take_error(socket)).take(ERRORS_TAKEN_MAX) {
            if error.icmp {
                stats.icmp_errors += 1;
                // A report on the path MTU concerns the size, not the peer.
                if error.errno != libc::EMSGSIZE {
                    sink(Rx::Unreachable { listener, to: error.to });
                }
            }
        }
    }
}

/// Highest differentiated services code point: it has six bits (RFC 2474 3).
const DSCP_MAX: u8 = 63;

/// Sets the code point of what a socket of either family sends. The two bits below it are left to
/// the kernel's congestion notification: none for UDP.
pub(crate) fn set_dscp(socket: &Socket, dscp: u8) -> io::Result<()> {
    if dscp > DSCP_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let octet = u32::from(dscp) << 2;
    if socket.domain()? == Domain::IPV6 {
        socket.set_tclass_v6(octet)
    } else {
        socket.set_tos_v4(octet)
    }
}

fn udp(at: SocketAddr) -> io::Result<Socket> {
    // Blocking: io_uring completes receives on a non-blocking socket with EAGAIN instead of
    // waiting. Calls of our own say MSG_DONTWAIT.
    let kind = Type::DGRAM.cloexec();
    let socket = Socket::new_raw(Domain::for_address(at), kind, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        // A v6 listener on the wildcard address must not take v4 traffic of another realm.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
