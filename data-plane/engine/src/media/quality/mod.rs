//! How good a stream is: what came from one party, what was missing, how regularly it came, what
//! the parties say of each other.
//!
//! [`Quality`] is one value for each party of each stream, told of every packet that passed the
//! source gate. It reads no clock (the turn's time is handed in), allocates nothing but when a
//! description is agreed, and looks at payloads only for the number of a telephone event. All that
//! needs a division or a logarithm is done when somebody asks ([`Quality::report`]).

mod dtmf;
mod emodel;
mod formats;
mod jitter;
mod report;
mod reports;
mod sequence;

use ravelin_wire::{rtcp, rtp};

use super::endpoint::Packet;
use crate::{drops::DropReason, time::Instant};
use dtmf::Dtmf;
use formats::Content;
pub(crate) use formats::{Format, Formats};
use jitter::{Jitter, Tick};
use reports::Reports;
use sequence::{Seen, Sequence};

/// Packets of media in a row, without a word of the fast path that it has any, after which it is taken
/// to have left the stream here: three seconds of voice, where it speaks each second.
const STAYS_HERE: u16 = 150;

/// No packet has come.
const NO_PAYLOAD_TYPE: u8 = u8::MAX;

/// What the fast path took between two looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PassedBy {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Missing by their sequence numbers.
    pub(super) lost: u64,
    /// RFC 3550 A.8, in units of the RTP clock.
    pub(super) jitter: u32,
    /// Arrival of the last one.
    pub(super) last: Instant,
}

/// Of the packets that came from one party and passed its gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Quality {
    /// RTP packets that came, and their octets.
    received: u64,
    octets: u64,
    /// RTP packets forwarded.
    pub(super) packets: u64,
    /// Octets of these, as they came, RTP headers included.
    pub(super) bytes: u64,
    /// When the party last gave a sign of life: a sound packet, forwarded or not.
    pub(super) last_packet: Option<Instant>,
    sequence: Sequence,
    jitter: Jitter,
    /// The source that is measured.
    ssrc: Option<u32>,
    /// Payload type of the last packet, and what it means.
    payload: Payload,
    /// Another source's last packet: its SSRC and the number that would follow.
    newcomer: Option<(u32, u16)>,
    ssrc_changes: u32,
    /// The fast path sees the other packets of the source.
    elsewhere: bool,
    /// Packets of media that came here since it was said so, or since the fast path counted any; and
    /// whether that were so many that they are measured here again.
    beside: u16,
    stays: bool,
    /// Packets of sources that are not measured.
    other_sources: u64,
    /// Payload type of the last packet of media.
    media_type: Option<u8>,
    dtmf: Dtmf,
    formats: Formats,
    reports: Reports,
    /// RTCP packets forwarded.
    pub(super) rtcp_packets: u64,
    /// Packets of the party that were not forwarded.
    pub(super) dropped: u64,
    /// Packets on the party's ports that were not forwarded, by reason.
    drops: Drops,
    /// Times that the party was found behind a NAT.
    pub(super) latches: u32,
    /// How often the party was silent for too long.
    pub(super) timeouts: u32,
}

