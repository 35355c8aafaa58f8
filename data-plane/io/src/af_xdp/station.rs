//! The AF_XDP sockets of one shard: what arrives, what leaves, and when to look.

use super::Way;
use super::frame::{self, Reject, Template};
use super::ports::Ports;
use crate::driver::{
    Count, Driver, FAST_WATCH_FIRST, FAST_WATCHES_MAX, Interest, MEDIA_DATAGRAM_MAX_BYTES, Ready,
    Rx, WatchKey,
};
use crate::sys::napi::Poller;
use crate::sys::xsk::Socket;
use ravelin_engine::port::{Egress, Local, MediaPortId, Meta, TxQueue};
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;

/// Why an arrived frame was dropped, in the order of its counters.
const DROPS: [&str; 5] = ["malformed", "foreign", "checksum", "port_not_open", "too_long"];
/// Why a packet of a stream of this path left through the sockets.
const LEFT: [&str; 3] = ["no_room", "no_next_hop", "interface_down"];

/// Counts of the kernel of one socket, see [`add_counts`].
const KERNEL: usize = 4;

/// What one shard counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_drops: [u64; DROPS.len()],
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_left: [u64; LEFT.len()],
    pub(crate) tx_calls: u64,
    pub(crate) wakes: u64,
    pub(crate) polls: u64,
}

/// Packets that are looked at before the first of them is delivered: what they need of memory still is
/// in the nearest cache then.
const BATCH: usize = 16;

struct Place {
    socket: Socket,
    interface: u32,
    /// First place of this shard and interface in the program's map.
    first: u16,
    partial: bool,
    /// The driver watches for arrivals.
    armed: bool,
    /// It said that it will never have any.
    dead: bool,
    /// The last send failed: not tried again before [`Station::revive`].
    down: bool,
}

/// A packet of a batch.
struct Packet {
    /// Of its socket.
    packet: usize,
    port: MediaPortId,
    source: SocketAddr,
    payload: Range<usize>,
}

/// Where packets of one of our ports go past the sockets.
struct Route {
    /// The port whose stream it is.
    of: MediaPortId,
    from: SocketAddr,
    to: SocketAddr,
    tos: u8,
    /// Headers, and the socket; none without a next hop on one of our interfaces.
    out: Option<(Template, usize)>,
}

impl Route {
    /// Headers and socket for a way; all packets of a stream take one queue.
    fn leave(&self, out: u32, way: &Way, places: &[Place]) -> Option<(Template, usize)> {
        let on = |place: &&Place| place.interface == way.interface;
        let sockets = places.iter().filter(on).count();
        // The pair's two ports are neighbours.
        let wanted = (out as usize / 2).checked_rem(sockets)?;
        let mut found = places.iter().enumerate().filter(|(_, place)| on(place));
        let (socket, _) = found.nth(wanted)?;
        Some((Template::new(self.from, self.to, self.tos, way)?, socket))
    }
}

