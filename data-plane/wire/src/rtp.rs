//! RTP (RFC 3550 5.1): a checked view over one packet.

/// Length of the fixed header.
pub const HEADER_BYTES: usize = 12;

/// One RTP packet whose lengths are consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Marker bit.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Contributing sources, four octets each.
    pub csrc: &'a [u8],
    /// Header extension: its profile word and its content.
    pub extension: Option<(u16, &'a [u8])>,
    /// Payload without padding.
    pub payload: &'a [u8],
    /// Padding octets at the end.
    pub padding: u8,
}

impl<'a> Header<'a> {
    /// Parses a plain RTP packet. `None`: too short, version not 2, or CSRC list, extension or
    /// padding reach beyond the packet.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let mut header = Self::parse_encrypted(packet)?;
        if packet.first()? & 0x20 != 0 {
            let padding = *header.payload.last()?;
            if padding == 0 {
                return None;
            }
            let kept = header.payload.len().checked_sub(usize::from(padding))?;
            header.payload = header.payload.get(..kept)?;
            header.padding = padding;
        }
        Some(header)
    }

    /// Parses the header alone, which SRTP leaves in the clear: padding and payload are not looked
    /// at, and stay in `payload` together with the authentication tag.
    #[must_use]
    pub fn parse_encrypted(packet: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3] = *fixed;
        if b0 >> 6 != 2 {
            return None;
        }
        let (csrc, rest) = rest.split_at_checked(usize::from(b0 & 0x0f) * 4)?;
        let (extension, payload) = if b0 & 0x10 == 0 {
            (None, rest)
        } else {
            let ([p0, p1, l0, l1], rest) = rest.split_first_chunk::<4>()?;
            let words = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (content, rest) = rest.split_at_checked(words * 4)?;
            (Some((u16::from_be_bytes([*p0, *p1]), content)), rest)
        };
        Some(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([x0, x1, x2, x3]),
            csrc,
            extension,
            payload,
            padding: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut p = vec![first, 0x88, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef];
        p.extend_from_slice(rest);
        p
    }

    #[test]
    fn reads_the_fixed_header() {
        let bytes = packet(0x80, b"payload");
        let header = Header::parse(&bytes).unwrap();
        assert!(header.marker);
        assert_eq!(header.payload_type, 8);
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (0x1234, 160, 0xdead_beef));
        assert_eq!((header.payload, header.padding), (&b"payload"[..], 0));
    }

    #[test]
    fn refuses_what_is_short_or_of_another_version() {
        for len in 0..HEADER_BYTES {
            assert_eq!(Header::parse(&packet(0x80, b"")[..len]), None);
        }
        for version in [0x00, 0x40, 0xc0] {
            assert_eq!(Header::parse(&packet(version, b"")), None);
        }
    }

    #[test]
    fn csrc_and_extension_must_fit() {
        let bytes = packet(0x82, &[0; 7]);
        assert_eq!(Header::parse(&bytes), None);
        let bytes = packet(0x82, &[0, 0, 0, 1, 0, 0, 0, 2, 9]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.csrc.len(), header.payload), (8, &[9][..]));
        assert_eq!(Header::parse(&packet(0x90, &[0xbe, 0xde, 0])), None);
        assert_eq!(Header::parse(&packet(0x90, &[0xbe, 0xde, 0, 1, 1, 2, 3])), None);
        assert_eq!(Header::parse(&packet(0x90, &[0xbe, 0xde, 0xff, 0xff, 1, 2, 3])), None);
        let bytes = packet(0x90, &[0xbe, 0xde, 0, 1, 1, 2, 3, 4, 5]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.extension, Some((0xbede, &[1, 2, 3, 4][..])));
        assert_eq!(header.payload, [5]);
    }

    #[test]
    fn padding_must_fit_and_count_itself() {
        assert_eq!(Header::parse(&packet(0xa0, b"")), None);
        assert_eq!(Header::parse(&packet(0xa0, &[1, 2, 0])), None);
        assert_eq!(Header::parse(&packet(0xa0, &[1, 2, 4])), None);
        let bytes = packet(0xa0, &[1, 0, 2]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.payload, header.padding), (&[1][..], 2));
        // Under SRTP the last octet is of the tag.
        assert!(Header::parse_encrypted(&packet(0xa0, &[1, 2, 0])).is_some());
    }
}