/// Counts by reason.
#[derive(Clone, Debug)]
struct Drops([u32; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    number: u8,
    content: Content,
    tick: Tick,
}

impl Default for Payload {
    fn default() -> Self {
        Self { number: NO_PAYLOAD_TYPE, content: Content::Media, tick: Tick::default() }
    }
}

impl Quality {
    /// An RTP packet of the party, `octets` long; it may still be held back by direction or hold.
    /// `clear`: its payload can be read.
    #[inline]
    pub(super) fn rtp(
        &mut self,
        now: Instant,
        header: &rtp::Header<'_>,
        octets: usize,
        clear: bool,
    ) {
        self.last_packet = Some(now);
        self.received += 1;
        self.octets += octets as u64;
        if self.ssrc != Some(header.ssrc) && !self.meet(header) {
            return;
        }
        if self.payload.number != header.payload_type {
            self.change_payload(header.payload_type);
        }
        if self.elsewhere && self.payload.content == Content::Media {
            self.beside += 1;
            if self.beside >= STAYS_HERE {
                self.pass_no_more();
                self.stays = true;
            }
        }
        let seen = if self.elsewhere {
            self.sequence.take_beside();
            Seen::Astray
        } else {
            self.sequence.take(header.sequence)
        };
        match self.payload.content {
            Content::Media if seen == Seen::Astray => {}
            Content::Media => self.jitter.take(now.0, header.timestamp, self.payload.tick),
            Content::Event => {
                let payload = clear.then_some(header.payload);
                self.dtmf.take(header.timestamp, header.marker, payload);
            }
            Content::Noise => {}
        }
    }

    /// See [`super::MediaTable::read_ahead`].
    pub(super) fn read_ahead(&self) -> u64 {
        let ssrc = self.ssrc.map_or(0, u64::from);
        self.received ^ self.packets ^ ssrc ^ self.other_sources ^ self.rtcp_packets
    }

    /// Whether a packet of a source that is not the measured one makes it so: the first of all at
    /// once, another when two of its packets follow each other (RFC 3550 A.1).
    fn meet(&mut self, header: &rtp::Header<'_>) -> bool {
        let number = header.sequence;
        if self.ssrc.is_some() {
            if self.newcomer != Some((header.ssrc, number)) {
                self.newcomer = Some((header.ssrc, number.wrapping_add(1)));
                self.other_sources += 1;
                return false;
            }
            self.newcomer = None;
            self.other_sources = self.other_sources.saturating_sub(1);
            self.ssrc_changes = self.ssrc_changes.saturating_add(1);
            self.sequence.restart();
            self.sequence.take(number.wrapping_sub(1));
            self.jitter.restart();
            self.dtmf.restart();
            self.reports.restart();
        }
        self.ssrc = Some(header.ssrc);
        true
    }

    fn change_payload(&mut self, number: u8) {
        let before = self.payload.content;
        let (content, tick) = self.formats.content(number);
        self.payload = Payload { number, content, tick };
        if content == Content::Media {
            // Another codec may have another clock. After an event or noise the clock went on.
            if before == Content::Media && self.media_type != Some(number) {
                self.jitter.restart();
            }
            self.media_type = Some(number);
        }
    }

    /// What payload types mean from now on.
    pub(super) fn set_formats(&mut self, formats: Formats) {
        if self.formats != formats {
            self.formats = formats;
            // Looked up again with the next packet.
            self.payload = Payload::default();
        }
    }

    /// An RTCP packet of the party, `None` if it is encrypted from end to end. `peer`: what came
    /// from the other party, which the reports in it are about. A party that only takes its leave
    /// gives no sign of life (RFC 3550 6.3.4, 6.3.5).
    pub(super) fn rtcp(
        &mut self,
        now: Instant,
        compound: Option<rtcp::Compound<'_>>,
        peer: &mut Self,
    ) {
        let alive = compound.is_none_or(|compound| {
            reports::take(now, compound, &mut self.reports, &mut peer.reports, peer.ssrc)
        });
        if alive {
            self.last_packet = Some(now);
        }
    }

    /// The party was found behind a NAT.
    pub(super) fn latched(&mut self) {
        self.latches = self.latches.saturating_add(1);
    }

    /// The packet went out. `octets`: its length as it came.
    #[inline]
    pub(super) fn forwarded(&mut self, packet: Packet, octets: usize) {
        match packet {
            Packet::Rtp => {
                self.packets += 1;
                self.bytes += octets as u64;
            }
            Packet::Rtcp => self.rtcp_packets += 1,
        }
    }

    /// A packet from the party's address went no further.
    pub(super) fn not_forwarded(&mut self) {
        self.dropped += 1;
    }

    /// A packet on the party's ports, from wherever, was dropped.
    pub(super) fn turned_away(&mut self, reason: DropReason) {
        if let Some(count) = self.drops.0.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Rate of the clock of the party's media in Hz, 0 while not known, and up to two payload types of
    /// events, 0xff for none: what the fast path needs to know of the formats.
    pub(super) fn fast_formats(&self) -> (u32, [u8; 2]) {
        let clock = self.media_type.and_then(|number| self.formats.clock_hz(number));
        let mut events = self.formats.events();
        let mut next = || events.next().unwrap_or(NO_PAYLOAD_TYPE);
        (clock.unwrap_or(0), [next(), next()])
    }

    /// For a call record: the payload type of the party's media, and what payload types mean.
    pub(super) fn save_formats(&self, out: &mut Vec<u8>) {
        out.push(self.media_type.unwrap_or(NO_PAYLOAD_TYPE));
        self.formats.save(self.media_type, out);
    }

    /// What [`Self::save_formats`] wrote. False: it is something else.
    pub(super) fn load_formats(&mut self, from: &[u8]) -> bool {
        let Some((number, rest)) = from.split_first() else { return false };
        let Some(formats) = Formats::load(rest) else { return false };
        self.set_formats(formats);
        self.media_type = Some(*number).filter(|number| *number != NO_PAYLOAD_TYPE);
        true
    }

    /// From now on the fast path sees the packets of the source, all but a few: numbers of those
    /// that come here say nothing of loss.
    pub(super) fn pass_by(&mut self) {
        (self.beside, self.stays) = (0, false);
        if !std::mem::replace(&mut self.elsewhere, true) {
            self.sequence.restart();
        }
    }

    /// The packets come here again.
    pub(super) fn pass_no_more(&mut self) {
        (self.elsewhere, self.stays) = (false, false);
        self.jitter.restart();
    }

    /// Adds what the fast path forwarded and this value has not seen.
    pub(super) fn passed_by(&mut self, passed: PassedBy) {
        if passed.packets == 0 {
            return;
        }
        self.beside = 0;
        if self.stays {
            self.pass_by();
        }
        self.received += passed.packets;
        self.octets += passed.bytes;
        self.packets += passed.packets;
        self.bytes += passed.bytes;
        self.last_packet = self.last_packet.max(Some(passed.last));
        self.sequence.passed_by(passed.packets, passed.lost);
        let clock = self.media_type.and_then(|number| self.formats.clock_hz(number));
        let jitter = u64::from(passed.jitter) * 1_000_000_000;
        if let Some(jitter) = jitter.checked_div(u64::from(clock.unwrap_or(0))) {
            self.jitter.passed_by(passed.packets, jitter);
        }
    }
}

#[cfg(test)]
mod tests;
