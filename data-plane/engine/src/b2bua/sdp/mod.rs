//! Carries a body from one leg to the other: the session description in it gets our addresses and
//! ports, and where the trunks' settings ask for it our keys; every other octet stays (EM-29, EM-31).

mod exchange;
mod formats;
mod leg;
mod peering;
mod profile;
mod rescue;

use std::{net::IpAddr, ops::Range};

use ravelin_wire::{
    sdp::{self, Rewrite, SdpError, StreamRewrite},
    sip::{ContentType, HeaderName, Message, Part},
};
use smallvec::SmallVec;

use leg::LeftOut;
pub(crate) use leg::{Description, LegMedia};
pub(crate) use rescue::{Oddities, Oddity};

use super::{
    headers::push_number,
    hiding::{Hide, Veil},
};
use crate::{
    cause::Cause,
    core::Core,
    emergency::Passage,
    limits::STREAMS_PER_CALL_MAX,
    media::{
        Anchor, Place, Side,
        quality::{Format, Formats},
    },
    time::Instant,
};
use exchange::{Exchange, Told};

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// A session description was in it; where its sender wants media is staged in the anchor.
    pub description: bool,
    /// Every stream in it sends and receives (EM-60).
    pub both_ways: bool,
    /// What was done so that it could pass, in an emergency call.
    pub oddities: Oddities,
}

/// What a description is to the exchange (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Offer,
    Answer,
}

/// Where a body comes from and goes to.
#[derive(Debug)]
pub(crate) struct Crossing<'a> {
    pub now: Instant,
    /// Who sent it.
    pub from: Side,
    /// Where caller and callee get their ports.
    pub places: [Place; 2],
    /// `None` until the first description.
    pub anchor: &'a mut Option<Anchor>,
    /// `None`: a request that negotiates nothing; a description in it is refused.
    pub role: Option<Role>,
    /// The media side of the leg that it comes from, and of the one that it goes to.
    pub sender: &'a mut Description,
    pub receiver: &'a mut Description,
    /// Settings of the trunks of caller and callee.
    pub media: [LegMedia<'a>; 2],
    /// Where the signalling of caller and callee comes from.
    pub near: [IpAddr; 2],
    pub passage: Passage<'a>,
    /// It begins the call: there is nothing to fall back on if it is refused.
    pub first: bool,
    /// It is the offer that a re-INVITE without one asked for.
    pub asked_for: bool,
    /// Another attempt at the call may still be answered.
    pub others: bool,
}

/// Appends the body of `message` to `out`, fit for the other leg.
///
/// # Errors
/// The cause to refuse the message with; `out` may hold part of it then.
pub(crate) fn carry(
    core: &mut Core,
    message: &Message<'_>,
    mut crossing: Crossing<'_>,
    out: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let body = message.body();
    let kind = match message.content() {
        Some(kind) => kind,
        None if body.is_empty() => return Ok(Carried::default()),
        None => match untyped(message, crossing.passage)? {
            Some(kind) => kind,
            None => return Ok(Carried::default()),
        },
    };
    let found = kind.find_part(body, b"application", b"sdp");
    let Some(part) = found.filter(|part| !part.body.is_empty()) else {
        out.extend_from_slice(body);
        return Ok(Carried::default());
    };
    if is_coded(message) && !(crossing.first && crossing.passage.is_some()) {
        return Err(Cause::MediaType);
    }
    let before = body.get(..part.offset).unwrap_or_default();
    let after = body.get(part.offset.saturating_add(part.body.len())..).unwrap_or_default();
    out.extend_from_slice(before);
    let start = out.len();
    let carried = rewrite(core, message, &part, &mut crossing, out).inspect_err(|_| {
        // What negotiates nothing takes nothing back.
        if let Some(anchor) = crossing.anchor.as_mut().filter(|_| crossing.role.is_some()) {
            anchor.unstage(crossing.from);
        }
    })?;
    put_back(crossing.receiver, start, out);
    let length = out.len().saturating_sub(start);
    out.extend_from_slice(after);
    correct_part_length(body, &part, length, start.saturating_sub(before.len()), out);
    Ok(carried)
}

/// Whether the body is compressed, or otherwise not to be read as it is.
pub(crate) fn is_coded(message: &Message<'_>) -> bool {
    message
        .header(HeaderName::ContentEncoding)
        .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// A body without Content-Type breaks RFC 3261 7.4.1, and what cannot be told cannot be hidden: the
/// request is refused. Where a refusal would do harm, in an answer or on the way to a PSAP (EM-55),
/// a session description is taken for one, and anything else is left out.
fn untyped(
    message: &Message<'_>,
    passage: Passage<'_>,
) -> Result<Option<ContentType<'static>>, Cause> {
    if message.code().is_none() && passage.is_none() {
        return Err(Cause::MediaType);
    }
    let described = message.body().starts_with(b"v=0");
    Ok(described.then(|| ContentType::parse(b"application/sdp")).flatten())
}

