//! What payload types mean: as negotiated in SDP, else as RFC 3551 assigns them.

use super::jitter::Tick;

/// Payload types of one description that are kept; further ones are taken for unknown.
const FORMATS_MAX: usize = 32;
/// Of these, as many as a call record tells of.
const FORMATS_KEPT: usize = 8;
/// Longest encoding name that is kept; those registered are shorter.
const NAME_MAX: usize = 24;

/// What packets of a payload type carry, as far as measuring them goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Content {
    /// Audio, video, text: timed by its clock.
    #[default]
    Media,
    /// RFC 4733. Packets of one event share a timestamp, so they say nothing about jitter.
    Event,
    /// Comfort noise (RFC 3389): sent when it changes, not when it is due.
    Noise,
}

/// One payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    payload_type: u8,
    /// Encoding name as in `a=rtpmap`.
    name: Box<str>,
    /// Clock rate in Hz.
    clock_hz: u32,
}

impl Format {
    /// From `a=rtpmap`. `None`: no name that can be shown.
    #[must_use]
    pub(crate) fn new(payload_type: u8, name: &[u8], clock_hz: u32) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let shown = name.len() <= NAME_MAX && name.bytes().all(|octet| octet.is_ascii_graphic());
        (shown && payload_type < 128).then(|| Self { payload_type, name: name.into(), clock_hz })
    }
}

/// Payload types that a description names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Formats(Box<[Format]>);

impl Formats {
    /// Of several for one payload type the first holds.
    #[must_use]
    pub(crate) fn new(formats: impl IntoIterator<Item = Format>) -> Self {
        let mut kept: Vec<Format> = Vec::new();
        for format in formats {
            let known = kept.iter().any(|other| other.payload_type == format.payload_type);
            if !known && kept.len() < FORMATS_MAX {
                kept.push(format);
            }
        }
        Self(kept.into())
    }

    /// For a call record: up to [`FORMATS_KEPT`], those of `first` and of events before others.
    pub(super) fn save(&self, first: Option<u8>, out: &mut Vec<u8>) {
        let is_event = |one: &Format| one.name.eq_ignore_ascii_case("telephone-event");
        let rank = |one: &&Format| (Some(one.payload_type) != first && !is_event(one)) as u8;
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(rank);
        for format in sorted.into_iter().take(FORMATS_KEPT) {
            out.push(format.payload_type);
            out.extend(format.clock_hz.to_le_bytes());
            out.push(u8::try_from(format.name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(format.name.as_bytes());
        }
    }

    /// What [`Self::save`] wrote. `None`: it is something else.
    pub(super) fn load(mut from: &[u8]) -> Option<Self> {
        let mut kept = Vec::new();
        while let Some((&[number, a, b, c, d, length], rest)) = from.split_first_chunk::<6>() {
            let (name, rest) = rest.split_at_checked(usize::from(length))?;
            from = rest;
            kept.push(Format::new(number, name, u32::from_le_bytes([a, b, c, d]))?);
        }
        from.is_empty().then(|| Self::new(kept))
    }

    fn find(&self, payload_type: u8) -> Option<(&str, u32)> {
        let named = self.0.iter().find(|format| format.payload_type == payload_type);
        named.map(|format| (&*format.name, format.clock_hz)).or_else(|| assigned(payload_type))
    }

    pub(super) fn name(&self, payload_type: u8) -> Option<&str> {
        self.find(payload_type).map(|(name, _)| name)
    }

    pub(super) fn clock_hz(&self, payload_type: u8) -> Option<u32> {
        self.find(payload_type).map(|(_, clock)| clock)
    }

    /// Payload types of telephone events.
    pub(super) fn events(&self) -> impl Iterator<Item = u8> {
        let events = self.0.iter().filter(|one| one.name.eq_ignore_ascii_case("telephone-event"));
        events.map(|format| format.payload_type)
    }

    pub(super) fn content(&self, payload_type: u8) -> (Content, Tick) {
        let Some((name, clock)) = self.find(payload_type) else {
            return (Content::Media, Tick::default());
        };
        let content = if name.eq_ignore_ascii_case("telephone-event") {
            Content::Event
        } else if name.eq_ignore_ascii_case("CN") {
            Content::Noise
        } else {
            Content::Media
        };
        (content, Tick::of(clock))
    }
}

/// RFC 3551 6, tables 4 and 5. 19 is reserved; it was comfort noise before 13 was.
fn assigned(payload_type: u8) -> Option<(&'static str, u32)> {
    Some(match payload_type {
        0 => ("PCMU", 8_000),
        3 => ("GSM", 8_000),
        4 => ("G723", 8_000),
        5 => ("DVI4", 8_000),
        6 => ("DVI4", 16_000),
        7 => ("LPC", 8_000),
        8 => ("PCMA", 8_000),
        9 => ("G722", 8_000),
        10 | 11 => ("L16", 44_100),
        12 => ("QCELP", 8_000),
        13 | 19 => ("CN", 8_000),
        14 => ("MPA", 90_000),
        15 => ("G728", 8_000),
        16 => ("DVI4", 11_025),
        17 => ("DVI4", 22_050),
        18 => ("G729", 8_000),
        25 => ("CelB", 90_000),
        26 => ("JPEG", 90_000),
        28 => ("nv", 90_000),
        31 => ("H261", 90_000),
        32 => ("MPV", 90_000),
        33 => ("MP2T", 90_000),
        34 => ("H263", 90_000),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_of_a_description_are_bounded() {
        let named = |number: u8| Format::new(number, b"x", 16_000).unwrap();
        let all = (0..128).rev().map(|number| named(number % 128));
        let formats = Formats::new(all);
        let known = |number: &u8| formats.find(*number).is_some_and(|(name, _)| name == "x");
        let kept: Vec<u8> = (0..128).rev().filter(known).collect();
        // The first that are named; repeating one takes no room.
        assert_eq!(kept, (128 - FORMATS_MAX as u8..128).rev().collect::<Vec<_>>());
        let repeated = (0..128).map(|number| named(number / 4));
        assert!((0..32).all(|number| Formats::new(repeated.clone()).find(number).is_some()));
        // One beyond still has what is assigned to it.
        assert_eq!(formats.name(0), Some("PCMU"));
    }

    #[test]
    fn what_was_negotiated_comes_before_what_is_assigned() {
        let named = [(96, "opus", 48_000), (101, "TELEPHONE-EVENT", 8_000), (0, "X", 16_000)];
        let mut formats: Vec<_> = named
            .into_iter()
            .filter_map(|(number, name, clock)| Format::new(number, name.as_bytes(), clock))
            .collect();
        formats.extend(Format::new(96, b"later", 8_000));
        assert_eq!(Format::new(97, b"bad\x01name", 8_000), None);
        let formats = Formats::new(formats);
        assert_eq!(formats.name(96), Some("opus"));
        assert_eq!(formats.content(96), (Content::Media, Tick::of(48_000)));
        assert_eq!(formats.content(101).0, Content::Event);
        assert_eq!((formats.name(0), formats.name(8)), (Some("X"), Some("PCMA")));
        assert_eq!(formats.content(13), (Content::Noise, Tick::of(8_000)));
        assert_eq!(formats.content(99), (Content::Media, Tick::default()));
        let mut record = Vec::new();
        formats.save(Some(0), &mut record);
        assert_eq!(Formats::load(&record).map(|kept| kept.name(0) == Some("X")), Some(true));
        assert_eq!(Formats::load(&record).unwrap().events().collect::<Vec<_>>(), [101]);
        assert_eq!(Formats::load(&record[..record.len() - 1]), None);
    }
}
