//! RTCP (RFC 3550 6, RFC 4585, RFC 5506, RFC 5761): a checked walk over a compound packet.

use std::ops::RangeInclusive;

use crate::limits::RTCP_COMPOUND_MAX_COUNT;

/// What the second octet of an RTCP packet may be on a port that also carries RTP (RFC 5761 4).
pub const PACKET_TYPES: RangeInclusive<u8> = 192..=223;

/// Shortest RTCP datagram: header and one SSRC. Four octets once switched off a source check.
pub const DATAGRAM_MIN_BYTES: usize = 8;

/// Kind of an RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 200
    SenderReport,
    /// 201
    ReceiverReport,
    /// 202
    SourceDescription,
    /// 203
    Bye,
    /// 204
    App,
    /// 205
    TransportFeedback,
    /// 206
    PayloadFeedback,
    /// 207
    ExtendedReport,
    /// Another from 192 to 223.
    Other(u8),
}

impl Kind {
    const fn of(packet_type: u8) -> Option<Self> {
        Some(match packet_type {
            200 => Self::SenderReport,
            201 => Self::ReceiverReport,
            202 => Self::SourceDescription,
            203 => Self::Bye,
            204 => Self::App,
            205 => Self::TransportFeedback,
            206 => Self::PayloadFeedback,
            207 => Self::ExtendedReport,
            192..=223 => Self::Other(packet_type),
            _ => return None,
        })
    }

    /// Least octets of a packet of this kind with `count` in its header.
    const fn min_bytes(self, count: usize) -> usize {
        match self {
            Self::SenderReport => 28 + 24 * count,
            Self::ReceiverReport => 8 + 24 * count,
            Self::SourceDescription => 4 + 8 * count,
            Self::Bye => 4 + 4 * count,
            Self::App | Self::TransportFeedback | Self::PayloadFeedback => 12,
            Self::ExtendedReport => 8,
            Self::Other(_) => 4,
        }
    }
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Kind.
    pub kind: Kind,
    /// Reception reports, chunks, sources or feedback type: the low five bits of the first octet.
    pub count: u8,
    /// SSRC of the sender; `None` where the packet names none (BYE or SDES without sources).
    pub ssrc: Option<u32>,
    /// The packet, header included, padding included.
    pub packet: &'a [u8],
    /// Padding octets at its end.
    pub padding: u8,
}

impl<'a> Header<'a> {
    /// Parses the first packet of `bytes`; gives what follows it. `None`: the lengths disagree, or
    /// it is not RTCP.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([first, packet_type, l0, l1], _) = bytes.split_first_chunk::<4>()?;
        if first >> 6 != 2 {
            return None;
        }
        let kind = Kind::of(*packet_type)?;
        let length = (usize::from(u16::from_be_bytes([*l0, *l1])) + 1) * 4;
        let (packet, rest) = bytes.split_at_checked(length)?;
        let padding = if first & 0x20 == 0 { 0 } else { *packet.last()? };
        let has_padding = first & 0x20 != 0;
        if has_padding && (padding == 0 || padding % 4 != 0) {
            return None;
        }
        let count = first & 0x1f;
        let reports = if matches!(kind, Kind::TransportFeedback | Kind::PayloadFeedback) {
            0
        } else {
            usize::from(count)
        };
        if packet.len().checked_sub(usize::from(padding))? < kind.min_bytes(reports) {
            return None;
        }
        let nameless = reports == 0 && matches!(kind, Kind::Bye | Kind::SourceDescription);
        let ssrc = packet.get(4..8).filter(|_| !nameless);
        let ssrc = ssrc.and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
        Some((Self { kind, count, ssrc, packet, padding }, rest))
    }
}

/// One report block: how a receiver hears one source (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Source that it is about.
    pub ssrc: u32,
    /// Share of packets lost since the report before, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since reception began; negative if duplicates came.
    pub lost: i32,
    /// Highest sequence number received, its cycles in the upper 16 bits.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the source's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time in the source's last sender report; 0 if none came.
    pub last_report: u32,
    /// Time from that report's arrival to this one's departure, in 1/65536 seconds.
    pub delay: u32,
}

