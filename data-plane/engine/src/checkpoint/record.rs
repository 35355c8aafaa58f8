//! What is kept of a confirmed call. Names, not indices: the restart may have another config.

use std::{borrow::Cow, net::SocketAddr};

use ravelin_contract::cdr::MediaCount;
use smallvec::SmallVec;

use super::{
    Refused,
    layout::{Header, Reader, Writer, open},
};
use crate::{
    b2bua::{call::CALL_ID_LEN, dialog::Parts},
    ids::{TAG_LEN, TagText},
    limits::STREAMS_PER_CALL_MAX,
    media::{Nat, Remote},
    time::{Instant, Now},
};

/// A confirmed call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record<'a> {
    pub header: Header,
    pub id: [u8; CALL_ID_LEN],
    /// Restarts that the call has lived through.
    pub adopted: u16,
    /// Config version that decided.
    pub snapshot: u64,
    pub class: u8,
    pub preempts: bool,
    pub early_offer: bool,
    pub node_permit: bool,
    pub trunk_permit: bool,
    pub started: Now,
    pub ring_at: Option<Instant>,
    pub answer_at: Option<Instant>,
    pub end: Option<Ended>,
    pub source: SocketAddr,
    pub inbound: Option<&'a str>,
    pub route: Option<&'a str>,
    pub emergency: Option<Emergency<'a>>,
    /// Site and the rule that chose it.
    pub location: Option<(&'a str, u8)>,
    pub identity_in: Option<&'a str>,
    pub from: &'a [u8],
    pub to: &'a [u8],
    /// What came from caller and callee up to now.
    pub counts: [MediaCount; 2],
    pub caller: LegRecord<'a>,
    pub callee: LegRecord<'a>,
    /// The attempts that are told of in records, the answered one among them.
    pub attempts: SmallVec<[AttemptRecord<'a>; 1]>,
    pub winner: u16,
    /// Attempts that found no room.
    pub left_out: u16,
    pub anchor: Option<AnchorRecord<'a>>,
}

/// How a call ended whose parties have not both confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub at: Instant,
    pub by: u8,
    pub cause: u16,
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Emergency<'a> {
    pub site: Option<&'a str>,
    pub chain: SmallVec<[&'a str; 8]>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct LegRecord<'a> {
    pub dialog: Parts<'a>,
    pub listener: &'a str,
    pub hop: HopRecord<'a>,
    pub behind_nat: bool,
    /// o= id, version, and what was told last.
    pub description: (u64, u64, Option<u64>),
    /// Our keys of its streams, and what was done to descriptions of its party: see
    /// `Description::save_keys`.
    pub keys: Cow<'a, [u8]>,
    /// CSeq of the INVITE whose 2xx waits for its ACK.
    pub awaits_ack: Option<u32>,
    /// An INVITE of the peer inside the call waits for the other party: where its answer goes, and
    /// what that repeats of it.
    pub asked: Option<AskedRecord<'a>>,
    pub goodbye: u8,
    pub user: &'a [u8],
    pub peer_host: &'a [u8],
}

/// A request that is still to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AskedRecord<'a> {
    pub transport: u8,
    pub listener: &'a str,
    pub to: SocketAddr,
    pub head: &'a [u8],
}

impl<'a> AskedRecord<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, Refused> {
        Ok(Self {
            transport: from.u8()?,
            listener: from.text()?,
            to: from.address()?,
            head: from.bytes()?,
        })
    }
}

