//! Authenticating and decrypting what a party sends.

use smallvec::SmallVec;

use crate::{
    keys::{Keys, Mki},
    packet::{ENCRYPTED, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, Rtp, rtcp_sender},
    refusal::Refusal,
    replay::{Place, Sources, estimate},
    seal::{Active, header_and},
    suite::Suite,
    transform::{Transform, gcm_open, nonce},
};

/// One direction of one m-line, from a party: session keys, and per source the rollover counter and
/// the indices that were seen. Only a packet whose tag verifies changes anything.
#[derive(Debug)]
pub struct Opener {
    suite: Suite,
    pub(crate) masters: SmallVec<[Active; 1]>,
    pub(crate) rtp: Sources,
    pub(crate) rtcp: Sources,
    /// Highest indices under the keys before these.
    inherited: SmallVec<[(u32, u64); 2]>,
}

/// Rollover counters to try for a source not heard before: at most three.
type Candidates = SmallVec<[u64; 3]>;

impl Opener {
    /// Begins without any source.
    #[must_use]
    pub fn new(keys: &Keys) -> Self {
        Self {
            suite: keys.suite(),
            masters: Active::of(keys),
            rtp: Sources::default(),
            rtcp: Sources::default(),
            inherited: SmallVec::new(),
        }
    }

    /// As [`Self::new`], for keys that follow those of `before` on the same stream. Their sender may
    /// let the rollover counter go on (RFC 3711 3.3.1) or begin again (RFC 4568 7.1.4): the tag of
    /// its first packet tells.
    #[must_use]
    pub fn following(before: &Self, keys: &Keys) -> Self {
        let mut opener = Self::new(keys);
        opener.inherited = before.rtp.highest().collect();
        opener
    }

    /// Goes on with `keys`, of which one is in `before`, those it had: other parameters are agreed
    /// for a key, or one comes back that was in use before. What was let in once is not let in again.
    pub fn resume(&mut self, before: &Keys, keys: &Keys) {
        self.suite = keys.suite();
        self.masters = Active::again(keys, before, &self.masters);
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Sources that were heard: their tag verified.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.rtp.highest().count()
    }

    /// SRTP packets that all master keys together may still open.
    #[must_use]
    pub fn rtp_left(&self) -> u64 {
        self.masters.iter().fold(0, |sum, master| sum.saturating_add(master.rtp_left))
    }

    fn mki_bytes(&self) -> usize {
        self.masters.first().and_then(|master| master.mki).map_or(0, Mki::bytes)
    }

    /// Which master key `mki` names; the only one if there are no MKIs.
    fn master_of(&self, mki: &[u8]) -> Result<usize, Refusal> {
        let named = |master: &Active| master.mki.is_none_or(|own| own.is(mki));
        self.masters.iter().position(named).ok_or(Refusal::MasterKey)
    }

    /// The index of a packet, in the order in which they are tried, and what it is if it is none of
    /// them.
    ///
    /// A number far behind the others is a packet that is too old, or its sender has gone on beyond
    /// half the numbers, unheard or in a jump: if the tag fits to the first index that is ahead, it
    /// is that, for none ahead was used. One tag for each such packet is all that this costs.
    fn candidates(&self, ssrc: u32, sequence: u16) -> Result<(Candidates, Refusal), Refusal> {
        if let Some(window) = self.rtp.find(ssrc) {
            return match window.place(sequence) {
                Place::Fresh(index) => {
                    Ok((Candidates::from_iter([index]), Refusal::Authentication))
                }
                Place::Far => {
                    let ahead = window.ahead(sequence).ok_or(Refusal::Replay)?;
                    Ok((Candidates::from_iter([ahead]), Refusal::Replay))
                }
                Place::Refused(refusal) => Err(refusal),
            };
        }
        if self.rtp.is_full() {
            return Err(Refusal::Sources);
        }
        let at = u64::from(sequence);
        let mut candidates = Candidates::from_iter([at]);
        // The first packets may have been lost, and the wrap among them (RFC 4568 6.4).
        if sequence < 0x8000 {
            candidates.push(1 << 16 | at);
        }
        let before = self.inherited.iter().find(|(source, _)| *source == ssrc);
        if let Some(index) = before.and_then(|(_, index)| estimate(*index, sequence).ok())
            && !candidates.contains(&index)
        {
            candidates.push(index);
        }
        Ok((candidates, Refusal::Authentication))
    }

