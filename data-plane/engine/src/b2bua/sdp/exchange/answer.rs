//! The answer to an offer of ours: what of it can be used, and the answer that the other leg gets.

use ravelin_srtp::{Keying, dtls::Setup, sdes};
use ravelin_wire::sdp::{self, Direction, Media};

use super::{Exchange, Outcome, Told, both_ways, crypto_lines, push_crypto, security};
use crate::{
    b2bua::sdp::{
        formats::{self, Formats, Renumbering},
        peering::{self, Described, TheirDtls, TheirIce},
        profile::{Protection, Transport},
    },
    cause::Cause,
    media::{Remote, ice::IceTerms, peering::Peering},
};

impl Exchange<'_> {
    /// The sender answers our offer: makes our answer to the receiver's.
    ///
    /// # Errors
    /// Why nothing of it can be used.
    pub(in crate::b2bua::sdp) fn answer(
        &mut self,
        parsed: &sdp::Description<'_>,
    ) -> Result<Outcome, Cause> {
        let medias = parsed.medias();
        let mut outcome = Outcome { both_ways: true, ..Outcome::default() };
        let mut why = Cause::NotAcceptable;
        for (index, media) in medias.iter().enumerate() {
            let transport = Transport::of(parsed, media);
            let taken = match media.port {
                0 => Err(Cause::NotAcceptable),
                _ => self.destination(parsed, index, media).and_then(|_| {
                    let keying = self.accept(parsed, index, media, transport)?;
                    let peering = self.answered_peering(parsed, index, media, transport)?;
                    Ok((keying, peering))
                }),
            };
            if taken.is_ok() {
                self.note_destination(parsed, index, media);
            }
            let direction = parsed.direction_of(media);
            outcome.both_ways &= taken.is_err() || both_ways(parsed, media, direction);
            outcome.told.push(match taken {
                Ok((keying, peering)) => {
                    let mux = self.sender.stream(index).is_some_and(|own| own.offer.rtcp_mux);
                    let mux = mux && media.rtcp_mux();
                    let remote = self.remote(parsed, index, media, transport, mux);
                    self.anchor.stage(self.from, index, remote);
                    let security = security(&peering, &keying);
                    self.anchor.stage_security(self.from, index, security);
                    self.anchor.stage_peering(self.from, index, peering);
                    self.restage(index);
                    let mut told = self.make_answer(index, media, transport);
                    told.direction = self.restrained(index, direction);
                    told
                }
                Err(cause) => {
                    if media.port != 0 && cause != Cause::NotAcceptable {
                        why = cause;
                    }
                    self.anchor.stage(self.from, index, Remote::NONE);
                    self.anchor.stage(self.from.other(), index, Remote::NONE);
                    self.refused(index)
                }
            });
        }
        for index in medias.len()..self.receiver.offered.max(self.anchor.streams()) {
            self.anchor.stage(self.from, index, Remote::NONE);
            self.anchor.stage(self.from.other(), index, Remote::NONE);
            if let Some(stream) = self.receiver.streams.get(index)
                && index < self.receiver.offered
            {
                stream.offer.refuse(&mut outcome.tail);
            }
        }
        outcome.tail.extend_from_slice(&self.receiver.excess);
        let asked = medias.iter().any(|media| media.port != 0);
        if asked && outcome.told.iter().all(|told| told.port == 0) {
            return Err(why);
        }
        Ok(outcome)
    }

    /// The PSAP was not told of the caller's hold: the caller is answered no more than it offered
    /// (RFC 3264 6.1).
    fn restrained(&self, index: usize, answered: Direction) -> Option<Direction> {
        let offered = self.receiver.streams.get(index).filter(|_| self.emergency)?.offer.direction;
        let allowed = offered.reversed();
        let sends = answered.sends() && allowed.sends();
        let direction = match (sends, answered.receives() && allowed.receives()) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        };
        (direction != answered).then_some(direction)
    }

    /// An answer before this one, or that of another branch, may have refused what this one takes.
    fn restage(&mut self, index: usize) {
        let to = self.from.other();
        let Some(stream) = self.receiver.streams.get(index) else { return };
        let pending = self.anchor.staged(to, index);
        let holds = pending.or_else(|| self.media.remote(self.anchor, to, index));
        if holds != Some(stream.offer.remote) {
            self.anchor.stage(to, index, stream.offer.remote);
            self.anchor.stage_peering(to, index, stream.offer.peering.clone());
            let security = security(&stream.offer.peering, &stream.offer.keying);
            self.anchor.stage_security(to, index, security);
        }
    }

    /// The keys agreed with the sender for one stream, if we have any.
    fn accept(
        &mut self,
        parsed: &sdp::Description<'_>,
        index: usize,
        media: &Media<'_>,
        transport: Transport,
    ) -> Result<Option<Box<Keying>>, Cause> {
        let (end_to_end, emergency) = (self.end_to_end(), self.emergency);
        let stream = self.sender.stream(index).ok_or(Cause::Internal)?;
        let offered = &stream.offer;
        // RFC 3264 6: the answer to audio is audio.
        if !offered.kind.eq_ignore_ascii_case(media.kind_text) {
            return Err(Cause::NotAcceptable);
        }
        if !offered.usable || offered.protection.is_some() != transport.is_rtp() {
            return Err(Cause::NotAcceptable);
        }
        let Transport::Rtp { protection, .. } = transport else {
            return match transport {
                Transport::Foreign => Err(Cause::NotAcceptable),
                _ => Ok(None),
            };
        };
        if end_to_end {
            return Ok(None);
        }
        match (offered.protection, protection) {
            (Some(Protection::Plain), Protection::Plain) => Ok(None),
            (Some(Protection::Sdes), Protection::Sdes) => {
                let value = crypto_lines(media).next().ok_or(Cause::EncryptionRequired)?;
                let keying =
                    sdes::accept(&offered.lines, value).map_err(|_| Cause::NoCommonEncryption)?;
                let line = offered.lines.iter().find(|line| line.keys == keying.ours).cloned();
                stream.offer.chosen = line;
                Ok(Some(Box::new(keying)))
            }
            (Some(Protection::Dtls), Protection::Dtls) => {
                let theirs = TheirDtls::of(parsed, media, Described::Answer);
                theirs.map(|_| None).ok_or(Cause::NoCommonEncryption)
            }
            // Against RFC 3264 6, but a call for help goes on.
            (Some(_), Protection::Plain) if emergency => {
                stream.plain = true;
                Ok(None)
            }
            (Some(Protection::Plain), _) => Err(Cause::NotAcceptable),
            _ => Err(Cause::EncryptionRequired),
        }
    }

    /// Our m-line in answer to the receiver's offer.
    fn make_answer(&mut self, index: usize, media: &Media<'_>, transport: Transport) -> Told {
        let (end_to_end, to) = (self.end_to_end(), self.from.other());
        let port = self.media.local(self.anchor, to, index).map_or(0, |local| local.port());
        let mut told = Told { port, ..Told::default() };
        let Some(stream) = self.receiver.stream(index) else { return Told::default() };
        told.mid.clone_from(&stream.offer.mid);
        if !transport.is_rtp() {
            return told;
        }
        if !end_to_end {
            told.proto = Some(stream.offer.proto.clone());
            if let Some(chosen) = stream.offer.chosen.take() {
                push_crypto(&stream.reply(&chosen, self.random), &mut told.lines);
                stream.offer.chosen = Some(chosen);
            }
            if let Some((own, setup)) = self.media.dtls_fingerprint().zip(stream.offer.setup) {
                let id = stream.offer.peering.dtls.as_ref().and_then(|terms| terms.own_tls_id);
                peering::push_dtls(own, setup, id, &mut told.lines);
            }
        }
        let mux = stream.offer.rtcp_mux;
        match &stream.offer.ice {
            Some(TheirIce::Mismatch) => told.lines.extend_from_slice(peering::MISMATCH),
            Some(theirs) => {
                let own = self.media.ice_local(self.anchor, to, index, theirs.remote());
                let at = self.media.local(self.anchor, to, index);
                if let Some((own, at)) = own.zip(at).filter(|_| theirs.remote().is_some()) {
                    told.ice = true;
                    peering::push_ice(&own, at, mux, &mut told.lines);
                }
            }
            None => {}
        }
        told.rtcp_port = (!mux).then_some(port | 1);
        told.rtcp_mux = (mux != media.rtcp_mux()).then_some(mux);
        // The number is authenticated with the packet: it stays what the parties agreed on.
        let sealed = end_to_end && media.is_secure();
        let renumbered = (!sealed)
            .then(|| formats::renumber(&stream.offer.formats, &Formats::of(media)))
            .flatten();
        match renumbered {
            Some(Renumbering { told: numbers, to_answerer, to_offerer }) => {
                told.payloads = Some(Box::new(numbers));
                self.anchor.stage_payload(to, index, Some(to_answerer));
                self.anchor.stage_payload(self.from, index, Some(to_offerer));
            }
            None => {
                self.anchor.stage_payload(to, index, None);
                self.anchor.stage_payload(self.from, index, None);
            }
        }
        told
    }

    /// The refusal of a stream that the receiver offered.
    fn refused(&mut self, index: usize) -> Told {
        let end_to_end = self.end_to_end();
        let offer = self.receiver.streams.get(index).map(|stream| &stream.offer);
        let proto = offer.filter(|offer| !end_to_end && !offer.proto.is_empty());
        Told {
            proto: proto.map(|offer| offer.proto.clone()),
            kind: offer.map(|offer| offer.kind.clone()).filter(|kind| !kind.is_empty()),
            mid: offer.and_then(|offer| offer.mid.clone()),
            ..Told::default()
        }
    }

    /// ICE and DTLS of an answer to our offer.
    fn answered_peering(
        &mut self,
        parsed: &sdp::Description<'_>,
        index: usize,
        media: &Media<'_>,
        transport: Transport,
    ) -> Result<Peering, Cause> {
        let mut agreed = Peering::default();
        let Transport::Rtp { protection, .. } = transport else { return Ok(agreed) };
        if self.sender_media.ice()
            && let TheirIce::Full(remote) = TheirIce::of(parsed, media)
        {
            let offered = self.sender.streams.get(index).and_then(|stream| stream.ice);
            let in_force = || self.media.ice_local(self.anchor, self.from, index, None);
            let local = offered.or_else(in_force);
            agreed.ice = local.map(|local| IceTerms { local, remote: Some(remote) });
        }
        if protection == Protection::Dtls && !self.end_to_end() {
            let dtls = TheirDtls::of(parsed, media, Described::Answer);
            let dtls = dtls.ok_or(Cause::NoCommonEncryption)?;
            let role = Setup::ActPass.role(dtls.setup);
            let own = self.sender.streams.get(index).and_then(|stream| stream.tls_id);
            let terms = dtls.terms(role, own).ok_or(Cause::NoCommonEncryption)?;
            agreed.dtls = Some(terms);
        }
        Ok(agreed)
    }
}
