//! Telephone events (RFC 4733): how many, never which. A digit may be part of a PIN or of a card's
//! number; what is not kept cannot leak.

/// Events 0 to 15 are the DTMF digits.
const DIGITS: std::ops::RangeInclusive<u8> = 0..=15;

/// Events of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Dtmf {
    /// Timestamp of the event seen last, with its number and its duration if they were readable.
    last: Option<(u32, Option<(u8, u16)>)>,
    events: u32,
}

impl Dtmf {
    /// Takes a packet of an event. All packets of one event carry the timestamp of its beginning,
    /// the end packets, which are sent three times, too (RFC 4733 2.5.1.4). `payload` is `None` if
    /// it is encrypted for somebody else.
    pub(super) fn take(&mut self, timestamp: u32, marker: bool, payload: Option<&[u8]>) {
        let event = match payload {
            Some([event, _, d0, d1, ..]) => Some((*event, u16::from_be_bytes([*d0, *d1]))),
            // Too short to be an event.
            Some(_) => return,
            None => None,
        };
        if let Some((last, before)) = self.last {
            let ahead = timestamp.wrapping_sub(last).cast_signed();
            if ahead < 0 {
                return;
            }
            if ahead == 0 {
                self.last = Some((last, event));
                return;
            }
            // One that lasts longer than a duration can say goes on in a new segment, right where
            // the one before ended (RFC 4733 2.5.1.3).
            let continued = before.zip(event).is_some_and(|((old, lasted), (new, _))| {
                old == new && !marker && u32::try_from(ahead) == Ok(u32::from(lasted))
            });
            if continued {
                self.last = Some((timestamp, event));
                return;
            }
        }
        self.last = Some((timestamp, event));
        if event.is_none_or(|(number, _)| DIGITS.contains(&number)) {
            self.events = self.events.saturating_add(1);
        }
    }

    /// Another source: its timestamps say nothing about those before.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }

    pub(super) fn events(&self) -> u32 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8, end: bool, duration: u16) -> Vec<u8> {
        let [d0, d1] = duration.to_be_bytes();
        vec![number, if end { 0x8a } else { 0x0a }, d0, d1]
    }

    /// As it stands in the example of RFC 4733 2.5.1.4: a dialled number, each end sent three
    /// times.
    #[test]
    fn each_event_counts_once() {
        let mut dtmf = Dtmf::default();
        for (number, at) in [(9, 11_200), (1, 12_800), (1, 17_600)] {
            for packet in 1..=5_u16 {
                dtmf.take(at, packet == 1, Some(&event(number, false, packet * 400)));
            }
            for _ in 0..3 {
                dtmf.take(at, false, Some(&event(number, true, 2_400)));
            }
        }
        assert_eq!(dtmf.events(), 3);
        // An end packet that was overtaken by the next event.
        dtmf.take(12_800, false, Some(&event(1, true, 2_400)));
        assert_eq!(dtmf.events(), 3);
    }

    #[test]
    fn a_long_event_in_segments_counts_once() {
        let mut dtmf = Dtmf::default();
        dtmf.take(1_000, true, Some(&event(5, false, 0xffff)));
        dtmf.take(1_000 + 0xffff, false, Some(&event(5, false, 400)));
        dtmf.take(1_000 + 0xffff, false, Some(&event(5, true, 800)));
        assert_eq!(dtmf.events(), 1);
        // The same digit pressed again.
        dtmf.take(90_000, true, Some(&event(5, true, 800)));
        assert_eq!(dtmf.events(), 2);
    }

    #[test]
    fn only_digits_count_and_what_is_encrypted_counts_by_its_timestamp() {
        let mut dtmf = Dtmf::default();
        dtmf.take(1, true, Some(&event(16, true, 800)));
        dtmf.take(2, true, Some(&event(15, true, 800)));
        dtmf.take(3, true, Some(&[1, 2]));
        assert_eq!(dtmf.events(), 1);
        dtmf.take(900, true, None);
        dtmf.take(900, false, None);
        assert_eq!(dtmf.events(), 2);
        // Timestamps wrap.
        let mut dtmf = Dtmf::default();
        dtmf.take(u32::MAX, true, Some(&event(1, true, 800)));
        dtmf.take(700, true, Some(&event(1, true, 800)));
        assert_eq!(dtmf.events(), 2);
    }
}