/// Sets what stands at a port in a table that grows.
fn put<T>(table: &mut Vec<Option<T>>, port: MediaPortId, value: Option<T>) {
    let index = port.0 as usize;
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    if let Some(place) = table.get_mut(index) {
        *place = value;
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Station {
    places: Vec<Place>,
    /// Of a station that others join: which sockets these are instead of.
    replaces: Option<u16>,
    ports: Ports,
    /// By port that packets leave from.
    routes: Vec<Option<Route>>,
    /// Where the stream that arrives at a port leaves.
    outs: Vec<Option<MediaPortId>>,
    /// Ports with a route that has no way.
    waiting: Vec<u32>,
    new_routes: bool,
    /// Which socket is read first: each in turn.
    turn: usize,
    /// What the sockets send in a batch of which some leaves here.
    rest: TxQueue,
    /// Room for packets of one batch, and their ports.
    batch: Vec<Packet>,
    coming: Vec<MediaPortId>,
    pub(crate) counters: Counters,
    /// What the kernel counted of sockets that are closed.
    closed: [u64; KERNEL],
}

impl Station {
    /// Sockets that are to take the place of those which begin at `first` in the program's map, or
    /// that there are no more of.
    pub(crate) fn replacing(first: Option<u16>) -> Self {
        Self { replaces: first, ..Self::default() }
    }

    pub(crate) fn add(&mut self, interface: u32, first: u16, partial: bool, socket: Socket) {
        let (armed, dead, down) = (false, false, false);
        self.places.push(Place { socket, interface, first, partial, armed, dead, down });
        debug_assert!(self.places.len() <= FAST_WATCHES_MAX as usize, "memory ends before");
    }

    /// Takes over the sockets of an interface that came later; those that had their place before are
    /// closed, and so are those of one that is gone. Ways out are to be looked for anew
    /// ([`Self::find_ways`]).
    pub(crate) fn join(&mut self, other: Self, driver: &mut dyn Driver) {
        let ends = |place: &Place| Some(place.first) == other.replaces;
        if let Some(first) = self.places.iter().position(ends) {
            // From there on each has another key than before.
            for (key, place) in (FAST_WATCH_FIRST..).zip(&mut self.places).skip(first) {
                if std::mem::take(&mut place.armed) {
                    driver.unwatch(WatchKey(key), place.socket.as_fd());
                }
            }
            for place in self.places.iter().filter(|place| ends(place)) {
                add_counts(&mut self.closed, &place.socket);
            }
            self.places.retain(|place| !ends(place));
        }
        self.places.extend(other.places);
        debug_assert!(self.places.len() <= FAST_WATCHES_MAX as usize, "memory ends before");
    }

    /// It never had a socket, and so has nothing to tell.
    pub(crate) fn is_unused(&self) -> bool {
        self.places.is_empty() && self.counters == Counters::default() && self.closed == [0; KERNEL]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where this shard's sockets of an interface begin in the program's map.
    pub(crate) fn first(&self, interface: u32) -> Option<u16> {
        self.places.iter().find(|place| place.interface == interface).map(|place| place.first)
    }

    pub(crate) fn open(&mut self, id: MediaPortId, at: SocketAddr) {
        self.ports.open(id, at);
    }

    /// Packets from port `out` to `to` belong to the stream that arrives at `of`.
    pub(crate) fn set_route(
        &mut self,
        of: MediaPortId,
        out: MediaPortId,
        from: SocketAddr,
        to: SocketAddr,
        tos: u8,
    ) {
        self.clear_route(of);
        put(&mut self.routes, out, Some(Route { of, from, to, tos, out: None }));
        put(&mut self.outs, of, Some(out));
        if !self.waiting.contains(&out.0) {
            self.waiting.push(out.0);
        }
        self.new_routes = true;
    }

    pub(crate) fn clear_route(&mut self, of: MediaPortId) {
        let Some(out) = self.outs.get_mut(of.0 as usize).and_then(Option::take) else { return };
        if let Some(route) = self.routes.get_mut(out.0 as usize)
            && route.as_ref().is_some_and(|route| route.of == of)
        {
            *route = None;
        }
    }

    pub(crate) fn has_new_routes(&self) -> bool {
        self.new_routes
    }

    /// Looks up the ways of routes that have none; of `all` if some may be another.
    pub(crate) fn find_ways(
        &mut self,
        all: bool,
        way: &dyn Fn(SocketAddr, SocketAddr) -> Option<Way>,
    ) {
        self.new_routes = false;
        let Self { routes, places, waiting, .. } = self;
        if all {
            waiting.clear();
            waiting.extend(
                (0..).zip(routes.iter()).filter_map(|(out, route)| route.as_ref().map(|_| out)),
            );
        }
        waiting.retain(|out| {
            let route = routes.get_mut(*out as usize).and_then(Option::as_mut);
            let Some(route) = route else { return false };
            if all || route.out.is_none() {
                route.out =
                    way(route.from, route.to).and_then(|way| route.leave(*out, &way, places));
            }
            route.out.is_none()
        });
    }

    /// Interfaces that refused are tried again. About once a second.
    pub(crate) fn revive(&mut self) {
        for place in &mut self.places {
            place.down = false;
        }
    }

    /// Has the driver watch for arrivals. True if there are some already.
    pub(crate) fn arm(&mut self, driver: &mut dyn Driver) -> bool {
        if self.has_arrived() {
            return true;
        }
        for (key, place) in (FAST_WATCH_FIRST..).zip(&mut self.places) {
            if place.armed || place.dead {
                continue;
            }
            let watched = driver.watch(WatchKey(key), place.socket.as_fd(), Interest::Read);
            // A driver that cannot says so again at the next wait, which is its end.
            place.armed = watched.is_ok();
        }
        false
    }

    /// A watch has ended.
    pub(crate) fn ready(&mut self, ready: &Ready) {
        let index = ready.key.0.checked_sub(FAST_WATCH_FIRST);
        let place = index.and_then(|index| self.places.get_mut(index as usize));
        if let Some(place) = place {
            place.armed = false;
            place.dead |= ready.closed;
            self.counters.wakes += 1;
        }
    }

    /// A poller that each socket's arrivals wake.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn watched_by(&self, mut poller: Poller) -> io::Result<Poller> {
        for (key, place) in (0..).zip(&self.places) {
            poller.watch(key, place.socket.as_fd())?;
        }
        Ok(poller)
    }

    /// A watch of it has ended.
    pub(crate) fn watch_again(&self, key: u32, poller: &mut Poller) {
        if let Some(place) = self.places.get(key as usize) {
            // Without it a wait lasts until the next look.
            let _ = poller.watch(key, place.socket.as_fd());
        }
    }

    pub(crate) fn has_arrived(&self) -> bool {
        self.places.iter().any(|place| place.socket.has_arrived())
    }

    /// Frames that have arrived and were not received.
    pub(crate) fn arrived(&self) -> u32 {
        self.places.iter().map(|place| place.socket.arrived()).sum()
    }

    /// Whether frames wait for an interface that had no room.
    pub(crate) fn has_unsent(&self) -> bool {
        self.places.iter().any(|place| !place.down && place.socket.unsent() > 0)
    }

    /// Delivers what has arrived, at most `most` frames. Returns how many datagrams.
    pub(crate) fn receive(&mut self, most: usize, sink: &mut dyn FnMut(Rx<'_>)) -> usize {
        let Self { places, ports, counters, turn, batch, coming, .. } = self;
        let (mut frames, before) = (0, counters.rx_packets);
        let all = places.len();
        *turn = turn.wrapping_add(1);
        for step in 0..all {
            let Some(place) = places.get_mut((*turn % all + step) % all) else { continue };
            let mut taken = 0;
            loop {
                let packets = place.socket.receive(BATCH.min(most - frames));
                if packets.is_empty() {
                    break;
                }
                taken += packets.len();
                frames += packets.len();
                batch.clear();
                coming.clear();
                for packet in packets {
                    match read(place.socket.packet(packet), place.partial, ports) {
                        Ok((port, source, payload)) => {
                            coming.push(port);
                            batch.push(Packet { packet, port, source, payload });
                        }
                        Err(Unread { drop, of }) => {
                            if let Some(count) = counters.rx_drops.get_mut(drop) {
                                *count += 1;
                            }
                            if let Some(meta) = of {
                                sink(Rx::TooLong { meta });
                            }
                        }
                    }
                }
                if !coming.is_empty() {
                    sink(Rx::Coming { ports: coming });
                }
                for Packet { packet, port, source, payload } in batch.drain(..) {
                    let bytes = place.socket.packet(packet).get(payload).unwrap_or_default();
                    counters.rx_packets += 1;
                    counters.rx_bytes += bytes.len() as u64;
                    let meta = Meta { source, local: Local::Media { port } };
                    sink(Rx::Datagram { meta, bytes, waited: None });
                }
            }
            if taken > 0 {
                place.socket.exchange();
            }
        }
        usize::try_from(counters.rx_packets - before).unwrap_or(frames)
    }

    /// Sends what leaves here. Returns what is left to the sockets; `None`: all of it.
    pub(crate) fn send(&mut self, queue: &TxQueue) -> Option<&TxQueue> {
        let Self { places, routes, counters, rest, .. } = self;
        let mut taken = false;
        rest.clear();
        read_ahead(routes, queue);
        for (number, tx) in queue.iter().enumerate() {
            let route = match tx.egress {
                Egress::Media { port, to } => {
                    let route = routes.get(port.0 as usize).and_then(Option::as_ref);
                    route.filter(|route| route.to == to)
                }
                Egress::Udp { .. } => None,
                Egress::Flow { .. } | Egress::Connect { .. } => continue,
            };
            if route.is_some_and(|route| push(places, route, tx.bytes, counters)) {
                if !taken {
                    taken = true;
                    // What came before goes with the rest.
                    for tx in queue.iter().take(number) {
                        rest.push(tx.egress, tx.token, tx.bytes);
                    }
                }
            } else if taken {
                rest.push(tx.egress, tx.token, tx.bytes);
            }
        }
        for place in places.iter_mut() {
            flush(place, counters);
        }
        taken.then_some(&*rest)
    }

    /// Hands out every counter.
    pub(crate) fn each(&self, sink: &mut dyn FnMut(Count)) {
        let mut kernel = self.closed;
        for place in &self.places {
            add_counts(&mut kernel, &place.socket);
        }
        let counters = &self.counters;
        for (name, help, value) in [
            ("af_xdp_rx_packets_total", "Packets received by AF_XDP.", counters.rx_packets),
            ("af_xdp_rx_bytes_total", "Octets of UDP payload received.", counters.rx_bytes),
            ("af_xdp_tx_packets_total", "Packets sent by AF_XDP.", counters.tx_packets),
            ("af_xdp_tx_bytes_total", "Octets of UDP payload sent.", counters.tx_bytes),
            ("af_xdp_tx_calls_total", "System calls that sent by AF_XDP.", counters.tx_calls),
            ("af_xdp_wakes_total", "Wake-ups by arrivals on AF_XDP.", counters.wakes),
            ("af_xdp_polls_total", "Looks of a busy shard at its queues.", counters.polls),
        ] {
            sink(Count { name, help, label: None, value });
        }
        let kernel = ["kernel", "ring_full", "no_frame"].into_iter().zip(kernel);
        for (reason, value) in DROPS.into_iter().zip(counters.rx_drops).chain(kernel) {
            let help = "Frames of AF_XDP that were dropped, by reason.";
            let label = Some(("reason", reason));
            sink(Count { name: "af_xdp_rx_drops_total", help, label, value });
        }
        for (reason, value) in LEFT.into_iter().zip(counters.tx_left) {
            let help = "Packets of streams of AF_XDP that left through the sockets, by reason.";
            let label = Some(("reason", reason));
            sink(Count { name: "af_xdp_tx_by_sockets_total", help, label, value });
        }
    }
}

fn add_counts(sums: &mut [u64; KERNEL], socket: &Socket) {
    let counts = socket.counts();
    let found = [counts.rx_dropped, counts.rx_ring_full, counts.rx_no_frame, counts.tx_invalid];
    sums.iter_mut().zip(found).for_each(|(sum, one)| *sum += one);
}

/// Reads the routes of all packets of a turn: each stands in memory of its own, and is waited for
/// together with the others.
fn read_ahead(routes: &[Option<Route>], queue: &TxQueue) {
    let mut read = 0;
    for tx in queue.iter() {
        if let Egress::Media { port, .. } = tx.egress
            && let Some(Some(Route { to, out: Some((template, place)), .. })) =
                routes.get(port.0 as usize)
        {
            read ^= u64::from(to.port()) ^ template.read_ahead() ^ *place as u64;
        }
    }
    black_box(read);
}

/// A frame that is no datagram for us.
struct Unread {
    /// Its counter.
    drop: usize,
    /// Of one that is too long, whose it is.
    of: Option<Meta>,
}

/// Port, sender and place of the datagram of a frame, if it is for one of our ports.
fn read(
    bytes: &[u8],
    partial: bool,
    ports: &Ports,
) -> Result<(MediaPortId, SocketAddr, Range<usize>), Unread> {
    // `DROPS` begins with these, in their order.
    let found = frame::parse(bytes, partial)
        .map_err(|reject: Reject| Unread { drop: reject as usize, of: None })?;
    let port = ports.find(found.target).ok_or(Unread { drop: 3, of: None })?;
    if found.payload.len() > MEDIA_DATAGRAM_MAX_BYTES {
        let of = Some(Meta { source: found.source, local: Local::Media { port } });
        return Err(Unread { drop: 4, of });
    }
    Ok((port, found.source, found.start..found.start + found.payload.len()))
}

/// Puts a packet into the ring of its route's socket; if not, it is the sockets' to send.
fn push(places: &mut [Place], route: &Route, bytes: &[u8], counters: &mut Counters) -> bool {
    const NO_ROOM: usize = 0;
    const NO_NEXT_HOP: usize = 1;
    const DOWN: usize = 2;
    let out = route.out.as_ref().and_then(|(template, index)| {
        template.frame_bytes(bytes.len())?;
        Some((template, places.get_mut(*index)?))
    });
    let Some((template, place)) = out else {
        counters.tx_left[NO_NEXT_HOP] += 1;
        return false;
    };
    if place.down || place.dead {
        counters.tx_left[DOWN] += 1;
        return false;
    }
    if !place.socket.has_room() {
        // What was sent before has left by now, most often.
        flush(place, counters);
        place.socket.exchange();
    }
    if !place.socket.push(|frame| template.write(frame, bytes)) {
        counters.tx_left[NO_ROOM] += 1;
        return false;
    }
    counters.tx_packets += 1;
    counters.tx_bytes += bytes.len() as u64;
    true
}

fn flush(place: &mut Place, counters: &mut Counters) {
    match place.socket.flush() {
        Ok(calls) => counters.tx_calls += u64::from(calls),
        // Down or gone: the sockets know what to do, and say so.
        Err(_) => place.down = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::af_xdp::tests::media;
    use crate::xdp::tests::differential::stream;

    /// The program leaves them to the sockets; one that let them through would change nothing.
    #[test]
    fn a_frame_with_too_long_a_datagram_is_told_with_its_port_and_no_octet_of_it() {
        let stream = stream(
            "p0",
            None,
            ["10.96.6.1:20000", "10.96.6.2:4000", "10.96.6.1:20002", "10.96.6.2:5000"],
            None,
        );
        let mut ports = Ports::default();
        ports.open(MediaPortId(7), stream.local);
        for more in 0..3 {
            let length = MEDIA_DATAGRAM_MAX_BYTES + more;
            let frame = media(&stream, 1, length, [2; 6]);
            let found = read(&frame, false, &ports);
            let meta = Meta { source: stream.source, local: Local::Media { port: MediaPortId(7) } };
            match found {
                Ok((port, source, payload)) if more == 0 => {
                    assert_eq!(
                        (port, source, payload.len()),
                        (MediaPortId(7), meta.source, length)
                    );
                }
                Err(Unread { drop, of }) if more > 0 => {
                    assert_eq!((DROPS[drop], of), ("too_long", Some(meta)));
                }
                _ => panic!("{length} octets"),
            }
        }
        let other = media(&stream, 1, MEDIA_DATAGRAM_MAX_BYTES + 1, [2; 6]);
        let nobodys = read(&other, false, &Ports::default()).err().unwrap();
        assert_eq!((DROPS[nobodys.drop], nobodys.of), ("port_not_open", None));
    }
}