/// The way of our requests. Connections end with the process: what is kept is where they led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HopRecord<'a> {
    /// 0 UDP, 1 TCP, 2 TLS.
    pub transport: u8,
    pub listener: &'a str,
    pub to: SocketAddr,
    pub tcp: Option<(&'a str, SocketAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttemptRecord<'a> {
    pub number: u16,
    pub trunk: Option<&'a str>,
    pub target_index: u16,
    pub target: SocketAddr,
    pub started: Instant,
    pub ring_at: Option<Instant>,
    pub answer_at: Option<Instant>,
    pub end_at: Option<Instant>,
    pub status: u16,
    pub cause: u16,
    pub identity_out: &'a str,
    pub attestation_rule: Option<&'a str>,
    /// Empty for the answered one: its leg has it.
    pub call_id: &'a [u8],
    pub permit: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct AnchorRecord<'a> {
    /// Realm, and whether by IPv6, of caller and callee.
    pub places: [(&'a str, bool); 2],
    pub streams: SmallVec<[[HalfRecord<'a>; 2]; 1]>,
}

/// One end of one stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HalfRecord<'a> {
    /// Our RTP address.
    pub local: SocketAddr,
    pub generation: u32,
    pub remote: Remote,
    pub last_packet: Option<Instant>,
    /// What the parts of the media path keep of themselves.
    pub parts: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Refused> {
        let (header, body) = open(bytes)?;
        let mut from = Reader::new(body);
        let record = Self::read(header, &mut from)?;
        if from.is_empty() { Ok(record) } else { Err(Refused::Content) }
    }

    fn read(header: Header, from: &mut Reader<'a>) -> Result<Self, Refused> {
        Ok(Self {
            header,
            id: from.array()?,
            adopted: from.u16()?,
            snapshot: from.u64()?,
            class: from.u8()?,
            preempts: from.flag()?,
            early_offer: from.flag()?,
            node_permit: from.flag()?,
            trunk_permit: from.flag()?,
            started: Now { mono: from.instant()?, unix_ms: from.u64()? },
            ring_at: from.optional(Reader::instant)?,
            answer_at: from.optional(Reader::instant)?,
            end: from.optional(|from| {
                let (at, by) = (from.instant()?, from.u8()?);
                Ok(Ended { at, by, cause: from.u16()?, status: from.u16()? })
            })?,
            source: from.address()?,
            inbound: from.optional(Reader::text)?,
            route: from.optional(Reader::text)?,
            emergency: from.optional(|from| {
                let site = from.optional(Reader::text)?;
                let count = from.u8()?;
                let chain = (0..count).map(|_| from.text()).collect::<Result<_, _>>()?;
                Ok(Emergency { site, chain })
            })?,
            location: from.optional(|from| Ok((from.text()?, from.u8()?)))?,
            identity_in: from.optional(Reader::text)?,
            from: from.bytes()?,
            to: from.bytes()?,
            counts: [read_count(from)?, read_count(from)?],
            caller: LegRecord::read(from)?,
            callee: LegRecord::read(from)?,
            attempts: {
                let count = from.u16()?;
                let read = |_| AttemptRecord::read(from);
                (0..count).map(read).collect::<Result<_, _>>()?
            },
            winner: from.u16()?,
            left_out: from.u16()?,
            anchor: from.optional(AnchorRecord::read)?,
        })
    }

    /// Takes out everything that is secret: keys of SRTP, ICE and DTLS. Without them the call cannot
    /// go on ([`super::NotAdopted::Media`]); it can still be ended and written down.
    pub(super) fn forget_keys(&mut self) {
        self.anchor = None;
        for leg in [&mut self.caller, &mut self.callee] {
            leg.keys = Cow::Borrowed(&[]);
        }
    }

    /// Appends the body.
    pub(super) fn write(&self, into: &mut Writer<'_>) {
        into.0.extend_from_slice(&self.id);
        into.u16(self.adopted);
        into.u64(self.snapshot);
        into.u8(self.class);
        into.flag(self.preempts);
        into.flag(self.early_offer);
        into.flag(self.node_permit);
        into.flag(self.trunk_permit);
        into.instant(self.started.mono);
        into.u64(self.started.unix_ms);
        into.optional(self.ring_at, Writer::instant);
        into.optional(self.answer_at, Writer::instant);
        into.optional(self.end, |into, end| {
            into.instant(end.at);
            into.u8(end.by);
            into.u16(end.cause);
            into.u16(end.status);
        });
        into.address(self.source);
        into.optional(self.inbound, write_text);
        into.optional(self.route, write_text);
        into.optional(self.emergency.as_ref(), |into, emergency| {
            into.optional(emergency.site, write_text);
            into.u8(u8::try_from(emergency.chain.len()).unwrap_or(u8::MAX));
            for trunk in emergency.chain.iter().take(usize::from(u8::MAX)) {
                write_text(into, trunk);
            }
        });
        into.optional(self.location, |into, (site, rule)| {
            write_text(into, site);
            into.u8(rule);
        });
        into.optional(self.identity_in, write_text);
        into.bytes(self.from);
        into.bytes(self.to);
        for count in self.counts {
            for value in [count.packets, count.bytes, count.rtcp_packets, count.dropped] {
                into.u64(value);
            }
        }
        self.caller.write(into);
        self.callee.write(into);
        into.u16(u16::try_from(self.attempts.len()).unwrap_or(u16::MAX));
        for attempt in &self.attempts {
            attempt.write(into);
        }
        into.u16(self.winner);
        into.u16(self.left_out);
        into.optional(self.anchor.as_ref(), |into, anchor| anchor.write(into));
    }
}

fn write_text(into: &mut Writer<'_>, text: &str) {
    into.bytes(text.as_bytes());
}

fn read_count(from: &mut Reader<'_>) -> Result<MediaCount, Refused> {
    Ok(MediaCount {
        packets: from.u64()?,
        bytes: from.u64()?,
        rtcp_packets: from.u64()?,
        dropped: from.u64()?,
    })
}

impl<'a> LegRecord<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, Refused> {
        let dialog = Parts {
            identity: from.bytes()?,
            call_id_end: from.u16()?,
            to_end: from.u16()?,
            local_tag: from.array::<TAG_LEN>()? as TagText,
            remote_tag: from.bytes()?,
            target: from.bytes()?,
            routes: from.bytes()?,
            strict: from.flag()?,
            local_cseq: from.u32()?,
            remote_cseq: from.optional(Reader::u32)?,
        };
        let bound = dialog.call_id_end.min(dialog.to_end);
        if usize::from(dialog.call_id_end.max(dialog.to_end)) > dialog.identity.len()
            || bound != dialog.call_id_end
        {
            return Err(Refused::Content);
        }
        Ok(Self {
            dialog,
            listener: from.text()?,
            hop: HopRecord {
                transport: from.u8()?,
                listener: from.text()?,
                to: from.address()?,
                tcp: from.optional(|from| Ok((from.text()?, from.address()?)))?,
            },
            behind_nat: from.flag()?,
            description: (from.u64()?, from.u64()?, from.optional(Reader::u64)?),
            keys: Cow::Borrowed(from.bytes()?),
            awaits_ack: from.optional(Reader::u32)?,
            asked: from.optional(AskedRecord::read)?,
            goodbye: from.u8()?,
            user: from.bytes()?,
            peer_host: from.bytes()?,
        })
    }

    fn write(&self, into: &mut Writer<'_>) {
        let dialog = &self.dialog;
        into.bytes(dialog.identity);
        into.u16(dialog.call_id_end);
        into.u16(dialog.to_end);
        into.0.extend_from_slice(&dialog.local_tag);
        into.bytes(dialog.remote_tag);
        into.bytes(dialog.target);
        into.bytes(dialog.routes);
        into.flag(dialog.strict);
        into.u32(dialog.local_cseq);
        into.optional(dialog.remote_cseq, Writer::u32);
        write_text(into, self.listener);
        into.u8(self.hop.transport);
        write_text(into, self.hop.listener);
        into.address(self.hop.to);
        into.optional(self.hop.tcp, |into, (listener, to)| {
            write_text(into, listener);
            into.address(to);
        });
        into.flag(self.behind_nat);
        let (id, version, told) = self.description;
        into.u64(id);
        into.u64(version);
        into.optional(told, Writer::u64);
        into.bytes(&self.keys);
        into.optional(self.awaits_ack, Writer::u32);
        into.optional(self.asked, |into, asked| {
            into.u8(asked.transport);
            write_text(into, asked.listener);
            into.address(asked.to);
            into.bytes(asked.head);
        });
        into.u8(self.goodbye);
        into.bytes(self.user);
        into.bytes(self.peer_host);
    }
}

impl<'a> AttemptRecord<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, Refused> {
        Ok(Self {
            number: from.u16()?,
            trunk: from.optional(Reader::text)?,
            target_index: from.u16()?,
            target: from.address()?,
            started: from.instant()?,
            ring_at: from.optional(Reader::instant)?,
            answer_at: from.optional(Reader::instant)?,
            end_at: from.optional(Reader::instant)?,
            status: from.u16()?,
            cause: from.u16()?,
            identity_out: from.text()?,
            attestation_rule: from.optional(Reader::text)?,
            call_id: from.bytes()?,
            permit: from.flag()?,
        })
    }

    fn write(&self, into: &mut Writer<'_>) {
        into.u16(self.number);
        into.optional(self.trunk, write_text);
        into.u16(self.target_index);
        into.address(self.target);
        into.instant(self.started);
        into.optional(self.ring_at, Writer::instant);
        into.optional(self.answer_at, Writer::instant);
        into.optional(self.end_at, Writer::instant);
        into.u16(self.status);
        into.u16(self.cause);
        write_text(into, self.identity_out);
        into.optional(self.attestation_rule, write_text);
        into.bytes(self.call_id);
        into.flag(self.permit);
    }
}

