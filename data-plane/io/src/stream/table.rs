//! The table of connections: how they come into it and leave it.

use super::connection::Connection;
use super::socket::{connect, prepare};
use super::{ACCEPT_PAUSE, ACCEPTS_PER_TURN, CloseReason, Due, LISTENERS_MAX, Slot, Streams, key};
use crate::driver::{Driver, Interest, WatchKey};
use ravelin_engine::port::{FlowId, ListenerId, Transport};
use ravelin_engine::time::Instant;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

impl Streams {
    pub(super) fn accept(&mut self, now: Instant, driver: &mut dyn Driver, key: WatchKey) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get_mut(key.0 as usize) else { return };
            match listener.socket.accept() {
                Ok((socket, remote)) => {
                    let id = listener.id;
                    self.accepted(now, driver, id, socket, remote);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        // The connection stays in the kernel's queue: watching it would spin.
                        self.stats.accept_errors += 1;
                        let until = now + ACCEPT_PAUSE;
                        listener.paused = Some(until);
                        self.check_by(until);
                        return;
                    }
                    // Of one connection that failed before it was accepted.
                    _ => self.stats.accept_errors += 1,
                },
            }
        }
        self.watch_listener(driver, key);
    }

    pub(super) fn watch_listener(&mut self, driver: &mut dyn Driver, key: WatchKey) {
        let Some(listener) = self.listeners.get_mut(key.0 as usize) else { return };
        listener.paused = None;
        if driver.watch(key, listener.socket.as_fd(), Interest::Read).is_err() {
            self.stats.watch_errors += 1;
        }
    }

    pub(super) fn accepted(
        &mut self,
        now: Instant,
        driver: &mut dyn Driver,
        listener: ListenerId,
        socket: TcpStream,
        remote: SocketAddr,
    ) {
        if self.open >= self.limits.connections_max {
            self.stats.refused_total += 1;
            return;
        }
        let of_source = self.by_source.get(&remote.ip()).copied().unwrap_or(0);
        if of_source as usize >= self.limits.connections_per_source_max {
            self.stats.refused_source += 1;
            return;
        }
        if prepare(&socket, self.marks.get(&listener).copied()).is_err() {
            self.stats.accept_errors += 1;
            return;
        }
        *self.by_source.entry(remote.ip()).or_insert(0) += 1;
        self.stats.accepted += 1;
        let connection = Connection::accepted(now, &self.limits, listener, socket, remote);
        self.insert(driver, connection);
    }

    /// An open connection to `to`, or a new one.
    pub(super) fn connection_to(
        &mut self,
        now: Instant,
        driver: &mut dyn Driver,
        listener: ListenerId,
        to: SocketAddr,
        transport: Transport,
    ) -> io::Result<u32> {
        if transport != Transport::Tcp {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS on this listener"));
        }
        if let Some(slot) = self.by_remote.get(&(listener, to)) {
            return Ok(*slot);
        }
        if self.open >= self.limits.connections_max {
            self.stats.refused_total += 1;
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections"));
        }
        let from = self.listeners.iter().find(|candidate| candidate.id == listener);
        let local = from.map(|listener| listener.local).ok_or(io::ErrorKind::NotConnected)?;
        let mark = self.marks.get(&listener).copied();
        let socket =
            connect(local.ip(), to, mark).inspect_err(|_| self.stats.connect_failures += 1)?;
        let connection = Connection::connecting(now, &self.limits, listener, socket, to);
        let slot = self.insert(driver, connection);
        slot.ok_or_else(|| io::Error::other("the connection cannot be watched"))
    }

    /// Takes a connection into the table. None if it cannot be watched: it is closed again.
    pub(super) fn insert(
        &mut self,
        driver: &mut dyn Driver,
        connection: Connection,
    ) -> Option<u32> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.open += 1;
        self.check_by(connection.deadline());
        self.by_remote.insert((connection.listener, connection.remote), slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.generation = place.generation.wrapping_add(1);
            place.connection = Some(Box::new(connection));
        }
        self.rewatch(driver, slot).then_some(slot)
    }

    /// Watches a connection for what it waits for. False: it could not be, and was closed.
    pub(super) fn rewatch(&mut self, driver: &mut dyn Driver, slot: u32) -> bool {
        let Some(connection) = self.connection(slot) else { return false };
        let Some(interest) = connection.interest() else { return true };
        let watched = driver.watch(key(slot), connection.fd(), interest);
        if watched.is_err() {
            self.stats.watch_errors += 1;
            self.end(driver, slot, CloseReason::Error);
        }
        watched.is_ok()
    }

    pub(super) fn check_deadlines(&mut self, now: Instant, driver: &mut dyn Driver) {
        self.checked = now;
        self.check_at = None;
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            let Some(connection) = self.connection(slot) else { continue };
            let deadline = connection.deadline();
            if deadline > now {
                self.check_by(deadline);
                continue;
            }
            match connection.expired() {
                CloseReason::ConnectDeadline => {
                    self.stats.connect_failures += 1;
                    let error = io::ErrorKind::TimedOut.into();
                    self.end_with(driver, slot, CloseReason::ConnectDeadline, &error);
                }
                reason => self.end(driver, slot, reason),
            }
        }
        for key in 0..LISTENERS_MAX.min(self.listeners.len() as u32) {
            match self.listeners.get(key as usize).and_then(|listener| listener.paused) {
                Some(until) if until <= now => self.watch_listener(driver, WatchKey(key)),
                Some(until) => self.check_by(until),
                None => {}
            }
        }
    }

    pub(super) fn end(&mut self, driver: &mut dyn Driver, slot: u32, reason: CloseReason) {
        self.end_with(driver, slot, reason, &io::ErrorKind::ConnectionAborted.into());
    }

    /// Closes a connection and reports what it did not write with `error`.
    pub(super) fn end_with(
        &mut self,
        driver: &mut dyn Driver,
        slot: u32,
        reason: CloseReason,
        error: &io::Error,
    ) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let Some(connection) = place.connection.take() else { return };
        let flow = FlowId { shard: self.shard, slot, generation: place.generation };
        driver.unwatch(key(slot), connection.fd());
        connection.shut_down();
        self.ready.retain(|ready| ready.key != key(slot));
        self.free.push(slot);
        self.open -= 1;
        self.held_bytes -= connection.accounted;
        self.stats.count_closed(reason);
        let remote = (connection.listener, connection.remote);
        if self.by_remote.get(&remote) == Some(&slot) {
            self.by_remote.remove(&remote);
        }
        if connection.was_accepted
            && let Some(count) = self.by_source.get_mut(&connection.remote.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&connection.remote.ip());
            }
        }
        for (from, token) in connection.unsent() {
            let error = match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => error.kind().into(),
            };
            self.fail_send(from, token, error);
        }
        self.due.push_back(Due::Closed(flow));
    }
}
