//! Protecting what is sent to a party.

use smallvec::SmallVec;

use crate::{
    keys::{Keys, Mki},
    limits::{RTCP_LIFETIME, RTP_LIFETIME},
    packet::{ENCRYPTED, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, Rtp, rtcp_sender},
    refusal::Refusal,
    replay::{Place, Sources},
    suite::Suite,
    transform::{Session, Transform, gcm_seal, nonce},
};

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) mki: Option<Mki>,
    pub(crate) session: Session,
    /// Packets that may still be protected, or opened, with this master key.
    pub(crate) rtp_left: u64,
    pub(crate) rtcp_left: u64,
}

impl Active {
    /// None at all if the crypto library has no memory: then nothing is opened or sealed.
    pub(crate) fn of(keys: &Keys) -> SmallVec<[Self; 1]> {
        let lifetime = |agreed: Option<u64>, most: u64| agreed.map_or(most, |it| it.min(most));
        let derived: Option<_> = keys
            .masters()
            .iter()
            .map(|master| {
                Some(Self {
                    mki: master.mki,
                    session: Session::derive(&master.key)?,
                    rtp_left: lifetime(master.lifetime, RTP_LIFETIME),
                    rtcp_left: lifetime(master.lifetime, RTCP_LIFETIME),
                })
            })
            .collect();
        derived.unwrap_or_default()
    }

    /// As [`Self::of`]; a master key that is one of `before` has no more left than `was` has.
    pub(crate) fn again(keys: &Keys, before: &Keys, was: &[Self]) -> SmallVec<[Self; 1]> {
        let mut active = Self::of(keys);
        for (own, master) in active.iter_mut().zip(keys.masters()) {
            let known = before.masters().iter().zip(was).find(|(of, _)| of.key == master.key);
            if let Some((_, was)) = known {
                own.rtp_left = own.rtp_left.min(was.rtp_left);
                own.rtcp_left = own.rtcp_left.min(was.rtcp_left);
            }
        }
        active
    }
}

/// One direction of one m-line, towards a party: session keys, rollover counters and the indices
/// that were used, per source.
#[derive(Debug)]
pub struct Sealer {
    suite: Suite,
    /// The first one that is not spent protects.
    pub(crate) masters: SmallVec<[Active; 1]>,
    pub(crate) sources: Sources,
    /// Index of the next SRTCP packet, over all sources: no pair of source and index comes twice.
    pub(crate) rtcp_index: u64,
    unencrypted_rtcp: bool,
    /// A call record claims indices; SRTCP indices up to this one; and one was used beyond them.
    pub(crate) is_kept: bool,
    pub(crate) rtcp_kept: u64,
    pub(crate) outrun: bool,
}

impl Sealer {
    /// Begins with rollover counters of zero (RFC 4568 6.4).
    #[must_use]
    pub fn new(keys: &Keys) -> Self {
        Self {
            suite: keys.suite(),
            masters: Active::of(keys),
            sources: Sources::default(),
            rtcp_index: 0,
            unencrypted_rtcp: keys.unencrypted_rtcp,
            is_kept: false,
            rtcp_kept: 0,
            outrun: false,
        }
    }

    /// Goes on with `keys`, of which one is in `before`, those it had: other parameters are agreed
    /// for a key, or one comes back that was in use before. No index is used twice. No call record
    /// claims any before [`Self::kept`].
    pub fn resume(&mut self, before: &Keys, keys: &Keys) {
        self.suite = keys.suite();
        self.masters = Active::again(keys, before, &self.masters);
        self.unencrypted_rtcp = keys.unencrypted_rtcp;
        self.not_kept();
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Octets that [`Self::seal_rtp`] adds.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        self.mki_bytes() + self.suite.rtp_tag_bytes()
    }

