//! Where the parts of an RTP or RTCP packet stand. Only what SRTP leaves in the clear is read.

/// Octets of an RTCP packet that are never encrypted: its header and the sender's SSRC.
pub(crate) const RTCP_HEADER_BYTES: usize = 8;
/// Octets of the E flag and the SRTCP index.
pub(crate) const RTCP_INDEX_BYTES: usize = 4;
/// The E flag in that word: the packet is encrypted.
pub(crate) const ENCRYPTED: u32 = 1 << 31;

/// The clear part of an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rtp {
    /// Octets of the header with CSRC list and extension: the payload begins there.
    pub(crate) header: usize,
    pub(crate) sequence: u16,
    pub(crate) ssrc: u32,
}

impl Rtp {
    /// `None`: another version, or `packet` ends before its header does.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let ([b0, _, s0, s1, _, _, _, _, x0, x1, x2, x3], _) = packet.split_first_chunk::<12>()?;
        if b0 >> 6 != 2 {
            return None;
        }
        let mut header = 12 + 4 * usize::from(b0 & 0x0f);
        if b0 & 0x10 != 0 {
            let [_, _, l0, l1] = packet.get(header..)?.first_chunk::<4>()?;
            header += 4 + 4 * usize::from(u16::from_be_bytes([*l0, *l1]));
        }
        (header <= packet.len()).then_some(Self {
            header,
            sequence: u16::from_be_bytes([*s0, *s1]),
            ssrc: u32::from_be_bytes([*x0, *x1, *x2, *x3]),
        })
    }
}

/// SSRC of the sender of an RTCP packet. `None`: too short or another version.
pub(crate) fn rtcp_sender(packet: &[u8]) -> Option<u32> {
    let ([b0, _, _, _, ssrc @ ..], _) = packet.split_first_chunk::<RTCP_HEADER_BYTES>()?;
    (b0 >> 6 == 2).then(|| u32::from_be_bytes(*ssrc))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The vectors of one kind, from `tests/conformance/srtp`.
    pub(crate) fn vectors(kind: &str) -> Vec<serde_json::Value> {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/srtp/srtp-vectors.json");
        let text = std::fs::read_to_string(path).unwrap();
        let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let found: Vec<_> = all.into_iter().filter(|vector| vector["kind"] == kind).collect();
        assert!(!found.is_empty(), "{kind}");
        found
    }

    pub(crate) fn hex(text: &serde_json::Value) -> Vec<u8> {
        let text = text.as_str().unwrap();
        assert_eq!(text.len() % 2, 0);
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn the_header_ends_behind_csrc_and_extension() {
        let mut packet = vec![0x92, 0, 1, 2, 0, 0, 0, 0, 9, 8, 7, 6];
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 2]);
        packet.extend([0; 8]);
        let read = Rtp { header: 32, sequence: 0x0102, ssrc: 0x0908_0706 };
        assert_eq!(Rtp::read(&packet), Some(read));
        for len in 0..packet.len() {
            assert_eq!(Rtp::read(&packet[..len]), None);
        }
        packet[0] = 0x52;
        assert_eq!(Rtp::read(&packet), None);
        assert_eq!(rtcp_sender(&[0x80, 200, 0, 1, 1, 2, 3, 4]), Some(0x0102_0304));
        assert_eq!(rtcp_sender(&[0x80, 200, 0, 1, 1, 2, 3]), None);
        assert_eq!(rtcp_sender(&[0x40, 200, 0, 1, 1, 2, 3, 4]), None);
    }
}
