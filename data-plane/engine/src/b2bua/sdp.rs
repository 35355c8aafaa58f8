//! Carries a body from one leg to the other: the session description in it gets our addresses and
//! ports, every other octet stays (EM-29, EM-31).

use std::{hash::BuildHasher, net::SocketAddr};

use foldhash::fast::FixedState;
use ravelin_wire::{
    sdp::{self, Direction, Rewrite, StreamRewrite},
    sip::{ContentType, HeaderName, Message, Part},
};
use smallvec::SmallVec;

use super::{
    headers::push_number,
    hiding::{Hide, Veil},
};
use crate::{
    cause::Cause,
    core::Core,
    emergency::Passage,
    limits::STREAMS_PER_CALL_MAX,
    media::{Anchor, Place, Remote, Side},
    time::Instant,
};

/// What we last told one peer about media: the o= line of that leg (RFC 3264 8).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Description {
    id: u64,
    version: u64,
    /// Of what the other side sent, so that the same description keeps its version.
    told: Option<u64>,
}

impl Description {
    /// `id` is unforeseeable; its upper bits are cut so that every parser can hold it.
    pub(crate) const fn new(id: u64) -> Self {
        Self { id: id >> 2, version: 0, told: None }
    }

    fn version_of(&mut self, input: &[u8], our_ports: &[StreamRewrite<'_>]) -> u64 {
        let mut digest = FixedState::with_seed(0).hash_one(input);
        for stream in our_ports {
            digest = digest.rotate_left(7) ^ u64::from(stream.port);
        }
        if self.told != Some(digest) {
            self.told = Some(digest);
            self.version += 1;
        }
        self.version
    }
}

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// A session description was in it; where its sender wants media is staged in the anchor.
    pub description: bool,
    /// Every stream in it sends and receives (EM-60).
    pub both_ways: bool,
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
    /// What the receiving peer was told before.
    pub description: &'a mut Description,
    pub passage: Passage<'a>,
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
    if message
        .header(HeaderName::ContentEncoding)
        .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    {
        return Err(Cause::MediaType);
    }
    let before = body.get(..part.offset).unwrap_or_default();
    let after = body.get(part.offset.saturating_add(part.body.len())..).unwrap_or_default();
    out.extend_from_slice(before);
    let start = out.len();
    let carried = rewrite(core, message, &part, &mut crossing, out)?;
    let length = out.len().saturating_sub(start);
    out.extend_from_slice(after);
    correct_part_length(body, &part, length, start.saturating_sub(before.len()), out);
    Ok(carried)
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

fn rewrite(
    core: &mut Core,
    message: &Message<'_>,
    part: &Part<'_>,
    crossing: &mut Crossing<'_>,
    out: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let parsed = sdp::Description::parse(part.body).map_err(|_| Cause::NotAcceptable)?;
    let medias = parsed.medias();
    if medias.len() > STREAMS_PER_CALL_MAX {
        return Err(Cause::CallTooLarge);
    }
    // A description without streams needs an address all the same: that of one stream.
    let (from, to) = (crossing.from, crossing.from.other());
    reserve(core, crossing, medias.len().max(1))?;
    let anchor = crossing.anchor.as_mut().ok_or(Cause::Internal)?;
    let mut streams: SmallVec<[StreamRewrite<'_>; 2]> = SmallVec::new();
    let mut both_ways = true;
    for (index, media) in medias.iter().enumerate() {
        // Only RTP can be relayed; another kind of stream is refused without harm to the rest
        // (EM-62).
        let usable = media.is_rtp() && media.port != 0;
        let direction = parsed.direction_of(media);
        let address = parsed
            .connection_of(media)
            .and_then(|connection| connection.address)
            .filter(|address| usable && !address.is_unspecified());
        let rtcp_address = media
            .rtcp()
            .and_then(|rtcp| rtcp.connection)
            .map_or(address, |connection| connection.address);
        let rtcp_mux = agree_on_mux(anchor, to, index, media.rtcp_mux());
        anchor.stage(
            from,
            index,
            Remote {
                rtp: address.map(|ip| SocketAddr::new(ip, media.port)),
                rtcp: rtcp_address
                    .zip(
                        media
                            .rtcp()
                            .map_or_else(|| media.port.checked_add(1), |rtcp| Some(rtcp.port)),
                    )
                    .filter(|_| usable)
                    .map(|(ip, port)| SocketAddr::new(ip, port)),
                rtcp_mux,
                sends: matches!(direction, Direction::SendRecv | Direction::SendOnly),
                receives: matches!(direction, Direction::SendRecv | Direction::RecvOnly),
                encrypted: media.is_secure(),
                ..Remote::NONE
            },
        );
        both_ways &= !usable || direction == Direction::SendRecv;
        let local = core.media.local(anchor, to, index).filter(|_| usable);
        streams.push(StreamRewrite {
            port: local.map_or(0, |local| local.port()),
            rtcp_port: local
                .filter(|_| media.rtcp().is_some() || !media.rtcp_mux())
                .map(|local| local.port() | 1),
            ..StreamRewrite::default()
        });
    }
    let asked = medias.iter().any(|media| media.port != 0);
    if asked && streams.iter().all(|stream| stream.port == 0) {
        return Err(Cause::NotAcceptable);
    }
    let address = core.media.local(anchor, to, 0).ok_or(Cause::MediaPortsFull)?.ip();
    let version = crossing.description.version_of(part.body, &streams);
    let nobody = Hide { hosts: [&[], &[]], by: &[], call_id: &[] };
    let veil = Veil::of(message, nobody);
    let with = Rewrite {
        username: b"-",
        id: crossing.description.id,
        version,
        address,
        streams: &streams,
        strip_keys: false,
        lines: b"",
        tail: b"",
        inside: veil.hosts(),
    };
    sdp::rewrite_parsed(&parsed, &with, out).map_err(|_| Cause::NotAcceptable)?;
    Ok(Carried { description: true, both_ways })
}

/// Whether stream `index` carries RTCP on its RTP ports: the attribute passes from end to end, so
/// both legs do or neither does. `other` made the offer if something is staged for it; without the
/// attribute in the answer its RTCP goes to its RTCP port (RFC 5761 5.1.1).
fn agree_on_mux(anchor: &mut Anchor, other: Side, index: usize, mux: bool) -> bool {
    let Some(offer) = anchor.staged(other, index) else { return mux };
    let agreed = mux && offer.rtcp_mux;
    anchor.stage(other, index, Remote { rtcp_mux: agreed, ..offer });
    agreed
}

/// Sees to it that the call has ports for `streams` streams, on the callee's side in the realm of the
/// callee that is tried now.
fn reserve(core: &mut Core, crossing: &mut Crossing<'_>, streams: usize) -> Result<(), Cause> {
    let [caller, callee] = crossing.places;
    let Core { media, counters, .. } = core;
    let (now, passage) = (crossing.now, crossing.passage);
    let reserved = match &mut *crossing.anchor {
        Some(anchor) => {
            let moved = if anchor.place(Side::Callee) == callee {
                Ok(())
            } else {
                media.move_side(now, anchor, Side::Callee, callee, passage, counters)
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