impl Report {
    /// Octets of a block.
    const BYTES: usize = 24;

    fn parse(block: &[u8]) -> Option<Self> {
        let (words, _) = block.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
        let ssrc = words.next()?;
        let losses = words.next()?;
        let [fraction_lost, ..] = losses.to_be_bytes();
        Some(Self {
            ssrc,
            fraction_lost,
            // 24 bits with sign.
            lost: (losses << 8).cast_signed() >> 8,
            highest_sequence: words.next()?,
            jitter: words.next()?,
            last_report: words.next()?,
            delay: words.next()?,
        })
    }
}

impl<'a> Header<'a> {
    /// Of a sender report: the middle 32 bits of its NTP time, which receivers repeat.
    #[must_use]
    pub fn sender_time(&self) -> Option<u32> {
        if self.kind != Kind::SenderReport {
            return None;
        }
        let middle = self.packet.get(10..14)?;
        middle.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
    }

    /// The report blocks of a sender or receiver report; none of another kind.
    pub fn reports(&self) -> impl Iterator<Item = Report> + use<'a> {
        let start = match self.kind {
            Kind::SenderReport => 28,
            Kind::ReceiverReport => 8,
            _ => usize::MAX,
        };
        let blocks = self.packet.get(start..).unwrap_or_default();
        let count = usize::from(self.count);
        blocks.chunks_exact(Report::BYTES).take(count).filter_map(Report::parse)
    }
}

/// A compound packet, or a single one of reduced size, with all lengths checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compound<'a>(&'a [u8]);

