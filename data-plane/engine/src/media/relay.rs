//! The way of one datagram through a stream. It reads from top to bottom; each step is one line here
//! and has its own file.

use std::net::SocketAddr;

use ravelin_wire::{
    demux::{self, Kind},
    rtcp, rtp,
};

use super::{
    MediaTable,
    closed::Sprayers,
    dtls::Handshakes,
    endpoint::{Component, Endpoint, NO_PAIR, Packet},
    gate::{Admission, Heard, Learnt},
};
use crate::{
    counters::Counters,
    drops::DropReason,
    port::{Egress, MediaPortId, Token, TxQueue},
    time::Instant,
};

/// A datagram and where it came in.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    now: Instant,
    port: MediaPortId,
    component: Component,
    source: SocketAddr,
    bytes: &'a [u8],
}

impl MediaTable {
    /// Relays one datagram that arrived on a media port.
    ///
    /// # Errors
    /// Why it was not forwarded; counted.
    pub fn relay(
        &mut self,
        now: Instant,
        port: MediaPortId,
        source: SocketAddr,
        bytes: &[u8],
        tx: &mut TxQueue,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let arrival = Arrival { now, port, component: Component::of(port), source, bytes };
        match self.take(arrival, tx, counters) {
            Ok(Some(Packet::Rtp)) => {
                counters.rtp_packets += 1;
                counters.rtp_bytes += bytes.len() as u64;
            }
            Ok(Some(Packet::Rtcp)) => counters.rtcp_packets += 1,
            Ok(None) => {}
            Err(reason) => {
                counters.drop(reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// What was forwarded; `None` if the datagram was for us.
    fn take(
        &mut self,
        arrival: Arrival<'_>,
        tx: &mut TxQueue,
        counters: &mut Counters,
    ) -> Result<Option<Packet>, DropReason> {
        let pair = arrival.port.0 / 2;
        let endpoint = self.endpoints.get_mut(pair as usize).ok_or(DropReason::MediaPortIdle)?;
        let other = endpoint.other;
        if other == NO_PAIR {
            if !endpoint.knew(arrival.source) {
                self.sprayers.note(arrival.now, arrival.source, pair);
            }
            return Err(DropReason::MediaPortIdle);
        }
        if endpoint.remote.datagrams {
            return self.take_datagram(arrival, other, tx).map(Some);
        }
        let packet = match demux::first_byte(arrival.bytes) {
            Kind::Rtp if arrival.component == Component::Rtp => Packet::Rtp,
            Kind::Rtcp => Packet::Rtcp,
            Kind::Stun => {
                let before = endpoint.gate.source(arrival.component);
                let taken = endpoint.stun(arrival, tx);
                let moved = endpoint.gate.source(arrival.component) != before;
                self.settle(pair);
                self.tell_fast(pair);
                if moved {
                    self.note_change(pair);
                }
                return taken.map(|()| None);
            }
            Kind::Dtls => {
                let state = |end: &Endpoint| end.dtls.as_ref().map(|dtls| dtls.state());
                let before = state(endpoint);
                let taken = endpoint.dtls(arrival, &mut self.handshakes, tx);
                let moved = state(endpoint) != before;
                self.settle(pair);
                self.tell_fast(pair);
                if moved {
                    self.note_change(pair);
                }
                return taken.map(|()| None);
            }
            Kind::KeepAlive => return Err(DropReason::KeepAlive),
            Kind::Rtp => return Err(DropReason::MediaMalformed),
            Kind::Unknown if arrival.bytes.len() < rtp::HEADER_BYTES => {
                return Err(DropReason::MediaMalformed);
            }
            _ => return Err(DropReason::MediaUnsupported),
        };
        let Arrival { now, component, source, .. } = arrival;
        let admission = endpoint
            .gate
            .check(now, component, source, endpoint.shield.is_some())
            .and_then(|admission| match (admission, packet) {
                (Admission::Candidate, Packet::Rtcp) => Err(DropReason::MediaSource),
                _ => Ok(admission),
            })
            .inspect_err(|reason| endpoint.quality.turned_away(*reason))?;
        let both = self.endpoints.get_disjoint_mut([pair as usize, other as usize]);
        let Ok([from, to]) = both else { return Err(DropReason::MediaPortIdle) };
        let around = Around { sprayers: &self.sprayers, tx, counters };
        let mut learnt = Learnt::Nothing;
        let passed = pass([from, to], packet, admission, arrival, &mut learnt, around);
        match passed {
            Ok(()) => from.quality.forwarded(packet, arrival.bytes.len()),
            Err(reason) => from.quality.not_forwarded(reason),
        }
        // Nothing under an index that no record claims is sent before there is such a record.
        let outrun = to.shield.as_mut().is_some_and(|shield| shield.take_outrun());
        if learnt != Learnt::Nothing {
            self.tell_fast(pair);
        }
        if outrun || learnt != Learnt::Nothing {
            self.note_change(pair);
        }
        passed.map(|()| Some(packet))
    }
}

impl MediaTable {
    /// A datagram of a protocol that is not ours to look into, such as T.38 over UDPTL: where it
    /// comes from is all that is asked.
    fn take_datagram(
        &mut self,
        arrival: Arrival<'_>,
        other: u32,
        tx: &mut TxQueue,
    ) -> Result<Packet, DropReason> {
        let Arrival { now, port, component, source, bytes } = arrival;
        let both = self.endpoints.get_disjoint_mut([port.0 as usize / 2, other as usize]);
        let Ok([from, to]) = both else { return Err(DropReason::MediaPortIdle) };
        if component != Component::Rtp {
            return Err(DropReason::MediaUnsupported);
        }
        if bytes.is_empty() {
            return Err(DropReason::KeepAlive);
        }
        // Nothing in them could prove whose they are: an address is not learnt from them.
        if from.gate.check(now, component, source, false)? == Admission::Candidate {
            return Err(DropReason::MediaSource);
        }
        let way = to.destination(Packet::Rtp).filter(|_| from.may_send(Packet::Rtp));
        let Some((component, address)) = way.filter(|_| to.remote.datagrams) else {
            from.quality.not_forwarded(DropReason::MediaNoPeer);
            return Err(DropReason::MediaNoPeer);
        };
        tx.push(
            Egress::Media { port: component.port(other), to: address },
            Token::default(),
            bytes,
        );
        from.quality.forwarded(Packet::Rtp, bytes.len());
        Ok(Packet::Rtp)
    }
}

/// What a packet passes besides its stream.
struct Around<'a> {
    sprayers: &'a Sprayers,
    tx: &'a mut TxQueue,
    counters: &'a mut Counters,
}

/// From one party, whose packet it may be, to the other.
fn pass(
    [from, to]: [&mut Endpoint; 2],
    packet: Packet,
    admission: Admission,
    arrival: Arrival<'_>,
    learnt: &mut Learnt,
    around: Around<'_>,
) -> Result<(), DropReason> {
    let Arrival { now, port, source, bytes, .. } = arrival;
    let mut draft = around.tx.draft(bytes);
    let clear = !from.remote.encrypted;
    if let Some(shield) = &mut from.shield {
        // What a cipher costs is not spent on what cannot be a packet.
        match packet {
            Packet::Rtp => drop(rtp_header(bytes, false)?),
            Packet::Rtcp => drop(rtcp_compound(bytes, false)?),
        }
        let (arena, start) = draft.tail();
        shield.open(packet, arena, start)?;
    }
    match packet {
        Packet::Rtp => {
            let header = rtp_header(draft.bytes(), clear)?;
            let authentic = from.shield.is_some();
            let heard = Heard::new(now, port.0 / 2, source, &header, authentic);
            *learnt = from.gate.learn(admission, &heard, around.sprayers)?;
            if *learnt == Learnt::Latched {
                around.counters.media_latched += 1;
                from.quality.latched();
            }
            from.quality.rtp(now, &header, bytes.len(), clear);
        }
        Packet::Rtcp => {
            let compound = rtcp_compound(draft.bytes(), clear)?;
            from.quality.rtcp(now, compound, &mut to.quality);
        }
    }
    let way = to.destination(packet).filter(|_| from.may_send(packet));
    let (component, address) = way.ok_or(DropReason::MediaNoPeer)?;
    if let Some(map) = from.payload.as_ref().filter(|_| packet == Packet::Rtp) {
        map.apply(draft.bytes_mut());
    }
    if let Some(shield) = &mut to.shield {
        let (arena, start) = draft.tail();
        shield.seal(packet, arena, start)?;
    }
    let port = component.port(from.other);
    draft.send(Egress::Media { port, to: address }, Token::default());
    Ok(())
}

/// The header of an RTP packet whose lengths agree with each other, as far as they can be seen.
fn rtp_header(bytes: &[u8], clear: bool) -> Result<rtp::Header<'_>, DropReason> {
    let header =
        if clear { rtp::Header::parse(bytes) } else { rtp::Header::parse_encrypted(bytes) };
    header.ok_or(DropReason::MediaMalformed)
}

/// A sound RTCP packet; `None` if only its length can be judged.
fn rtcp_compound(bytes: &[u8], clear: bool) -> Result<Option<rtcp::Compound<'_>>, DropReason> {
    if clear {
        rtcp::Compound::parse(bytes).map(Some).ok_or(DropReason::MediaMalformed)
    } else if bytes.len() >= rtcp::DATAGRAM_MIN_BYTES {
        Ok(None)
    } else {
        Err(DropReason::MediaMalformed)
    }
}

impl Endpoint {
    /// A STUN message. Its own integrity says whose it is, so it may come from anywhere.
    fn stun(&mut self, arrival: Arrival<'_>, tx: &mut TxQueue) -> Result<(), DropReason> {
        let ice = self.ice.as_mut().ok_or(DropReason::MediaUnsupported)?;
        let Arrival { now, port, component, source, bytes } = arrival;
        let mut reply = tx.draft(&[]);
        let checked = ice.receive(now, component, source, bytes, reply.tail().0);
        if !reply.bytes().is_empty() {
            reply.send(Egress::Media { port, to: source }, Token::default());
        }
        if checked? && let Some(nominated) = ice.selected(component) {
            self.gate.nominated(component, nominated);
        }
        Ok(())
    }

    /// A DTLS record, from the party's address only: an error of anybody else changes nothing
    /// (lessons.md 2.22).
    fn dtls(
        &mut self,
        arrival: Arrival<'_>,
        handshakes: &mut Handshakes,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let dtls = self.dtls.as_mut().filter(|_| arrival.component == Component::Rtp);
        let dtls = dtls.ok_or(DropReason::MediaUnsupported)?;
        let Arrival { now, port, component, source, bytes } = arrival;
        self.gate.check(now, component, source, false)?;
        let mut send = |datagram: &[u8]| {
            tx.push(Egress::Media { port, to: source }, Token::default(), datagram);
        };
        if let Some(shield) = dtls.receive(now, source, bytes, handshakes, &mut send)? {
            self.shield = Some(shield);
        }
        Ok(())
    }
}