impl<'a> AnchorRecord<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, Refused> {
        let places = [(from.text()?, from.flag()?), (from.text()?, from.flag()?)];
        let count = usize::from(from.u8()?);
        if count > STREAMS_PER_CALL_MAX {
            return Err(Refused::Content);
        }
        let mut stream = |_| Ok([HalfRecord::read(from)?, HalfRecord::read(from)?]);
        let streams = (0..count).map(&mut stream).collect::<Result<_, _>>()?;
        Ok(Self { places, streams })
    }

    fn write(&self, into: &mut Writer<'_>) {
        for (realm, v6) in self.places {
            write_text(into, realm);
            into.flag(v6);
        }
        into.u8(u8::try_from(self.streams.len()).unwrap_or(u8::MAX));
        for half in self.streams.iter().flatten() {
            half.write(into);
        }
    }
}

impl<'a> HalfRecord<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, Refused> {
        Ok(Self {
            local: from.address()?,
            generation: from.u32()?,
            remote: Remote {
                rtp: from.optional(Reader::address)?,
                rtcp: from.optional(Reader::address)?,
                rtcp_mux: from.flag()?,
                sends: from.flag()?,
                receives: from.flag()?,
                nat: match from.optional(Reader::address)? {
                    Some(near) => Nat::Latch { near: near.ip() },
                    None => Nat::Signalled,
                },
                encrypted: from.flag()?,
                datagrams: from.flag()?,
            },
            last_packet: from.optional(Reader::instant)?,
            parts: from.bytes()?,
        })
    }

    fn write(&self, into: &mut Writer<'_>) {
        into.address(self.local);
        into.u32(self.generation);
        into.optional(self.remote.rtp, Writer::address);
        into.optional(self.remote.rtcp, Writer::address);
        into.flag(self.remote.rtcp_mux);
        into.flag(self.remote.sends);
        into.flag(self.remote.receives);
        let near = match self.remote.nat {
            Nat::Latch { near } => Some(SocketAddr::new(near, 0)),
            Nat::Signalled => None,
        };
        into.optional(near, Writer::address);
        into.flag(self.remote.encrypted);
        into.flag(self.remote.datagrams);
        into.optional(self.last_packet, Writer::instant);
        into.bytes(self.parts);
    }
}
