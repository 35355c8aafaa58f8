//! Payload types of an offer and of its answer, and what their numbers are to each other.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use ravelin_wire::sdp::Media;
use smallvec::SmallVec;

use crate::media::PayloadMap;

/// What a payload type stands for: encoding, clock and channels, in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Codec {
    digest: u64,
    /// RFC 2198: packets hold the numbers of other formats.
    redundant: bool,
}

/// The formats of one description of a stream, in its order.
#[derive(Clone, Debug, Default)]
pub(super) struct Formats(SmallVec<[(u8, Codec); 4]>);

/// Encodings of RFC 3551 6 whose number says what they are: number, name, clock, channels.
const STATIC: [(u8, &str, u32, u8); 24] = [
    (0, "PCMU", 8_000, 1),
    (3, "GSM", 8_000, 1),
    (4, "G723", 8_000, 1),
    (5, "DVI4", 8_000, 1),
    (6, "DVI4", 16_000, 1),
    (7, "LPC", 8_000, 1),
    (8, "PCMA", 8_000, 1),
    (9, "G722", 8_000, 1),
    (10, "L16", 44_100, 2),
    (11, "L16", 44_100, 1),
    (12, "QCELP", 8_000, 1),
    (13, "CN", 8_000, 1),
    (14, "MPA", 90_000, 1),
    (15, "G728", 8_000, 1),
    (16, "DVI4", 11_025, 1),
    (17, "DVI4", 22_050, 1),
    (18, "G729", 8_000, 1),
    (25, "CelB", 90_000, 1),
    (26, "JPEG", 90_000, 1),
    (28, "nv", 90_000, 1),
    (31, "H261", 90_000, 1),
    (32, "MPV", 90_000, 1),
    (33, "MP2T", 90_000, 1),
    (34, "H263", 90_000, 1),
];

impl Formats {
    pub(super) fn of(media: &Media<'_>) -> Self {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let mut formats: SmallVec<[(u8, Codec); 4]> = SmallVec::new();
        for payload in media.formats().filter_map(number).filter(|payload: &u8| *payload < 128) {
            let told = media.rtp_maps().find(|map| map.payload == payload);
            let codec = match told {
                Some(map) => Some(codec(map.encoding, map.clock_hz, map.channels)),
                None => STATIC
                    .iter()
                    .find(|known| known.0 == payload)
                    .map(|known| codec(known.1.as_bytes(), known.2, known.3)),
            };
            if let Some(codec) = codec {
                formats.push((payload, codec));
            }
        }
        Self(formats)
    }

    /// The only number of a codec; `None` if there are more or none.
    fn only(&self, codec: Codec) -> Option<u8> {
        let mut found = self.0.iter().filter(|format| format.1 == codec);
        found.next().map(|format| format.0).filter(|_| found.next().is_none())
    }

    fn has(&self, payload: u8) -> bool {
        self.0.iter().any(|format| format.0 == payload)
    }
}

/// Clock and channels belong to it: telephone-event/8000 and telephone-event/48000 are two formats,
/// each for the codecs of its clock (RFC 4733 2.1).
fn codec(encoding: &[u8], clock_hz: u32, channels: u8) -> Codec {
    let name: SmallVec<[u8; 32]> = encoding.iter().map(u8::to_ascii_lowercase).collect();
    let redundant = name.as_slice() == b"red";
    let digest = FixedState::with_seed(0).hash_one((name.as_slice(), clock_hz, channels.max(1)));
    Codec { digest, redundant }
}

/// How the numbers of an answer differ from those of the offer.
#[derive(Debug)]
pub(super) struct Renumbering {
    /// From the answer's numbers to the offer's, for the description that the offerer gets: it SHOULD
    /// see its own numbers (RFC 3264 6.1).
    pub told: [u8; 128],
    /// For packets of the offerer: the answerer wants its numbers.
    pub to_answerer: Box<PayloadMap>,
    /// For packets of the answerer: it should use the offer's numbers, but some use their own both
    /// ways.
    pub to_offerer: Box<PayloadMap>,
}

