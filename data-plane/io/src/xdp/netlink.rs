//! What the kernel knows of the network, by rtnetlink: interfaces, addresses, routes, neighbours and
//! their changes; and where XDP programs are attached.

use crate::sys::socket::{join_netlink_group, tell_netlink_errors};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Room for one part of a dump; the kernel makes them 32 KiB at most.
const ANSWER_BYTES: usize = 64 << 10;
/// The kernel answers at once; who waits longer waits for nothing.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

const NLM_F_REQUEST: u16 = 0x001;
pub(super) const NLM_F_ACK: u16 = 0x004;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NTF_USE: u8 = 0x01;

const NLMSGERR_ATTR_MSG: u16 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTAX_HOPLIMIT: u16 = 10;
const NESTED: u16 = 1 << 15;

/// Neighbours whose address may be used: reachable, stale, delay, probe, no ARP, permanent.
const NUD_USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

/// Neighbours that were set by hand or need no asking: no ARP, permanent.
const NUD_FIXED: u16 = 0x40 | 0x80;

/// Groups that tell of links, neighbours, addresses, routes and rules.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Ethernet, with the address that it has.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) loopback: bool,
    pub(super) up: bool,
    /// Something is at the other end, so that what is sent can arrive.
    pub(super) carrier: bool,
    pub(super) mtu: u32,
    /// `vlan`, `veth`, `bond`...; empty for a card.
    pub(super) kind: String,
    /// The interface below a VLAN, and its id.
    pub(super) vlan: Option<(u32, u16)>,
    /// Packets sent.
    pub(super) tx_packets: u64,
    /// Mode and id of the XDP program that is attached.
    pub(super) xdp: Option<(AttachedAs, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachedAs {
    Native,
    Generic,
    Other,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
    pub(super) hop_limit: Option<u8>,
}

/// Something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Neighbour {
        interface: u32,
        address: IpAddr,
    },
    Network,
    /// An interface went away or down: what is sent there gets lost.
    LinkLost,
}

