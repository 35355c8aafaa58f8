//! What is known of one direction of a stream: the packets that came from one party.

use ravelin_wire::{rtcp, rtp};

use super::endpoint::Packet;
use crate::{drops::DropReason, time::Instant};

/// Of the packets that came from one party and passed its gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Quality {
    /// RTP packets forwarded.
    pub(super) packets: u64,
    /// Octets of these, as they came, RTP headers included.
    pub(super) bytes: u64,
    /// RTCP packets forwarded.
    pub(super) rtcp_packets: u64,
    /// Packets of the party that were not forwarded.
    pub(super) dropped: u64,
    /// Times that the party was found behind a NAT.
    pub(super) latches: u32,
    /// When the last sound packet came, forwarded or not.
    pub(super) last_packet: Option<Instant>,
}

impl Quality {
    /// An RTP packet of the party; it may still be held back by direction or hold. `clear`: its
    /// payload can be read.
    pub(super) fn rtp(&mut self, now: Instant, _header: &rtp::Header<'_>, _clear: bool) {
        self.last_packet = Some(now);
    }

    /// An RTCP packet of the party, `None` if it is encrypted from end to end. `peer`: what came
    /// from the other party, which the reports in it are about.
    pub(super) fn rtcp(
        &mut self,
        now: Instant,
        _compound: Option<rtcp::Compound<'_>>,
        _peer: &mut Self,
    ) {
        self.last_packet = Some(now);
    }

    /// The party was found behind a NAT.
    pub(super) fn latched(&mut self) {
        self.latches += 1;
    }

    /// The packet went out. `octets`: its length as it came.
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
    pub(super) fn not_forwarded(&mut self, _reason: DropReason) {
        self.dropped += 1;
    }
}
