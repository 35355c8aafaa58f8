//! Payload types that differ between the legs of a call (RFC 3264 6.1): each packet gets the number
//! that the receiving party gave the format.

/// From the payload types of one party to those of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PayloadMap {
    table: [u8; 128],
    /// Numbers under which this party sends redundant encodings, whose blocks name payload types of
    /// their own (RFC 2198 3).
    redundant: [Option<u8>; 2],
}

impl PayloadMap {
    /// The table that changes nothing.
    pub(crate) const SAME: [u8; 128] = {
        let mut table = [0; 128];
        let mut number: u8 = 0;
        while number < 128 {
            #[allow(clippy::indexing_slicing)] // runs in the compiler
            {
                table[number as usize] = number;
            }
            number += 1;
        }
        table
    };

    pub(crate) const fn new(table: [u8; 128], redundant: Option<u8>, other: Option<u8>) -> Self {
        Self { table, redundant: [redundant, other] }
    }

    fn of(&self, number: u8) -> u8 {
        self.table.get(usize::from(number & 0x7f)).map_or(number, |new| new & 0x7f)
    }

    /// Rewrites a plain RTP packet, whose header has been checked, in place.
    pub(crate) fn apply(&self, packet: &mut [u8]) {
        let Some(second) = packet.get_mut(1) else { return };
        let number = *second & 0x7f;
        *second = (*second & 0x80) | self.of(number);
        if self.redundant.contains(&Some(number)) {
            self.blocks(packet);
        }
    }

    /// The headers of redundant blocks: four octets each, the last of one octet.
    fn blocks(&self, packet: &mut [u8]) {
        let Some(header) = ravelin_wire::rtp::Header::parse_encrypted(packet) else { return };
        let mut at =
            packet.len().saturating_sub(header.payload.len() + usize::from(header.padding));
        while let Some(first) = packet.get_mut(at) {
            let more = *first & 0x80;
            *first = more | self.of(*first & 0x7f);
            if more == 0 {
                return;
            }
            at += 4;
        }
    }

    /// For a call record: the numbers that change, two octets each, behind the redundant ones.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.redundant.map(|number| number.unwrap_or(NONE)));
        for (old, new) in (0_u8..).zip(self.table).filter(|(old, new)| old != new) {
            out.extend([old, new]);
        }
    }

    /// What [`Self::save`] wrote.
    pub(crate) fn load(bytes: &[u8]) -> Option<Self> {
        let ([first, second], rest) = bytes.split_first_chunk::<2>().map(|(a, b)| (*a, b))?;
        let number = |octet: u8| (octet < 128).then_some(octet);
        let mut table = Self::SAME;
        let pairs = rest.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        for pair in pairs {
            let [old, new] = *pair else { return None };
            *table.get_mut(usize::from(old))? = number(new)?;
        }
        Some(Self { table, redundant: [number(first), number(second)] })
    }
}

/// No payload type.
const NONE: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> PayloadMap {
        let mut table = PayloadMap::SAME;
        table[98] = 99;
        table[100] = 101;
        PayloadMap::new(table, Some(98), None)
    }

    #[test]
    fn blocks_of_redundant_encodings_are_renumbered_too() {
        let mut packet = vec![0x80, 0x80 | 98, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2];
        packet.extend([0x80 | 100, 1, 2, 3, 0x80 | 100, 4, 5, 6, 100, b'a', b'b']);
        map().apply(&mut packet);
        assert_eq!(packet[1], 0x80 | 99);
        assert_eq!(packet[12..], [0x80 | 101, 1, 2, 3, 0x80 | 101, 4, 5, 6, 101, b'a', b'b']);
        let mut cut = vec![0x80, 98, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0x80 | 100, 1];
        map().apply(&mut cut);
        assert_eq!(cut[12..], [0x80 | 101, 1]);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let mut bytes = Vec::new();
        map().save(&mut bytes);
        assert_eq!(bytes, [98, 0xff, 98, 99, 100, 101]);
        assert_eq!(PayloadMap::load(&bytes), Some(map()));
        for bad in [&[][..], &[1], &[1, 2, 3], &[1, 2, 200, 3], &[1, 2, 3, 200]] {
            assert_eq!(PayloadMap::load(bad), None, "{bad:?}");
        }
    }
}