/// A socket for questions.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    answer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        Self::open_protocol(libc::NETLINK_ROUTE)
    }

    /// For questions of another protocol than rtnetlink.
    pub(super) fn open_protocol(protocol: i32) -> io::Result<Self> {
        let socket = socket(protocol)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        tell_netlink_errors(socket.as_fd())?;
        Ok(Self { socket, sequence: 0, answer: vec![0; ANSWER_BYTES] })
    }

    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let body = [0; 16];
        self.ask(libc::RTM_GETLINK, NLM_F_DUMP, &body, &mut |kind, body| {
            if kind == libc::RTM_NEWLINK {
                links.extend(link(body));
            }
        })?;
        Ok(links)
    }

    /// Every address and the interface that has it.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u32)>> {
        let mut addresses = Vec::new();
        self.ask(libc::RTM_GETADDR, NLM_F_DUMP, &[0; 8], &mut |kind, body| {
            let Some((head, rest)) = body.split_first_chunk::<8>() else { return };
            if kind != libc::RTM_NEWADDR {
                return;
            }
            // IPv4 point-to-point: LOCAL is ours, ADDRESS the peer's.
            let local = find(rest, IFA_LOCAL).or_else(|| find(rest, IFA_ADDRESS));
            if let Some(address) = local.and_then(ip) {
                addresses.push((address, u32_at(head, 4)));
            }
        })?;
        Ok(addresses)
    }

    /// The route of a packet; `None` if it would not leave as unicast.
    ///
    /// # Errors
    /// The kernel's, among them that the destination is unreachable.
    pub(super) fn route(&mut self, from: IpAddr, to: IpAddr) -> io::Result<Option<Route>> {
        let (family, bits) = family(to);
        let mut body = vec![family, bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        put_ip(&mut body, RTA_DST, to);
        put_ip(&mut body, RTA_SRC, from);
        let mut found = None;
        self.ask(libc::RTM_GETROUTE, 0, &body, &mut |kind, body| {
            if kind == libc::RTM_NEWROUTE {
                found = route(body);
            }
        })?;
        Ok(found)
    }

    /// The hardware address of a neighbour, if it is known and usable.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
    ) -> io::Result<Option<[u8; 6]>> {
        let (state, mac) = self.neighbour_state(interface, address)?;
        Ok(mac.filter(|_| state & NUD_USABLE != 0))
    }

    /// State and hardware address of a neighbour; no state if the kernel does not know it.
    fn neighbour_state(
        &mut self,
        interface: u32,
        address: IpAddr,
    ) -> io::Result<(u16, Option<[u8; 6]>)> {
        let body = neighbour_body(interface, address, 0);
        let mut found = (0, None);
        let asked = self.ask(libc::RTM_GETNEIGH, 0, &body, &mut |kind, body| {
            let Some((head, rest)) = body.split_first_chunk::<12>() else { return };
            if kind == libc::RTM_NEWNEIGH {
                let mac = find(rest, NDA_LLADDR).and_then(|mac| mac.try_into().ok());
                found = (u16::from_ne_bytes([head[8], head[9]]), mac);
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((0, None)),
            other => other.map(|()| found),
        }
    }

    /// Tells the kernel that a neighbour is in use: it resolves it, or asks whether it is still
    /// there, as if the packets that bypass it went through it. What an operator has set for good is
    /// left alone: told that it is in use, the kernel makes it an ordinary entry that ages.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn use_neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let (state, _) = self.neighbour_state(interface, address)?;
        if state & NUD_FIXED != 0 {
            return Ok(());
        }
        let body = neighbour_body(interface, address, NTF_USE);
        self.ask(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, &body, &mut |_, _| {})
    }

    /// Attaches a program, or with `None` detaches what is attached in this mode. One that is there
    /// is replaced without a packet in between.
    ///
    /// # Errors
    /// The kernel's, with its words where it has any.
    pub(super) fn set_xdp(
        &mut self,
        interface: u32,
        program: Option<BorrowedFd<'_>>,
        generic: bool,
    ) -> io::Result<()> {
        const SKB_MODE: u32 = 1 << 1;
        const DRV_MODE: u32 = 1 << 2;
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        let mut nested = Vec::new();
        let fd = program.map_or(-1, |fd| fd.as_raw_fd());
        put(&mut nested, IFLA_XDP_FD, &fd.to_ne_bytes());
        let mode = if generic { SKB_MODE } else { DRV_MODE };
        put(&mut nested, IFLA_XDP_FLAGS, &mode.to_ne_bytes());
        put(&mut body, IFLA_XDP | NESTED, &nested);
        self.ask(libc::RTM_SETLINK, NLM_F_ACK, &body, &mut |_, _| {})
    }

    /// Sends a question and hands over each answer's kind and body.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        answer: &mut dyn FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(16 + body.len());
        let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        self.socket.write_all(&message)?;
        let many = flags & NLM_F_DUMP == NLM_F_DUMP;
        loop {
            let length = self.socket.read(&mut self.answer)?;
            let mut rest = self.answer.get(..length).unwrap_or_default();
            while let Some((head, body, after)) = next_message(rest) {
                rest = after;
                // An answer to a question that was given up.
                if head.sequence != self.sequence {
                    continue;
                }
                match i32::from(head.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let errno = body.first_chunk::<4>().map_or(0, |e| i32::from_ne_bytes(*e));
                        return match errno {
                            0 => Ok(()),
                            errno => Err(refusal(-errno, body)),
                        };
                    }
                    _ => answer(head.kind, body),
                }
                if !many && flags & NLM_F_ACK == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// A socket that hears of changes.
#[derive(Debug)]
pub(super) struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// `every`: longest time that [`Changes::next`] blocks.
    pub(super) fn open(every: Duration) -> io::Result<Self> {
        let mut socket = socket(libc::NETLINK_ROUTE)?;
        // Nothing is told to a socket without an address; it gets one when it first sends, and this
        // message says nothing.
        let mut nothing = [0; 16];
        nothing[..4].copy_from_slice(&16_u32.to_ne_bytes());
        nothing[4..6].copy_from_slice(&1_u16.to_ne_bytes());
        socket.write_all(&nothing)?;
        for group in GROUPS {
            join_netlink_group(socket.as_fd(), group)?;
        }
        socket.set_read_timeout(Some(every))?;
        Ok(Self { socket, buffer: vec![0; ANSWER_BYTES] })
    }

    /// Waits for changes. An overrun queue says that anything may have changed.
    pub(super) fn next(&mut self, sink: &mut dyn FnMut(Event)) {
        let length = match self.socket.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                sink(Event::Network);
                return;
            }
            Err(_) => return,
        };
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        while let Some((head, body, after)) = next_message(rest) {
            rest = after;
            match head.kind {
                libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                    let Some((head, attributes)) = body.split_first_chunk::<12>() else { continue };
                    if let Some(address) = find(attributes, NDA_DST).and_then(ip) {
                        sink(Event::Neighbour { interface: u32_at(head, 4), address });
                    }
                }
                libc::RTM_DELLINK => sink(Event::LinkLost),
                libc::RTM_NEWLINK if link(body).is_some_and(|link| !link.up || !link.carrier) => {
                    sink(Event::LinkLost);
                }
                _ => sink(Event::Network),
            }
        }
    }
}

fn socket(protocol: i32) -> io::Result<Socket> {
    let protocol = Protocol::from(protocol);
    Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))
}

struct Head {
    kind: u16,
    sequence: u32,
}