/// Media streams that an offer asks for; 1 if there is none.
pub(crate) fn streams(message: &Message<'_>) -> usize {
    let kind = message.content();
    kind.and_then(|kind| kind.find_part(message.body(), b"application", b"sdp"))
        .and_then(|part| sdp::Description::parse(part.body).ok())
        .map_or(1, |offer| offer.medias().len().clamp(1, STREAMS_PER_CALL_MAX))
}

/// A description as the other leg may have it; that of an emergency call whatever it takes.
fn rewrite(
    core: &mut Core,
    message: &Message<'_>,
    part: &Part<'_>,
    crossing: &mut Crossing<'_>,
    out: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let refused = |_| Cause::NotAcceptable;
    if crossing.passage.is_none() {
        let parsed = sdp::Description::parse(part.body).map_err(refused)?;
        return cross(core, message, part.body, parsed, crossing, &mut Oddities::default(), out);
    }
    let [caller, callee] = crossing.near;
    let near = if crossing.from == Side::Caller { caller } else { callee };
    let coded = is_coded(message);
    let legible = if coded { &[][..] } else { part.body };
    let mut text = Vec::new();
    let mut oddities = make_legible(legible, part.body, near, crossing, None, &mut text);
    let parsed = sdp::Description::parse(&text).map_err(refused)?;
    let mut streams = parsed.medias().len();
    // With no stream at all it may ask for none (RFC 3264 5), or be one of which nothing can be read.
    let nothing = streams == 0 && !oddities.is_empty();
    let first = crossing.first && crossing.role == Some(Role::Offer);
    if nothing && !first {
        return Err(Cause::NotAcceptable);
    }
    if !nothing {
        let start = out.len();
        match cross(core, message, &text, parsed, crossing, &mut oddities, out) {
            Err(Cause::MediaPortsFull) => return Err(Cause::MediaPortsFull),
            Err(_) if first => out.truncate(start),
            done => return done,
        }
    }
    oddities.note(Oddity::Substituted);
    if nothing {
        oddities.note(Oddity::NoAddress);
    }
    if streams >= STREAMS_PER_CALL_MAX {
        // There must be room for it.
        text.clear();
        let places = STREAMS_PER_CALL_MAX - 1..sdp::streams(legible);
        make_legible(legible, part.body, near, crossing, Some(places), &mut text);
        streams = sdp::streams(&text);
    }
    rescue::substitute(near, &mut text);
    let parsed = sdp::Description::parse(&text).map_err(refused)?;
    let carried = cross(core, message, &text, parsed, crossing, &mut oddities, out)?;
    // The caller is answered what it asked for, and of that nothing is taken; if nobody knows what
    // that was, the audio.
    crossing.sender.offered = streams.max(usize::from(nothing));
    Ok(carried)
}

/// Writes what can be read of a description to `out`, without the streams in these places, or if it is
/// not said which, without those that the audio has to come in front of; gives what was done.
fn make_legible(
    legible: &[u8],
    body: &[u8],
    near: IpAddr,
    crossing: &mut Crossing<'_>,
    places: Option<Range<usize>>,
    out: &mut Vec<u8>,
) -> Oddities {
    let sender = &mut *crossing.sender;
    let offer = crossing.role == Some(Role::Offer);
    // What was left out once has no place on the other leg: not in the next offer either.
    let before = Some(sender.left_out.places.clone()).filter(|before| !before.is_empty());
    let before = before.filter(|before| !offer || before.end <= sdp::streams(legible));
    let places = places.or(before);
    let places = places.unwrap_or_else(|| sdp::crowd(legible, STREAMS_PER_CALL_MAX));
    let mut narrow = Vec::new();
    let mut oddities = Oddities::default();
    let (legible, body) = if places.is_empty() {
        if offer {
            sender.left_out = LeftOut::default();
        }
        (legible, body)
    } else {
        let answer = sdp::leave_out(legible, &places, &mut narrow);
        if offer {
            oddities.note(Oddity::Mended);
            oddities.fault = Some(SdpError::TooManyMedia);
            sender.left_out = LeftOut { places, answer };
        }
        (narrow.as_slice(), narrow.as_slice())
    };
    let (found, excess) = match rescue::mend(legible, near, out) {
        Some((found, excess)) => (found, excess),
        None => {
            out.extend_from_slice(body);
            Default::default()
        }
    };
    oddities.add(found);
    if offer {
        sender.excess = excess;
    }
    oddities
}

/// Gives the receiver back its own m-lines that were left out of what the other party knows.
fn put_back(receiver: &Description, start: usize, out: &mut Vec<u8>) {
    let LeftOut { places, answer } = &receiver.left_out;
    if !places.is_empty() {
        let text = out.split_off(start);
        sdp::put_back(&text, places.start, answer, out);
    }
}