    /// Octets that [`Self::seal_rtcp`] adds.
    #[must_use]
    pub fn rtcp_overhead(&self) -> usize {
        RTCP_INDEX_BYTES + self.mki_bytes() + self.suite.rtcp_tag_bytes()
    }

    /// SRTP packets that all master keys together may still protect.
    #[must_use]
    pub fn rtp_left(&self) -> u64 {
        self.masters.iter().fold(0, |sum, master| sum.saturating_add(master.rtp_left))
    }

    /// SRTCP packets that all master keys together may still protect.
    #[must_use]
    pub fn rtcp_left(&self) -> u64 {
        let left = self.masters.iter().fold(0, |sum: u64, key| sum.saturating_add(key.rtcp_left));
        left.min(RTCP_LIFETIME.saturating_sub(self.rtcp_index))
    }

    fn mki_bytes(&self) -> usize {
        self.masters.first().and_then(|master| master.mki).map_or(0, Mki::bytes)
    }

    /// Protects the RTP packet in the first `length` octets of `buffer`, in place; gives its new
    /// length.
    ///
    /// A source that begins its sequence numbers anew would use indices twice, or lose its receiver.
    /// From its second packet on it is numbered on where it was: one packet is lost.
    ///
    /// # Errors
    /// [`Refusal`]; nothing may be sent then, and `buffer` may be changed.
    pub fn seal_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let overhead = self.rtp_overhead();
        let packet = buffer.get(..length).ok_or(Refusal::Room)?;
        let Rtp { header, sequence, ssrc } = Rtp::read(packet).ok_or(Refusal::Malformed)?;
        let whole = buffer.get_mut(..length + overhead).ok_or(Refusal::Room)?;
        let full = self.sources.is_full();
        let index = match self.sources.numbering(ssrc) {
            Some((window, renumber)) => {
                let index = match window.place(sequence.wrapping_add(renumber.offset)) {
                    Place::Fresh(index) => index,
                    Place::Far => renumber.stray(sequence, window.highest())?,
                    Place::Refused(refusal) => return Err(refusal),
                };
                if renumber.offset != 0 {
                    let [.., high, low] = index.to_be_bytes();
                    copy_start(&[high, low], whole.get_mut(2..).unwrap_or_default());
                }
                index
            }
            None if full => return Err(Refusal::Sources),
            None => u64::from(sequence),
        };
        let master = self.masters.iter_mut().find(|master| master.rtp_left > 0);
        let master = master.ok_or(Refusal::Spent)?;
        // The index counts as used whatever comes of the packet.
        let unclaimed = self.sources.mark(ssrc, index);
        self.outrun |= unclaimed && self.is_kept;
        master.rtp_left -= 1;
        let (packet, trailer) = whole.split_at_mut(length);
        let (clear, payload) = packet.split_at_mut(header);
        let sealed = match &master.session.rtp {
            Transform::Gcm { key, salt } => {
                // MKI behind the tag (RFC 7714 8.2, 13.2).
                let (tag_place, mki_place) = trailer.split_at_mut(self.suite.rtp_tag_bytes());
                write_mki(master.mki, mki_place);
                gcm_seal(key, nonce(salt, ssrc, index), clear, payload)
                    .map(|tag| copy_start(tag.as_ref(), tag_place))
            }
            Transform::Counter(counter) => {
                let [_, _, _, _, rollovers @ ..] = (index >> 16).to_be_bytes();
                copy_start(&rollovers, trailer);
                counter.crypt(ssrc, index, payload).and_then(|()| {
                    let tag = counter.tag(whole.get(..length + 4)?);
                    place(master.mki, tag.as_ref(), whole.get_mut(length..)?);
                    Some(())
                })
            }
        };
        sealed.map(|()| length + overhead).ok_or(Refusal::Malformed)
    }

    /// Protects the RTCP packet, compound or not, in the first `length` octets of `buffer`, in
    /// place; gives its new length.
    ///
    /// # Errors
    /// [`Refusal`]; nothing may be sent then, and `buffer` may be changed.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let overhead = self.rtcp_overhead();
        let packet = buffer.get(..length).ok_or(Refusal::Room)?;
        let ssrc = rtcp_sender(packet).ok_or(Refusal::Malformed)?;
        let whole = buffer.get_mut(..length + overhead).ok_or(Refusal::Room)?;
        let index = self.rtcp_index;
        if index >= RTCP_LIFETIME {
            return Err(Refusal::Spent);
        }
        let master = self.masters.iter_mut().find(|master| master.rtcp_left > 0);
        let master = master.ok_or(Refusal::Spent)?;
        self.rtcp_index += 1;
        self.outrun |= self.is_kept && self.rtcp_index > self.rtcp_kept;
        master.rtcp_left -= 1;
        let flag = if self.unencrypted_rtcp { 0 } else { ENCRYPTED };
        let number = u32::try_from(index).map_err(|_| Refusal::Spent)?;
        let word = (flag | number).to_be_bytes();
        let sealed = match &master.session.rtcp {
            Transform::Gcm { key, salt } => {
                let nonce = nonce(salt, ssrc, index);
                let tag = if self.unencrypted_rtcp {
                    copy_start(&word, whole.get_mut(length..).unwrap_or_default());
                    whole
                        .get(..length + RTCP_INDEX_BYTES)
                        .and_then(|clear| gcm_seal(key, nonce, clear, &mut []))
                } else {
                    let (packet, _) = whole.split_at_mut(length);
                    let (header, payload) = packet.split_at_mut(RTCP_HEADER_BYTES);
                    gcm_seal(key, nonce, &header_and(header, word), payload)
                };
                tag.and_then(|tag| {
                    let trailer = whole.get_mut(length..)?;
                    let (tag_place, rest) = trailer.split_at_mut(self.suite.rtcp_tag_bytes());
                    let (word_place, mki_place) = rest.split_at_mut(RTCP_INDEX_BYTES);
                    copy_start(tag.as_ref(), tag_place);
                    copy_start(&word, word_place);
                    write_mki(master.mki, mki_place);
                    Some(())
                })
            }
            Transform::Counter(counter) => {
                let (packet, trailer) = whole.split_at_mut(length);
                copy_start(&word, trailer);
                let (_, payload) = packet.split_at_mut(RTCP_HEADER_BYTES);
                let encrypted = if self.unencrypted_rtcp {
                    Some(())
                } else {
                    counter.crypt(ssrc, index, payload)
                };
                encrypted.and_then(|()| {
                    let signed = whole.get(..length + RTCP_INDEX_BYTES)?;
                    let tag = counter.tag(signed);
                    place(master.mki, tag.as_ref(), whole.get_mut(length + RTCP_INDEX_BYTES..)?);
                    Some(())
                })
            }
        };
        sealed.map(|()| length + overhead).ok_or(Refusal::Malformed)
    }
}

/// The clear part of an SRTCP packet under GCM: its header and the index word (RFC 7714 9.2).
pub(crate) fn header_and(header: &[u8], word: [u8; 4]) -> [u8; 12] {
    let mut clear = [0; 12];
    for (octet, from) in clear.iter_mut().zip(header.iter().chain(&word)) {
        *octet = *from;
    }
    clear
}

fn copy_start(from: &[u8], into: &mut [u8]) {
    for (octet, from) in into.iter_mut().zip(from) {
        *octet = *from;
    }
}

fn write_mki(mki: Option<Mki>, into: &mut [u8]) {
    if let Some(mki) = mki {
        mki.write(into);
    }
}

/// MKI, then as much of the tag as there is room for.
fn place(mki: Option<Mki>, tag: &[u8], into: &mut [u8]) {
    let (mki_place, tag_place) = into.split_at_mut(mki.map_or(0, Mki::bytes));
    write_mki(mki, mki_place);
    copy_start(tag, tag_place);
}
