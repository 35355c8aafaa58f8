//! A description without some of its streams, for calls that are not to be lost because their audio
//! stands behind more streams than are relayed (EM-55).

use std::ops::Range;

use super::{
    media::Media,
    mend::{kind_of, put_right, refused},
};

/// Which streams have to be left out so that the first audio that is asked for is among the first
/// `room`: none, if it is, or if there is no audio.
#[must_use]
pub fn crowd(input: &[u8], room: usize) -> Range<usize> {
    let last = room.saturating_sub(1);
    match sections(input).position(|section| is_audio(section.value)) {
        Some(audio) if audio >= room => last..audio,
        _ => 0..0,
    }
}

/// m-lines of a description, those that cannot be read included.
#[must_use]
pub fn streams(input: &[u8]) -> usize {
    sections(input).count()
}

/// Appends `input` to `out` without the streams in these places; gives their m-lines, refused, each with
/// its `a=mid` and its end.
pub fn leave_out(input: &[u8], places: &Range<usize>, out: &mut Vec<u8>) -> Vec<u8> {
    let mut answer = Vec::new();
    let session = sections(input).next().map_or(input.len(), |first| first.start);
    out.extend_from_slice(input.get(..session).unwrap_or_default());
    for (place, section) in sections(input).enumerate() {
        let text = input.get(section.start..section.end).unwrap_or_default();
        if !places.contains(&place) {
            out.extend_from_slice(text);
            continue;
        }
        let mut line = Vec::new();
        put_right(section.value, &mut line);
        refused(&line, &mut answer);
        let mut lines = text.split(|c| matches!(c, b'\r' | b'\n'));
        if let Some(mid) = lines.find(|line| line.starts_with(b"a=mid:") && is_token(line)) {
            answer.extend_from_slice(mid);
            answer.extend_from_slice(b"\r\n");
        }
    }
    answer
}

/// Appends `text` to `out`, with `lines` in front of the stream in place `at`, or behind the last.
pub fn put_back(text: &[u8], at: usize, lines: &[u8], out: &mut Vec<u8>) {
    let middle = sections(text).nth(at).map_or(text.len(), |section| section.start);
    let (before, after) = text.split_at_checked(middle).unwrap_or((text, &[]));
    out.extend_from_slice(before);
    out.extend_from_slice(lines);
    out.extend_from_slice(after);
}

/// An m-line and what follows it up to the next.
struct Section<'a> {
    start: usize,
    end: usize,
    /// Of the m-line.
    value: &'a [u8],
}

fn sections(input: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut at = 0;
    let mut starts = input
        .split_inclusive(|c| matches!(c, b'\r' | b'\n'))
        .filter_map(move |line| {
            let start = at;
            at += line.len();
            kind_of(line).filter(|(kind, _)| *kind == b'm').map(|(_, value)| (start, value))
        })
        .peekable();
    std::iter::from_fn(move || {
        let (start, value) = starts.next()?;
        let end = starts.peek().map_or(input.len(), |(next, _)| *next);
        Some(Section { start, end, value })
    })
}

/// Whether audio over UDP is asked for.
fn is_audio(value: &[u8]) -> bool {
    let mut line = Vec::new();
    put_right(value, &mut line);
    let media = Media::parse_line(&line);
    media.is_some_and(|media| {
        media.port != 0 && media.kind_text == b"audio" && !media.proto.starts_with(b"TCP/")
    })
}

fn is_token(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n";
    const VIDEO: &str = "m=video 5000 RTP/AVP 96\r\na=mid:v\r\na=x\r\n";
    const AUDIO: &str = "m=audio 4000 RTP/AVP 0\r\na=ptime:20\r\n";

    #[test]
    fn audio_is_among_the_first() {
        let of = |videos: usize| format!("{HEAD}{}{AUDIO}{VIDEO}", VIDEO.repeat(videos));
        for videos in 0..3 {
            assert_eq!(crowd(of(videos).as_bytes(), 3), 0..0, "{videos}");
        }
        for videos in [3, 4, 20] {
            let text = of(videos);
            let places = crowd(text.as_bytes(), 3);
            assert_eq!(places, 2..videos);
            let mut out = Vec::new();
            let answer = leave_out(text.as_bytes(), &places, &mut out);
            assert_eq!(out, of(2).into_bytes());
            let line = "m=video 0 RTP/AVP 96\r\na=mid:v\r\n";
            assert_eq!(answer, line.repeat(videos - 2).into_bytes());
            let mut whole = Vec::new();
            put_back(&out, places.start, &answer, &mut whole);
            let kinds = |text: &[u8]| sections(text).map(|one| one.value[0]).collect::<Vec<_>>();
            assert_eq!(kinds(&whole), kinds(text.as_bytes()));
            assert_eq!(streams(&whole), videos + 2);
        }
    }

    #[test]
    fn audio_that_cannot_be_relayed_is_none() {
        for line in ["m=audio 0 RTP/AVP 0", "m=audio 9 TCP/RTP/AVP 0", "m=audio", "m="] {
            let text = format!("{HEAD}{}{line}\r\n{AUDIO}", VIDEO.repeat(2));
            assert_eq!(crowd(text.as_bytes(), 3), 2..3, "{line}");
            let text = format!("{HEAD}{}{line}\r\n", VIDEO.repeat(3));
            assert_eq!(crowd(text.as_bytes(), 3), 0..0, "{line}");
        }
    }

    #[test]
    fn what_has_no_streams_stays() {
        let mut out = Vec::new();
        assert_eq!(leave_out(HEAD.as_bytes(), &(0..9), &mut out), b"");
        put_back(b"", 7, b"m=x\r\n", &mut out);
        assert_eq!(out, format!("{HEAD}m=x\r\n").into_bytes());
    }
}