/// The kernel's error with the words that it sends along, after its number and our header.
fn refusal(errno: i32, body: &[u8]) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    let words = body.get(20..).and_then(|rest| find(rest, NLMSGERR_ATTR_MSG)).map(text);
    match words {
        // What callers ask for by number keeps it.
        Some(words) if errno != libc::ENOENT => {
            io::Error::new(error.kind(), format!("{words} ({error})"))
        }
        _ => error,
    }
}

fn next_message(octets: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let (head, _) = octets.split_first_chunk::<16>()?;
    let length = usize::try_from(u32_at(head, 0)).ok()?;
    let body = octets.get(16..length)?;
    let kind = u16::from_ne_bytes([head[4], head[5]]);
    let after = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Head { kind, sequence: u32_at(head, 8) }, body, after))
}

/// The content of the first attribute of a kind.
pub(super) fn find(mut octets: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = octets.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & !(NESTED | 1 << 14);
        let content = octets.get(4..length)?;
        if kind == wanted {
            return Some(content);
        }
        octets = octets.get(length.next_multiple_of(4)..)?;
    }
}

pub(super) fn put(message: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(content);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn put_ip(message: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => put(message, kind, &v4.octets()),
        IpAddr::V6(v6) => put(message, kind, &v6.octets()),
    }
}

fn family(address: IpAddr) -> (u8, u8) {
    match address {
        IpAddr::V4(_) => (libc::AF_INET as u8, 32),
        IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
    }
}

fn neighbour_body(interface: u32, address: IpAddr, flags: u8) -> Vec<u8> {
    let mut body = vec![family(address).0, 0, 0, 0];
    body.extend_from_slice(&interface.to_ne_bytes());
    body.extend_from_slice(&[0, 0, flags, 0]);
    put_ip(&mut body, NDA_DST, address);
    body
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|v6| Ipv6Addr::from(v6).into())
}

pub(super) fn u32_at(octets: &[u8], at: usize) -> u32 {
    let word = octets.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|&c| c == 0).unwrap_or(octets.len());
    String::from_utf8_lossy(octets.get(..end).unwrap_or_default()).into_owned()
}

fn link(body: &[u8]) -> Option<Link> {
    let (head, rest) = body.split_first_chunk::<16>()?;
    let kind = u16::from_ne_bytes([head[2], head[3]]);
    let flags = u32_at(head, 8);
    let info = find(rest, IFLA_LINKINFO).unwrap_or_default();
    let name = find(info, IFLA_INFO_KIND).map(text).unwrap_or_default();
    let vlan = (name == "vlan")
        .then(|| {
            let id = find(find(info, IFLA_INFO_DATA)?, IFLA_VLAN_ID)?.first_chunk::<2>()?;
            Some((u32_at(find(rest, IFLA_LINK)?, 0), u16::from_ne_bytes(*id)))
        })
        .flatten();
    let xdp = find(rest, IFLA_XDP).and_then(|nested| {
        let mode = match *find(nested, IFLA_XDP_ATTACHED)?.first()? {
            0 => return None,
            1 => AttachedAs::Native,
            2 => AttachedAs::Generic,
            _ => AttachedAs::Other,
        };
        Some((mode, find(nested, IFLA_XDP_PROG_ID).map_or(0, |id| u32_at(id, 0))))
    });
    let ethernet = kind == libc::ARPHRD_ETHER;
    Some(Link {
        index: u32_at(head, 4),
        name: find(rest, IFLA_IFNAME).map(text).unwrap_or_default(),
        mac: find(rest, IFLA_ADDRESS).filter(|_| ethernet).and_then(|mac| mac.try_into().ok()),
        loopback: kind == libc::ARPHRD_LOOPBACK,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        mtu: find(rest, IFLA_MTU).map_or(0, |mtu| u32_at(mtu, 0)),
        kind: name,
        vlan,
        tx_packets: find(rest, IFLA_STATS64)
            .and_then(|stats| stats.get(8..16)?.try_into().ok())
            .map_or(0, u64::from_ne_bytes),
        xdp,
    })
}

fn route(body: &[u8]) -> Option<Route> {
    let (head, rest) = body.split_first_chunk::<12>()?;
    if head[7] != libc::RTN_UNICAST {
        return None;
    }
    // RTA_VIA: a gateway of the other family, after two octets that name it.
    let via = || ip(find(rest, RTA_VIA)?.get(2..)?);
    let metrics = find(rest, RTA_METRICS).unwrap_or_default();
    let metric = |kind| find(metrics, kind).map(|value| u32_at(value, 0)).filter(|&v| v != 0);
    Some(Route {
        interface: u32_at(find(rest, RTA_OIF)?, 0),
        gateway: find(rest, RTA_GATEWAY).and_then(ip).or_else(via),
        mtu: metric(RTAX_MTU),
        hop_limit: metric(RTAX_HOPLIMIT).and_then(|limit| u8::try_from(limit).ok()),
    })
}