fn cross(
    core: &mut Core,
    message: &Message<'_>,
    text: &[u8],
    mut parsed: sdp::Description<'_>,
    crossing: &mut Crossing<'_>,
    oddities: &mut Oddities,
    out: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let role = crossing.role.ok_or(Cause::MediaType)?;
    // An answer has as many m-lines as its offer (RFC 3264 6): what it has beyond answers nothing.
    if role == Role::Answer {
        parsed.truncate(crossing.receiver.offered);
    }
    let medias = parsed.medias();
    // On the way to a PSAP what is too much is refused alone, for want of ports (EM-62).
    if medias.len() > STREAMS_PER_CALL_MAX && crossing.passage.is_none() {
        return Err(Cause::CallTooLarge);
    }
    // Streams that were refused at the end need no ports. A description without streams needs an
    // address all the same: that of one stream.
    let needed = medias.iter().rposition(|media| media.port != 0).map_or(1, |last| last + 1);
    reserve(core, crossing, needed.min(STREAMS_PER_CALL_MAX), version_of(&parsed))?;
    if let Some(anchor) = crossing.anchor.as_mut() {
        if crossing.first && role == Role::Offer && crossing.from == Side::Caller {
            // Whoever was heard before the answer has failed.
            core.media.hang_up_callee(crossing.now, anchor);
        }
        for (index, media) in medias.iter().enumerate() {
            let maps = media.rtp_maps();
            let formats =
                maps.filter_map(|map| Format::new(map.payload, map.encoding, map.clock_hz));
            anchor.stage_formats(crossing.from, index, Formats::new(formats));
        }
    }
    let Core { media, keys, .. } = core;
    let mut random = |octets: &mut [u8]| keys.fill(octets);
    let mut exchange = Exchange::of(crossing, media, &mut random)?;
    exchange.oddities = *oddities;
    let strip_keys = !exchange.end_to_end();
    let outcome = match role {
        Role::Offer => exchange.offer(&parsed)?,
        Role::Answer => exchange.answer(&parsed)?,
    };
    *oddities = exchange.oddities;
    let streams: SmallVec<[StreamRewrite<'_>; 2]> =
        outcome.told.iter().map(Told::rewrite).collect();
    let to = exchange.from.other();
    let lines = exchange.session_lines(&outcome.told);
    let placeholder =
        exchange.rescued() || medias.iter().any(|media| peering::is_placeholder(&parsed, media));
    let address = exchange.media.local(exchange.anchor, to, 0).ok_or(Cause::MediaPortsFull)?.ip();
    let receiver = exchange.receiver;
    let version = receiver.version_of(text, &streams, &outcome.tail);
    let nobody = Hide { hosts: [&[], &[]], by: &[], call_id: &[] };
    let veil = Veil::of(message, nobody);
    let with = Rewrite {
        username: b"-",
        id: receiver.id,
        version,
        address,
        streams: &streams,
        strip_keys,
        lines,
        placeholder,
        tail: &outcome.tail,
        inside: veil.hosts(),
    };
    sdp::rewrite_parsed(&parsed, &with, out).map_err(|_| Cause::NotAcceptable)?;
    Ok(Carried { description: true, both_ways: outcome.both_ways, oddities: *oddities })
}

/// Whether the media of a description is reached by IPv6; `None`: it does not say.
fn version_of(parsed: &sdp::Description<'_>) -> Option<bool> {
    let in_use = parsed.medias().iter().filter(|media| media.port != 0);
    let mut addresses = in_use.filter_map(|media| parsed.connection_of(media)?.address);
    addresses.find(|address| !address.is_unspecified()).map(|ip| ip.to_canonical().is_ipv6())
}

/// Sees to it that the call has ports for `streams` streams, on the callee's side in the realm of the
/// callee that is tried now, and on the caller's of the version of IP that its offer names: it may
/// signal by the other (RFC 6157 4.1).
fn reserve(
    core: &mut Core,
    crossing: &mut Crossing<'_>,
    streams: usize,
    v6: Option<bool>,
) -> Result<(), Cause> {
    let [mut caller, callee] = crossing.places;
    let Core { media, counters, .. } = core;
    if let Some(v6) = v6.filter(|_| crossing.from == Side::Caller)
        && media.serves_by(caller.realm, v6)
    {
        caller.v6 = v6;
    }
    let (now, passage) = (crossing.now, crossing.passage);
    let reserved = match &mut *crossing.anchor {
        Some(anchor) => {
            let moved = if anchor.place(Side::Callee) == callee {
                Ok(())
            } else {
                media.move_callee(now, anchor, callee, crossing.others, passage, counters)
            };
            moved.and_then(|()| media.extend(now, anchor, streams, passage, counters))
        }
        empty => media
            .allocate(now, caller, callee, streams, passage, counters)
            .map(|drawn| *empty = Some(drawn)),
    };
    reserved.map_err(|_| Cause::MediaPortsFull)
}

/// A part of a multipart body may carry a Content-Length of its own: it stays true.
fn correct_part_length(
    body: &[u8],
    part: &Part<'_>,
    length: usize,
    base: usize,
    out: &mut Vec<u8>,
) {
    let Some(value) = part.header(HeaderName::ContentLength) else { return };
    // Where the value stands in the body: both are slices of the same memory.
    let Some(at) = (value.as_ptr() as usize).checked_sub(body.as_ptr() as usize) else { return };
    let (start, end) = (base.saturating_add(at), base.saturating_add(at + value.len()));
    if end > out.len() || start > end {
        return;
    }
    let mut digits = Vec::with_capacity(8);
    push_number(length as u64, &mut digits);
    out.splice(start..end, digits);
}
