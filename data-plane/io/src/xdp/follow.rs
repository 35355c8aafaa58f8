//! Interfaces that go and come while the edge runs: a veth deleted and made again, a driver reloaded, a
//! link that goes down, an address that moves, a program that somebody takes off.
//!
//! What is gone takes nothing along: its streams are with the sockets from that moment on. When an
//! interface with a media address is there, is up, and has no program, it gets one as at the start:
//! in its driver, else in generic mode, else not, and flows, next hops and AF_XDP sockets follow.

use super::af_xdp_wanted;
use super::interfaces::{Attached, Interfaces, Mode, Reason};
use super::loader::Loaded;
use super::netlink::{Link, Netlink};
use super::places::Places;
use super::polling::Note;
use super::probe;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tries, a second apart, to attach in an interface's driver before generic mode will do: who makes an
/// interface often readies its other end (GRO of a veth) a moment after it is up.
const NATIVE_TRIES: u32 = 3;

/// Why an interface serves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is not there any more.
    Removed,
    /// It is there, without our program.
    Detached,
    /// It is down, or nothing is at its other end.
    Down,
    /// It has no media address any more.
    NoAddress,
}

impl Lost {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Removed, "removed"),
        (Self::Detached, "detached"),
        (Self::Down, "down"),
        (Self::NoAddress, "no_address"),
    ];
}

/// For the metrics.
#[derive(Debug, Default)]
pub(super) struct Comings {
    pub(super) lost: [AtomicU64; Lost::ALL.len()],
    /// Interfaces that got the program while the edge ran.
    pub(super) attached: AtomicU64,
    /// Media addresses whose interface has no program now.
    pub(super) without: AtomicU64,
    /// Interfaces with the program that are down now.
    pub(super) down: AtomicU64,
}

pub(super) struct Follower {
    pub(super) loaded: Arc<Loaded>,
    pub(super) places: Arc<Places>,
    pub(super) comings: Arc<Comings>,
    pub(super) note: Note,
    native_only: bool,
    addresses: Vec<IpAddr>,
    /// Addresses that are told to be without.
    without: BTreeSet<IpAddr>,
    /// Interfaces that are told to be down.
    down: BTreeSet<u32>,
    tries: BTreeMap<u32, u32>,
    /// What an interface was like when it was given up: not tried again before it changes.
    given_up: BTreeMap<u32, Link>,
}

impl Follower {
    pub(super) fn new(
        loaded: Arc<Loaded>,
        places: Arc<Places>,
        (addresses, native_only): (Vec<IpAddr>, bool),
        note: Note,
        interfaces: &Interfaces,
    ) -> Self {
        let mut follower = Self {
            loaded,
            places,
            comings: Arc::default(),
            note,
            native_only,
            addresses,
            without: BTreeSet::new(),
            down: BTreeSet::new(),
            tries: BTreeMap::new(),
            given_up: BTreeMap::new(),
        };
        // What could not be had at the start was told there, and is not tried again as it is.
        for address in &follower.addresses {
            match interfaces.behind(*address) {
                Ok(link) if interfaces.attached.contains_key(&link.index) => {}
                Ok(link) => {
                    follower.without.insert(*address);
                    follower.given_up.insert(link.index, alike(link));
                }
                Err(_) => drop(follower.without.insert(*address)),
            }
        }
        let without = follower.without.len() as u64;
        follower.comings.without.store(without, Ordering::Relaxed);
        follower
    }

    /// Compares what the kernel says with what is attached, and mends it. `refreshed`: the kernel was
    /// asked just now. Says whether something serves that did not, or the other way round.
    pub(super) fn follow(
        &mut self,
        netlink: &mut Netlink,
        interfaces: &mut Interfaces,
        refreshed: bool,
    ) -> bool {
        let lost = refreshed && self.lose(interfaces);
        let mut turned = lost;
        let mut links = BTreeMap::new();
        for address in &self.addresses {
            if let Ok(link) = interfaces.behind(*address)
                && !interfaces.attached.contains_key(&link.index)
            {
                links.insert(link.index, link.clone());
            }
        }
        let mut attached = false;
        for link in links.into_values().filter(|link| link.up && link.carrier) {
            attached |= self.attach(netlink, interfaces, &link);
        }
        if attached {
            // What is known of the links is of before; without an answer the next event tells.
            let _ = interfaces.refresh(netlink);
        }
        turned |= attached;
        if refreshed || attached {
            self.tell_addresses(interfaces, lost);
        }
        turned
    }

