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
    hairpin,
    notice::{Notice, Notices, Totals},
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
                self.note_drop(port.0 / 2, reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// A datagram arrived on a media port that is too long to be taken whole: dropped and counted as
    /// what is relayed would be, at a port that no stream uses also as that.
    pub fn too_long(
        &mut self,
        now: Instant,
        port: MediaPortId,
        source: SocketAddr,
        counters: &mut Counters,
    ) -> DropReason {
        let pair = port.0 / 2;
        let reason = match self.endpoints.get_mut(pair as usize) {
            Some(endpoint) if endpoint.other != NO_PAIR => {
                if endpoint.gate.source(Component::of(port)) == Some(source) {
                    endpoint.quality.not_forwarded();
                }
                DropReason::MediaTooLong
            }
            Some(endpoint) => {
                if !endpoint.knew(source) {
                    self.sprayers.note(now, source, pair);
                }
                DropReason::MediaPortIdle
            }
            None => DropReason::MediaPortIdle,
        };
        counters.drop(reason);
        self.note_drop(pair, reason);
        reason
    }

    /// Counts a drop for the stream that uses the pair, if one does.
    fn note_drop(&mut self, pair: u32, reason: DropReason) {
        let endpoint = self.endpoints.get_mut(pair as usize);
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.other != NO_PAIR) {
            endpoint.quality.turned_away(reason);
        }
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
            // Without rtcp-mux every payload type may stand on the RTP port, marked or not (RFC 5761
            // 4); what RFC 3550 itself calls RTCP is taken for that all the same.
            Kind::Rtcp
                if arrival.component == Component::Rtp
                    && !endpoint.remote.rtcp_mux
                    && !is_plainly_rtcp(arrival.bytes) =>
            {
                Packet::Rtp
            }
            Kind::Rtcp => Packet::Rtcp,
            Kind::Stun => {
                let before = endpoint.gate.source(arrival.component);
                let taken = endpoint.stun(arrival, tx, &mut self.notices.totals);
                let moved = endpoint.gate.source(arrival.component) != before;
                self.settle(pair);
                self.tell_fast(pair);
                if moved {
                    self.note_change(pair);
                }
                return taken.map(|()| None);
            }
            // The parties agree on keys between themselves.
            Kind::Dtls if endpoint.remote.encrypted => {
                return self.take_handshake(arrival, other, tx).map(|()| None);
            }
            Kind::Dtls => {
                let state = |end: &Endpoint| end.dtls.as_ref().map(|dtls| dtls.state());
                let before = state(endpoint);
                let taken = endpoint.dtls(arrival, &mut self.handshakes, tx);
                let moved = state(endpoint) != before;
                if let Some(failure) = self.handshakes.take_failure() {
                    self.notices.add(endpoint.owner, Notice::HandshakeFailed(failure));
                }
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
            })?;
        let both = self.endpoints.get_disjoint_mut([pair as usize, other as usize]);
        let Ok([from, to]) = both else { return Err(DropReason::MediaPortIdle) };
        let notices = &mut self.notices;
        let around = Around { sprayers: &self.sprayers, tx, counters, notices };
        let mut learnt = Learnt::Nothing;
        let passed = hairpin::count(from, to, now)
            .and_then(|()| pass([from, to], packet, admission, arrival, &mut learnt, around));
        match passed {
            Ok(()) => from.quality.forwarded(packet, arrival.bytes.len()),
            Err(_) => from.quality.not_forwarded(),
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
        hairpin::count(from, to, now)?;
        let way = to.destination(Packet::Rtp).filter(|_| from.may_send(Packet::Rtp));
        let Some((component, address)) = way.filter(|_| to.remote.datagrams) else {
            from.quality.not_forwarded();
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

impl MediaTable {
    /// DTLS of parties whose SRTP passes from end to end: from the one's address to the other's, on
    /// hold too. Nothing is learnt from it.
    fn take_handshake(
        &mut self,
        arrival: Arrival<'_>,
        other: u32,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let Arrival { now, port, component, source, bytes } = arrival;
        let both = self.endpoints.get_disjoint_mut([port.0 as usize / 2, other as usize]);
        let Ok([from, to]) = both else { return Err(DropReason::MediaPortIdle) };
        let admission = from.gate.check(now, component, source, false);
        if admission? == Admission::Candidate {
            return Err(DropReason::MediaSource);
        }
        hairpin::count(from, to, now)?;
        let way = to.gate.source(component).filter(|_| to.remote.encrypted);
        let Some(address) = way else {
            from.quality.not_forwarded();
            return Err(DropReason::MediaNoPeer);
        };
        let egress = Egress::Media { port: component.port(other), to: address };
        tx.push(egress, Token::default(), bytes);
        Ok(())
    }
}

/// What a packet passes besides its stream.
struct Around<'a> {
    sprayers: &'a Sprayers,
    tx: &'a mut TxQueue,
    counters: &'a mut Counters,
    notices: &'a mut Notices,
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
    let Arrival { now, port, component, source, bytes } = arrival;
    let sealed = from.shield.is_some();
    let mut draft = around.tx.draft(bytes);
    let clear = !from.remote.encrypted;
    if sealed && let Some(shield) = from.shield_of(component) {
        // What a cipher costs is not spent on what cannot be a packet.
        match packet {
            Packet::Rtp => drop(rtp_header(bytes, false)?),
            Packet::Rtcp => drop(rtcp_compound(bytes, false)?),
        }
        let (arena, start) = draft.tail();
        let opened = shield.open(packet, arena, start);
        if let Some(notice) = shield.take_notice() {
            around.notices.add(from.owner, notice);
        }
        opened?;
    }
    match packet {
        Packet::Rtp => {
            let header = rtp_header(draft.bytes(), clear)?;
            let heard = Heard::new(now, port.0 / 2, source, &header, sealed);
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
    if to.shield.is_some()
        && let Some(shield) = to.shield_of(component)
    {
        let (arena, start) = draft.tail();
        let sealed = shield.seal(packet, arena, start);
        if let Some(notice) = shield.take_notice() {
            around.notices.add(to.owner, notice);
        }
        sealed?;
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

/// Whether the second octet is one of the packet types from SR to XR.
fn is_plainly_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|kind| (200..=207).contains(kind))
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
    fn stun(
        &mut self,
        arrival: Arrival<'_>,
        tx: &mut TxQueue,
        totals: &mut Totals,
    ) -> Result<(), DropReason> {
        let ice = self.ice.as_mut().ok_or(DropReason::MediaUnsupported)?;
        let Arrival { now, port, component, source, bytes } = arrival;
        let mut reply = tx.draft(&[]);
        let checked = ice.receive(now, component, source, bytes, reply.tail().0);
        if !reply.bytes().is_empty() {
            reply.send(Egress::Media { port, to: source }, Token::default());
        }
        if checked? && let Some(nominated) = ice.selected(component) {
            self.gate.nominated(component, nominated);
            totals.ice_nominated += 1;
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
        let Arrival { now, port, component, source, bytes } = arrival;
        let emergency = self.serves_emergency();
        let dtls = match (component, &mut self.control) {
            (Component::Rtp, _) => self.dtls.as_deref_mut(),
            (Component::Rtcp, control) => control.as_mut().map(|control| &mut control.dtls),
        };
        let dtls = dtls.ok_or(DropReason::MediaUnsupported)?;
        self.gate.check(now, component, source, false)?;
        let mut send = |datagram: &[u8]| {
            tx.push(Egress::Media { port, to: source }, Token::default(), datagram);
        };
        if let Some(shield) =
            dtls.receive(now, source, bytes, (handshakes, emergency), &mut send)?
        {
            match (component, &mut self.control) {
                (Component::Rtp, _) => self.shield = Some(shield),
                (Component::Rtcp, Some(control)) => control.shield = *shield,
                (Component::Rtcp, None) => {}
            }
        }
        Ok(())
    }
}
