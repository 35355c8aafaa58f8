//! Next hops: where packets to a destination leave, found by netlink and followed as the network
//! changes. The kernel's own lookup (`bpf_fib_lookup`) would cost each packet what this costs each
//! change; see `bench/results` for the difference.

use super::follow::Follower;
use super::interfaces::{Interfaces, Mode};
use super::layout::Hop;
use super::netlink::{Changes, Event, Netlink};
use super::polling::{Deferred, Note, Notes, Polling};
use super::probe::{self, Prober};
use super::table::{HopKey, Table};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often neighbours are asked for: a next hop that vanished or moved is found within this time
/// after the kernel knows.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come together are handled together.
const GATHER: Duration = Duration::from_millis(20);
/// Hop limit of packets whose route says nothing, as the sockets send them.
const TTL: u8 = 64;

pub(super) enum Message {
    Resolve(HopKey),
    Changed(Event),
    /// Shards began or ended to poll.
    Polling,
    Stop,
}

/// The way to a neighbour.
pub(super) type Via = (u32, IpAddr);

/// Follows what the kernel tells, until `stopping`.
pub(super) fn listen(
    mut changes: Changes,
    sender: &Sender<Message>,
    missed: &AtomicBool,
    stopping: &AtomicBool,
) {
    while !stopping.load(Ordering::Relaxed) {
        changes.next(&mut |event| {
            if sender.try_send(Message::Changed(event)).is_err() {
                // A full channel: with the next tick everything is looked at.
                missed.store(true, Ordering::Relaxed);
            }
        });
    }
}

/// Resolves next hops for the table, and follows the interfaces, until it is told to stop. `missed`:
/// something changed that no message tells of.
pub(super) fn run(
    mut netlink: Netlink,
    table: &Arc<Mutex<Table>>,
    messages: &Receiver<Message>,
    missed: &AtomicBool,
    polling: &Polling,
    mut follower: Follower,
) {
    let (mut deferred, mut notes) = (Deferred::default(), Notes::new(follower.note));
    let interfaces = lock(table).interfaces().clone();
    deferred.undo_left(&interfaces);
    deferred.survey(polling, &interfaces);
    notes.begin(polling);
    let mut tick = Instant::now() + TICK;
    loop {
        let mut wanted = BTreeSet::new();
        let mut neighbours = BTreeSet::new();
        let (mut all, mut polls, mut urgent) = (false, false, false);
        let first = messages.recv_timeout(tick.saturating_duration_since(Instant::now()));
        match first {
            Ok(first) => {
                let until = Instant::now() + GATHER;
                let mut next = Some(first);
                while let Some(message) = next {
                    match message {
                        Message::Stop => {
                            deferred.undo();
                            return;
                        }
                        Message::Polling => polls = true,
                        Message::Resolve(key) => drop(wanted.insert(key)),
                        Message::Changed(Event::Network) => all = true,
                        Message::Changed(Event::LinkLost) => (all, urgent) = (true, true),
                        Message::Changed(Event::Neighbour { interface, address }) => {
                            neighbours.insert((interface, address));
                        }
                    }
                    // Who waits for an answer does not wait for more questions, and what is sent to an
                    // interface that is gone gets lost.
                    next = if wanted.is_empty() && !urgent {
                        messages.recv_deadline(until).ok()
                    } else {
                        messages.try_recv().ok()
                    };
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let ticking = Instant::now() >= tick;
        if ticking {
            tick = Instant::now() + TICK;
            all |= missed.swap(false, Ordering::Relaxed);
        }
        let mut interfaces = lock(table).interfaces().clone();
        let refreshed = all && interfaces.refresh(&mut netlink).is_ok();
        let mut turned = false;
        if refreshed || ticking {
            turned = follower.follow(&mut netlink, &mut interfaces, refreshed);
            all |= turned;
        }
        turned |= ticking
            && stalls(&mut netlink, &mut interfaces, &follower.loaded.prober, follower.note);
        if refreshed || turned {
            lock(table).set_interfaces(interfaces.clone());
        }
        if polls || ticking {
            deferred.follow(polling, &interfaces);
            notes.follow(polling);
        }
        wanted.extend(lock(table).hops().filter_map(|(key, hop, via)| {
            let moved = via.is_some_and(|via| neighbours.contains(&via));
            (all || moved || (ticking && hop.is_none())).then_some(key)
        }));
        for key in wanted {
            let (hop, via) = resolve(&mut netlink, &interfaces, key);
            lock(table).set_hop(key, hop, via);
        }
        if ticking {
            let used: BTreeSet<Via> = lock(table).hops().filter_map(|(_, _, via)| via).collect();
            for (interface, address) in used {
                // It fails where there is no address to resolve, as on a point-to-point link.
                let _ = netlink.use_neighbour(interface, address);
            }
        }
    }
}

/// Tries the interfaces whose other end can lose what is sent, though they were fine at the start.
/// Says whether one of them stalls that did not, or the other way round.
fn stalls(netlink: &mut Netlink, interfaces: &mut Interfaces, prober: &Prober, note: Note) -> bool {
    let mut turned = false;
    for (index, attached) in std::mem::take(&mut interfaces.attached) {
        let link = interfaces.link(index).filter(|link| link.up);
        let stalled = match link {
            Some(link) if attached.mode == Mode::Native => {
                prober.try_link(netlink, link, probe::WHILE_RUNNING).is_err()
            }
            _ => false,
        };
        if stalled != attached.stalled {
            turned = true;
            let (level, text) = match stalled {
                true => {
                    ("warning", "takes no frames now: what would leave there takes the sockets")
                }
                false => ("info", "takes frames again"),
            };
            note(level, &format!("the other end of {} {text}", attached.name));
        }
        interfaces.attached.insert(index, super::interfaces::Attached { stalled, ..attached });
    }
    turned
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next hop of packets from one address to another, and the neighbour that it is. No hop: the
/// packets go to the sockets, and the kernel does what it can.
fn resolve(
    netlink: &mut Netlink,
    interfaces: &Interfaces,
    key: HopKey,
) -> (Option<Hop>, Option<Via>) {
    let Ok(Some(route)) = netlink.route(key.from, key.to) else { return (None, None) };
    let via = (route.interface, route.gateway.unwrap_or(key.to));
    let Some(link) = interfaces.link(route.interface) else { return (None, None) };
    let Some((physical, vlan)) = interfaces.physical(route.interface) else { return (None, None) };
    if !physical.up || !link.up || !interfaces.attached.contains_key(&physical.index) {
        return (None, None);
    }
    let mut known = netlink.neighbour(via.0, via.1).ok().flatten();
    if known.is_none() {
        // The kernel asks for it; most often the answer is there before the first packet.
        let _ = netlink.use_neighbour(via.0, via.1);
        known = netlink.neighbour(via.0, via.1).ok().flatten();
    }
    let mtu = link.mtu.min(route.mtu.unwrap_or(u32::MAX));
    let hop = known.zip(link.mac).map(|(target_mac, source_mac)| Hop {
        interface: physical.index,
        vlan,
        target_mac,
        source_mac,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        ttl: route.hop_limit.unwrap_or(TTL),
    });
    (hop, Some(via))
}