/// Compares an answer with its offer; `None`: every codec has one number.
pub(super) fn renumber(offer: &Formats, answer: &Formats) -> Option<Renumbering> {
    let mut pairs: SmallVec<[(u8, u8, Codec); 4]> = SmallVec::new();
    for (theirs, codec) in &answer.0 {
        let as_offered = offer.0.contains(&(*theirs, *codec));
        if !as_offered
            && answer.only(*codec).is_some()
            && let Some(ours) = offer.only(*codec)
        {
            pairs.push((ours, *theirs, *codec));
        }
    }
    if pairs.is_empty() {
        return None;
    }
    let mut told = PayloadMap::SAME;
    let (mut forth, mut back) = (PayloadMap::SAME, PayloadMap::SAME);
    let set = |table: &mut [u8; 128], from: u8, to: u8| {
        if let Some(slot) = table.get_mut(usize::from(from)) {
            *slot = to;
        }
    };
    for (ours, theirs, _) in &pairs {
        set(&mut told, *theirs, *ours);
        set(&mut forth, *ours, *theirs);
        // A number of the offer keeps its meaning.
        if !offer.has(*theirs) {
            set(&mut back, *theirs, *ours);
        }
    }
    let red = |formats: &Formats| {
        formats.0.iter().find(|format| format.1.redundant).map(|format| format.0)
    };
    // Those of the offer are used in both directions, whatever the answer calls it.
    let redundant = red(offer);
    Some(Renumbering {
        told,
        to_answerer: Box::new(PayloadMap::new(forth, redundant, redundant)),
        to_offerer: Box::new(PayloadMap::new(back, redundant, red(answer))),
    })
}

#[cfg(test)]
mod tests {
    use ravelin_wire::sdp::Description;

    use super::*;

    fn formats(lines: &str) -> Formats {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nt=0 0\n{lines}\n");
        Formats::of(&Description::parse(text.as_bytes()).unwrap().medias()[0])
    }

    const OFFER: &str = "m=audio 9 RTP/AVP 111 0 8 101 110\na=rtpmap:111 opus/48000/2\n\
        a=rtpmap:101 telephone-event/8000\na=rtpmap:110 telephone-event/48000";

    #[test]
    fn equal_numbers_need_no_table() {
        let offer = formats(OFFER);
        for answer in [
            OFFER,
            "m=audio 9 RTP/AVP 0 101\na=rtpmap:101 Telephone-Event/8000",
            "m=audio 9 RTP/AVP 0\na=rtpmap:0 PCMU/8000/1",
            "m=audio 9 RTP/AVP 8",
            // Not in the offer at all: what it means is for the parties to know.
            "m=audio 9 RTP/AVP 8 97\na=rtpmap:97 speex/8000",
        ] {
            assert!(renumber(&offer, &formats(answer)).is_none(), "{answer}");
        }
    }

    #[test]
    fn the_number_follows_name_and_clock() {
        let answer = "m=audio 9 RTP/AVP 96 126 0\na=rtpmap:96 opus/48000/2\n\
            a=rtpmap:126 TELEPHONE-EVENT/48000";
        let found = renumber(&formats(OFFER), &formats(answer)).unwrap();
        assert_eq!((found.told[96], found.told[126], found.told[0]), (111, 110, 0));
        let mut forth = [0x80, 111];
        found.to_answerer.apply(&mut forth);
        assert_eq!(forth[1], 96);
        let mut event = [0x80, 0x80 | 110];
        found.to_answerer.apply(&mut event);
        assert_eq!(event[1], 0x80 | 126, "the marker stays");
        let mut eight = [0x80, 101];
        found.to_answerer.apply(&mut eight);
        assert_eq!(eight[1], 101, "the other clock's events");
        for (sent, got) in [(126, 110), (110, 110), (96, 111), (0, 0)] {
            let mut back = [0x80, sent];
            found.to_offerer.apply(&mut back);
            assert_eq!(back[1], got, "{sent}");
        }
    }

    #[test]
    fn swapped_numbers_keep_the_offers_meaning_on_the_way_back() {
        let offer = "m=audio 9 RTP/AVP 96 97\na=rtpmap:96 speex/8000\na=rtpmap:97 iLBC/8000";
        let answer = "m=audio 9 RTP/AVP 97 96\na=rtpmap:97 speex/8000\na=rtpmap:96 iLBC/8000";
        let found = renumber(&formats(offer), &formats(answer)).unwrap();
        assert_eq!((found.told[96], found.told[97]), (97, 96));
        let mut packet = [0x80, 96];
        found.to_answerer.apply(&mut packet);
        assert_eq!(packet[1], 97);
        found.to_offerer.apply(&mut packet);
        assert_eq!(packet[1], 97, "it is ours, by the offer");
    }

    #[test]
    fn what_has_two_numbers_is_left_alone() {
        let offer = "m=video 9 RTP/AVP 96 97\na=rtpmap:96 H264/90000\na=rtpmap:97 H264/90000";
        let answer = "m=video 9 RTP/AVP 99\na=rtpmap:99 H264/90000";
        assert!(renumber(&formats(offer), &formats(answer)).is_none());
    }
}
