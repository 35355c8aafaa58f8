//! Bytes in and out of connections.

use super::connection::{Outgoing, Read, State, Write};
use super::{CloseReason, Due, PONG, StreamEvent, Streams};
use crate::driver::{Driver, Ready};
use ravelin_engine::port::{FlowId, Local, Meta, Token};
use ravelin_engine::time::Instant;
use ravelin_wire::sip::Frame;
use std::io;

impl Streams {
    /// Writes a message, or queues what finds no room. Returns the connection; a message that could
    /// not be taken ends its connection.
    pub(super) fn write(
        &mut self,
        now: Instant,
        driver: &mut dyn Driver,
        slot: u32,
        outgoing: Outgoing<'_>,
    ) -> io::Result<FlowId> {
        let bytes = outgoing.bytes.len();
        let over = self.held_bytes + bytes > self.limits.held_bytes_max;
        let limits = self.limits;
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let generation = self.slots.get(slot as usize).ok_or_else(gone)?.generation;
        let connection = self.connection(slot).ok_or_else(gone)?;
        let (outcome, waits) = if over && !connection.is_writable() {
            (Write::Full, false)
        } else {
            connection.write(now, &limits, outgoing)
        };
        let deadline = connection.deadline();
        self.settle(slot);
        match outcome {
            Write::Done => self.stats.count_sent(bytes),
            Write::Queued => {
                self.stats.count_sent(bytes);
                self.check_by(deadline);
                if waits {
                    self.rewatch(driver, slot);
                }
            }
            Write::Full => {
                // The peer does not read. Dropping single messages would only hide it.
                self.end(driver, slot, CloseReason::QueueFull);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Write::Broken(error) => {
                self.end(driver, slot, CloseReason::Error);
                return Err(error);
            }
        }
        Ok(FlowId { shard: self.shard, slot, generation })
    }

    /// Brings the sum of held bytes up to date. True if this connection holds more than before.
    pub(super) fn settle(&mut self, slot: u32) -> bool {
        let Some(connection) = self.connection(slot) else { return false };
        let (before, now) = (connection.accounted, connection.held_bytes());
        connection.accounted = now;
        self.held_bytes = self.held_bytes - before + now;
        now > before
    }

    /// A connection is ready for something. Returns how many messages it delivered.
    pub(super) fn progress(
        &mut self,
        now: Instant,
        driver: &mut dyn Driver,
        slot: u32,
        ready: Ready,
        sink: &mut dyn FnMut(StreamEvent<'_>),
    ) -> usize {
        let limits = self.limits;
        let Some(connection) = self.connection(slot) else { return 0 };
        let mut reason = None;
        if connection.state() == State::Connecting {
            match connection.finish_connect(now, &limits) {
                Ok(()) => self.stats.connected += 1,
                Err(error) => {
                    self.stats.connect_failures += 1;
                    self.end_with(driver, slot, CloseReason::ConnectFailed, &error);
                    return 0;
                }
            }
        }
        let Some(connection) = self.connection(slot) else { return 0 };
        if (ready.writable || ready.closed) && connection.flush(now, &limits).is_err() {
            reason = Some(CloseReason::Error);
        }
        let mut messages = 0;
        if ready.readable && connection.state() == State::Open && reason.is_none() {
            (messages, reason) = self.read(now, slot, sink);
        }
        let grew = self.settle(slot);
        if grew && self.held_bytes > self.limits.held_bytes_max {
            reason = Some(CloseReason::Memory);
        }
        let Some(connection) = self.connection(slot) else { return messages };
        let deadline = connection.deadline();
        match reason {
            Some(reason) => self.end(driver, slot, reason),
            None => {
                self.check_by(deadline);
                self.rewatch(driver, slot);
            }
        }
        messages
    }

    /// Reads once, delivers the messages that are complete.
    pub(super) fn read(
        &mut self,
        now: Instant,
        slot: u32,
        sink: &mut dyn FnMut(StreamEvent<'_>),
    ) -> (usize, Option<CloseReason>) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return (0, None) };
        let flow = FlowId { shard: self.shard, slot, generation: place.generation };
        let Some(connection) = place.connection.as_deref_mut() else { return (0, None) };
        let (listener, source) = (connection.listener, connection.remote);
        let meta = Meta { source, local: Local::Stream { listener, flow } };
        let mut messages = 0;
        let mut deliver = |bytes: &[u8]| {
            messages += 1;
            sink(StreamEvent::Message { meta, bytes });
        };
        let outcome = connection.read(now, &self.limits, &mut self.read_buffer);
        let Ok(Read { bytes, end }) = outcome else { return (0, Some(CloseReason::Error)) };
        self.stats.rx_bytes += bytes as u64;
        let mut reason = None;
        loop {
            match connection.framer.next() {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => {
                    self.stats.rx_messages += 1;
                    deliver(message);
                }
                Ok(Some(Frame::Ping)) => {
                    self.stats.pings += 1;
                    let pong = Outgoing { from: self.shard, token: Token::default(), bytes: PONG };
                    match connection.write(now, &self.limits, pong).0 {
                        Write::Done | Write::Queued => {}
                        Write::Full => reason = Some(CloseReason::QueueFull),
                        Write::Broken(_) => reason = Some(CloseReason::Error),
                    }
                }
                Ok(Some(Frame::Pong)) => {}
                Err(_) => {
                    self.stats.framing_errors += 1;
                    deliver(connection.framer.pending());
                    connection.drain(now, &self.limits, CloseReason::Framing);
                    break;
                }
            }
            if reason.is_some() {
                break;
            }
        }
        connection.note_progress(now, &self.limits, messages > 0);
        if end {
            connection.drain(now, &self.limits, CloseReason::Peer);
        }
        if connection.state() == State::Draining {
            // Answers may still go out on it; requests take another one.
            self.by_remote.remove(&(listener, source));
            self.due.push_back(Due::Ended(flow));
        }
        (messages, reason)
    }
}