    /// Lets go of what is gone.
    fn lose(&mut self, interfaces: &mut Interfaces) -> bool {
        let mut turned = false;
        for (index, attached) in std::mem::take(&mut interfaces.attached) {
            let link = interfaces.link(index);
            let lost = match link {
                None => Some(Lost::Removed),
                Some(link) if !self.loaded.is_attached(link) => Some(Lost::Detached),
                Some(_) => None,
            };
            let name = &attached.name;
            if let Some(lost) = lost {
                turned = true;
                self.down.remove(&index);
                self.loaded.close_way(index);
                let what = match lost {
                    Lost::Removed => {
                        self.places.leave(index);
                        format!("{name} is gone")
                    }
                    _ => format!("{name} has our program no more: somebody took it off"),
                };
                self.lost(lost, &format!("{what}; its streams go on over the sockets"));
                continue;
            }
            let works = link.is_some_and(|link| link.up && link.carrier);
            if !works && self.down.insert(index) {
                self.lost(Lost::Down, &format!("{name} is down, or nothing is at its other end"));
            } else if works && self.down.remove(&index) {
                (self.note)("info", &format!("{name} is up again"));
            }
            interfaces.attached.insert(index, attached);
        }
        self.comings.down.store(self.down.len() as u64, Ordering::Relaxed);
        let there = |index: &u32| interfaces.link(*index).is_some();
        self.given_up.retain(|index, _| there(index));
        self.tries.retain(|index, _| there(index));
        turned
    }

    fn lost(&self, lost: Lost, text: &str) {
        if let Some(count) = self.comings.lost.get(lost as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        (self.note)("warning", text);
    }

    /// Tries one interface that has a media address and no program. Says whether it has one now.
    fn attach(&mut self, netlink: &mut Netlink, interfaces: &mut Interfaces, link: &Link) -> bool {
        let index = link.index;
        if self.given_up.get(&index).is_some_and(|before| *before == alike(link)) {
            return false;
        }
        let tries = self.tries.entry(index).or_default();
        *tries += 1;
        let last = *tries >= NATIVE_TRIES;
        // The last time as at the start. Until then nobody else waits long for a next hop.
        let (native_only, within) = match last {
            true => (self.native_only, probe::AT_START),
            false => (true, probe::WHILE_RUNNING),
        };
        let mut attachment = self.loaded.attach(netlink, link, native_only, within);
        if attachment.attached.is_some()
            && let Err(error) = self.loaded.open_way(index)
        {
            let (interface, error) = (link.name.clone(), error.to_string());
            attachment.reasons.push(Reason::NoGeneric { interface, error });
            attachment.attached = None;
        }
        let Some(attached) = attachment.attached else {
            if last {
                self.tries.remove(&index);
                self.given_up.insert(index, alike(link));
                self.tell(&attachment.reasons);
            }
            return false;
        };
        self.tries.remove(&index);
        self.given_up.remove(&index);
        self.tell(&attachment.reasons);
        self.serve(interfaces, link, attached);
        true
    }

    /// An interface has the program.
    fn serve(&mut self, interfaces: &mut Interfaces, link: &Link, attached: Attached) {
        let bound = self.places.join(&af_xdp_wanted(link.index, Some(link), &attached));
        let mut text = format!("{} has the program again: {}", link.name, attached.mode.label());
        if let Some(bound) = bound {
            if let Some(mode) = bound.mode {
                text = format!("{text} with AF_XDP ({}, {} queues)", mode.label(), bound.queues);
            }
            if let Some((_, error)) = bound.short {
                self.tell(&[Reason::NoAfXdp { interface: link.name.clone(), error }]);
            }
        }
        interfaces.attached.insert(link.index, attached);
        self.comings.attached.fetch_add(1, Ordering::Relaxed);
        (self.note)("info", &text);
    }

    fn tell(&self, reasons: &[Reason]) {
        for reason in reasons {
            (self.note)("warning", &reason.to_string());
        }
    }

    /// Media addresses without the program, each told once. `told`: that of an interface was just now.
    fn tell_addresses(&mut self, interfaces: &Interfaces, told: bool) {
        for address in &self.addresses {
            let reason = match interfaces.behind(*address) {
                Ok(link) if interfaces.attached.contains_key(&link.index) => {
                    self.without.remove(address);
                    continue;
                }
                // Told when it was lost, or when it was given up.
                Ok(_) => None,
                Err(reason) => Some(reason),
            };
            if self.without.insert(*address)
                && !told
                && let Some(reason) = reason
            {
                self.lost(Lost::NoAddress, &reason.to_string());
            }
        }
        self.comings.without.store(self.without.len() as u64, Ordering::Relaxed);
    }
}

/// An interface without what moves all the time.
fn alike(link: &Link) -> Link {
    Link { tx_packets: 0, ..link.clone() }
}

/// How many of the interfaces with the program have it in a mode.
pub(super) fn count_of(interfaces: &Interfaces, mode: Mode) -> usize {
    interfaces.attached.values().filter(|attached| attached.mode == mode).count()
}