impl<'a> Compound<'a> {
    /// Walks all of a plain RTCP datagram. `None`: a length disagrees, octets are left over,
    /// padding anywhere but in the last packet, more than [`RTCP_COMPOUND_MAX_COUNT`] packets, or
    /// the first names no sender.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() < DATAGRAM_MIN_BYTES {
            return None;
        }
        let (first, mut rest) = Header::parse(datagram)?;
        first.ssrc?;
        let mut last = first;
        let mut count = 1;
        while !rest.is_empty() {
            if last.padding != 0 || count == RTCP_COMPOUND_MAX_COUNT {
                return None;
            }
            (last, rest) = Header::parse(rest)?;
            count += 1;
        }
        Some(Self(datagram))
    }

    /// The packets, in order.
    pub fn packets(self) -> impl Iterator<Item = Header<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (header, tail) = Header::parse(rest)?;
            rest = tail;
            Some(header)
        })
    }

    /// Whether this is a full compound: it starts with a report (RFC 3550 6.1). Others are of
    /// reduced size (RFC 5506).
    #[must_use]
    pub fn is_full(self) -> bool {
        let first = self.packets().next().map(|header| header.kind);
        matches!(first, Some(Kind::SenderReport | Kind::ReceiverReport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let words = u16::try_from(body.len() / 4).unwrap();
        let mut p = vec![first, kind];
        p.extend_from_slice(&words.to_be_bytes());
        p.extend_from_slice(body);
        p
    }

    fn sender_report() -> Vec<u8> {
        let mut body = 7u32.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 20]);
        packet(0x80, 200, &body)
    }

    #[test]
    fn walks_a_compound() {
        let mut bytes = sender_report();
        bytes.extend(packet(0x81, 202, &[0, 0, 0, 7, 1, 1, b'a', 0]));
        bytes.extend(packet(0x81, 203, &[0, 0, 0, 7]));
        let compound = Compound::parse(&bytes).unwrap();
        assert!(compound.is_full());
        let kinds: Vec<_> = compound.packets().map(|p| (p.kind, p.ssrc)).collect();
        let expected = [Kind::SenderReport, Kind::SourceDescription, Kind::Bye];
        assert_eq!(kinds, expected.map(|kind| (kind, Some(7))));
    }

    #[test]
    fn refuses_every_cut_and_every_extra_octet() {
        let mut bytes = sender_report();
        let single = bytes.len();
        bytes.extend(packet(0x81, 203, &[0, 0, 0, 7]));
        for len in 0..bytes.len() {
            assert_eq!(Compound::parse(&bytes[..len]).is_some(), len == single, "{len}");
        }
        bytes.push(0);
        assert_eq!(Compound::parse(&bytes), None);
    }

    #[test]
    fn refuses_counts_that_do_not_fit() {
        let mut bytes = sender_report();
        bytes[0] |= 1;
        assert_eq!(Compound::parse(&bytes), None);
        assert_eq!(Compound::parse(&packet(0x82, 203, &[0, 0, 0, 7])), None);
        assert_eq!(Compound::parse(&packet(0x81, 206, &[0, 0, 0, 7])), None);
        assert!(Compound::parse(&packet(0x81, 206, &[0; 8])).is_some());
    }

    #[test]
    fn refuses_four_octets_and_nameless_first_packets() {
        assert_eq!(Compound::parse(&[0x80, 203, 0, 0]), None);
        assert_eq!(Compound::parse(&[0x80, 201, 0, 0]), None);
        assert_eq!(Compound::parse(&packet(0x80, 202, &[0; 4])), None);
    }

    #[test]
    fn padding_is_for_the_last_packet() {
        let padded = packet(0xa0, 201, &[0, 0, 0, 7, 0, 0, 0, 4]);
        assert_eq!(Compound::parse(&padded).unwrap().packets().next().unwrap().padding, 4);
        let mut bytes = padded.clone();
        bytes.extend(packet(0x81, 203, &[0, 0, 0, 7]));
        assert_eq!(Compound::parse(&bytes), None);
        for bad in [0, 3, 12] {
            let mut bytes = padded.clone();
            *bytes.last_mut().unwrap() = bad;
            assert_eq!(Compound::parse(&bytes), None, "{bad}");
        }
    }

    #[test]
    fn reads_reports_of_senders_and_receivers() {
        let block = |ssrc: u32, losses: u32| {
            [ssrc, losses, 0x0001_0002, 33, 0xaabb_ccdd, 65_536].map(u32::to_be_bytes).concat()
        };
        let mut body = 7u32.to_be_bytes().to_vec();
        body.extend([0x1111_aabb_u32, 0xccdd_2222, 160, 1, 160].map(u32::to_be_bytes).concat());
        body.extend(block(9, 0x4000_0005));
        let bytes = packet(0x81, 200, &body);
        let (header, _) = Header::parse(&bytes).unwrap();
        assert_eq!(header.sender_time(), Some(0xaabb_ccdd));
        let expected = Report {
            ssrc: 9,
            fraction_lost: 0x40,
            lost: 5,
            highest_sequence: 0x0001_0002,
            jitter: 33,
            last_report: 0xaabb_ccdd,
            delay: 65_536,
        };
        assert_eq!(header.reports().collect::<Vec<_>>(), [expected]);

        let mut body = 7u32.to_be_bytes().to_vec();
        body.extend(block(9, 0x00ff_fffe));
        body.extend(block(10, 0x007f_ffff));
        // An extension of the profile behind the blocks is not a block.
        body.extend(block(11, 0));
        let bytes = packet(0x82, 201, &body);
        let (header, _) = Header::parse(&bytes).unwrap();
        assert_eq!(header.sender_time(), None);
        let lost: Vec<_> = header.reports().map(|report| (report.ssrc, report.lost)).collect();
        assert_eq!(lost, [(9, -2), (10, 8_388_607)]);
        let bye = packet(0x81, 203, &[0, 0, 0, 7]);
        assert_eq!(Header::parse(&bye).unwrap().0.reports().count(), 0);
    }

    #[test]
    fn the_number_of_packets_is_bounded() {
        let one = packet(0x80, 201, &[0, 0, 0, 7]);
        assert!(Compound::parse(&one.repeat(RTCP_COMPOUND_MAX_COUNT)).is_some());
        assert_eq!(Compound::parse(&one.repeat(RTCP_COMPOUND_MAX_COUNT + 1)), None);
    }
}