    /// Opens an SRTP packet into `out`, which must have room for all of `packet`; gives the length of
    /// the RTP packet.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then, and `out` holds nothing of use.
    pub fn open_rtp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let Rtp { header, sequence, ssrc } = Rtp::read(packet).ok_or(Refusal::Malformed)?;
        let (mki, tag) = (self.mki_bytes(), self.suite.rtp_tag_bytes());
        let length = packet.len().checked_sub(mki + tag).filter(|length| *length >= header);
        let length = length.ok_or(Refusal::Malformed)?;
        let out = out.get_mut(..packet.len()).ok_or(Refusal::Room)?;
        let trailer = packet.get(length..).unwrap_or_default();
        let (tag, mki) = if self.suite.is_aead() {
            trailer.split_at(tag)
        } else {
            let (mki, tag) = trailer.split_at(mki);
            (tag, mki)
        };
        let at = self.master_of(mki)?;
        let (candidates, otherwise) = self.candidates(ssrc, sequence)?;
        let master = self.masters.get_mut(at).ok_or(Refusal::MasterKey)?;
        if master.rtp_left == 0 {
            return Err(Refusal::Spent);
        }
        let (clear, data) = packet.get(..length).unwrap_or_default().split_at(header);
        let index = match &master.session.rtp {
            Transform::Gcm { key, salt } => {
                let (out_clear, out_data) = out.split_at_mut(header);
                out_clear.copy_from_slice(clear);
                let room = out_data.get_mut(..data.len()).ok_or(Refusal::Room)?;
                candidates.into_iter().find(|index| {
                    gcm_open(key, nonce(salt, ssrc, *index), clear, data, tag, room).is_some()
                })
            }
            Transform::Counter(counter) => {
                out.copy_from_slice(packet);
                let found = candidates.into_iter().find(|index| {
                    let [_, _, _, _, rollovers @ ..] = (index >> 16).to_be_bytes();
                    let Some(place) = out.get_mut(length..length + 4) else { return false };
                    place.copy_from_slice(&rollovers);
                    let signed = out.get(..length + 4);
                    signed.is_some_and(|signed| counter.verifies(signed, tag))
                });
                found.filter(|index| {
                    let data = out.get_mut(header..length);
                    data.and_then(|data| counter.crypt(ssrc, *index, data)).is_some()
                })
            }
        };
        let index = index.ok_or(otherwise)?;
        master.rtp_left -= 1;
        self.rtp.mark(ssrc, index);
        Ok(length)
    }

    /// Opens an SRTCP packet into `out`, which must have room for all of `packet`; gives the length
    /// of the RTCP packet. Whether it is encrypted is said by its E flag, which the tag covers.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then, and `out` holds nothing of use.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let ssrc = rtcp_sender(packet).ok_or(Refusal::Malformed)?;
        let (mki, tag) = (self.mki_bytes(), self.suite.rtcp_tag_bytes());
        let length = packet
            .len()
            .checked_sub(RTCP_INDEX_BYTES + mki + tag)
            .filter(|length| *length >= RTCP_HEADER_BYTES)
            .ok_or(Refusal::Malformed)?;
        let out = out.get_mut(..packet.len()).ok_or(Refusal::Room)?;
        let (plain, trailer) = packet.split_at(length);
        // Tag, word, MKI under GCM (RFC 7714 9.2); word, MKI, tag else (RFC 3711 3.4).
        let (tag, word, mki) = if self.suite.is_aead() {
            let (tag, rest) = trailer.split_at(tag);
            let (word, mki) = rest.split_at(RTCP_INDEX_BYTES);
            (tag, word, mki)
        } else {
            let (word, rest) = trailer.split_at(RTCP_INDEX_BYTES);
            let (mki, tag) = rest.split_at(mki);
            (tag, word, mki)
        };
        let word = *word.first_chunk::<4>().ok_or(Refusal::Malformed)?;
        let number = u32::from_be_bytes(word);
        let encrypted = number & ENCRYPTED != 0;
        let index = u64::from(number & !ENCRYPTED);
        let at = self.master_of(mki)?;
        match self.rtcp.find(ssrc) {
            Some(window) => window.check(index)?,
            None if self.rtcp.is_full() => return Err(Refusal::Sources),
            None => {}
        }
        let master = self.masters.get_mut(at).ok_or(Refusal::MasterKey)?;
        if master.rtcp_left == 0 {
            return Err(Refusal::Spent);
        }
        let (header, data) = plain.split_at(RTCP_HEADER_BYTES);
        let opened = match &master.session.rtcp {
            Transform::Gcm { key, salt } if encrypted => {
                let (out_header, out_data) = out.split_at_mut(RTCP_HEADER_BYTES);
                out_header.copy_from_slice(header);
                let room = out_data.get_mut(..data.len()).ok_or(Refusal::Room)?;
                let clear = header_and(header, word);
                gcm_open(key, nonce(salt, ssrc, index), &clear, data, tag, room)
            }
            Transform::Gcm { key, salt } => {
                let signed = out.get_mut(..length + RTCP_INDEX_BYTES).ok_or(Refusal::Room)?;
                for (octet, from) in signed.iter_mut().zip(plain.iter().chain(&word)) {
                    *octet = *from;
                }
                gcm_open(key, nonce(salt, ssrc, index), signed, &[], tag, &mut [])
            }
            Transform::Counter(counter) => {
                let signed = packet.get(..length + RTCP_INDEX_BYTES).unwrap_or_default();
                counter.verifies(signed, tag).then_some(()).and_then(|()| {
                    let out = out.get_mut(..length)?;
                    out.copy_from_slice(plain);
                    if encrypted {
                        counter.crypt(ssrc, index, out.get_mut(RTCP_HEADER_BYTES..)?)?;
                    }
                    Some(())
                })
            }
        };
        opened.ok_or(Refusal::Authentication)?;
        master.rtcp_left -= 1;
        self.rtcp.mark(ssrc, index);
        Ok(length)
    }
}
