//! SRTP between one party and us (RFC 3711): what comes from the party is opened, what goes to it is
//! sealed. A stream without a shield is plain, or SRTP that passes from end to end as it is.
//!
//! Keys that an offer or answer brings wait in the call's `Anchor` and take effect with it. Keys that
//! stay the same keep their rollover counters and replay windows, also over a time without them (see
//! `retired.rs`); new keys begin anew (RFC 4568 7.1.4). Until the first packet under a party's new keys its packets under the old ones are let in:
//! it changes over when it has seen the answer. A packet whose tag does not verify changes nothing
//! but a counter, however many come and wherever from (lessons.md 2.19).

use ravelin_srtp::{Keying, Keys, Opener, Refusal, Sealer};

use super::{
    endpoint::Packet,
    notice::{KEY_WARNING_PART, Notice},
    retired::Retired,
};
use crate::drops::DropReason;

/// How a stream is protected between one party and us.
#[derive(Debug, Default)]
pub enum Security {
    /// Not by us: RTP in the clear, or SRTP that passes from end to end as it is.
    #[default]
    None,
    /// SRTP under these keys.
    Keyed(Box<Keying>),
    /// SRTP whose keys DTLS has yet to give: nothing passes. A DTLS shield that has its keys keeps
    /// them.
    Awaiting,
}

impl Security {
    /// Takes effect in a shield. What it puts out of use goes to `retired`.
    pub(super) fn install(self, shield: &mut Option<Box<Shield>>, retired: &mut Retired) {
        match self {
            Self::None => retired.put(shield.take()),
            Self::Keyed(keying) => match shield {
                Some(shield) => shield.rekey(*keying, retired),
                None => *shield = Some(Box::new(Shield::again(*keying, retired))),
            },
            Self::Awaiting => {
                if !shield.as_ref().is_some_and(|shield| shield.by_dtls) {
                    retired.put(shield.replace(Box::new(Shield::awaiting())));
                }
            }
        }
    }
}

/// SRTP with one party, both ways.
#[derive(Debug)]
pub(super) struct Shield {
    /// `None`: DTLS has yet to give the keys.
    keyed: Option<Keyed>,
    by_dtls: bool,
    /// What is to be told of keys; taken at once.
    notice: Option<Notice>,
}

#[derive(Debug)]
struct Keyed {
    keying: Keying,
    opener: Opener,
    before: Option<Box<Before>>,
    sealer: Sealer,
    /// Packets that are left when the end of the keys is announced; `u64::MAX`: it was.
    warn: Warn,
}

/// The party's keys before these.
#[derive(Debug)]
struct Before {
    keys: Keys,
    opener: Opener,
    /// Its packets under them are let in: until its first one under these.
    live: bool,
}

/// When each direction's keys are told of.
#[derive(Debug)]
struct Warn {
    opener: u64,
    sealer: u64,
    /// That they are spent was told.
    spent: [bool; 2],
}

impl Warn {
    fn of(opener: &Opener, sealer: &Sealer) -> Self {
        Self {
            opener: opener.rtp_left() / KEY_WARNING_PART,
            sealer: sealer.rtp_left() / KEY_WARNING_PART,
            spent: [false; 2],
        }
    }
}

impl Shield {
    /// See [`super::MediaTable::read_ahead`].
    pub(super) fn read_ahead_to_open(&self) -> u64 {
        let keyed = self.keyed.as_ref();
        keyed.map_or(0, |keyed| keyed.opener.rtp_left() ^ keyed.opener.sources() as u64)
    }

    /// See [`super::MediaTable::read_ahead`].
    pub(super) fn read_ahead_to_seal(&self) -> u64 {
        self.keyed.as_ref().map_or(0, |keyed| keyed.sealer.rtp_left() ^ keyed.warn.sealer)
    }

    fn of(keying: Keying, opener: Opener, sealer: Sealer) -> Self {
        let warn = Warn::of(&opener, &sealer);
        let keyed = Keyed { opener, sealer, before: None, keying, warn };
        Self { keyed: Some(keyed), by_dtls: false, notice: None }
    }

    /// With the keys of an offer and its answer, which may have been in use before.
    fn again(keying: Keying, retired: &mut Retired) -> Self {
        let (opener, sealer) = (retired.opener(&keying.theirs), retired.sealer(&keying.ours));
        let opener = opener.unwrap_or_else(|| Opener::new(&keying.theirs));
        Self::of(keying, opener, sealer)
    }

    /// With the keys of a DTLS association.
    pub(super) fn of_dtls(keying: Keying) -> Self {
        let (opener, sealer) = (Opener::new(&keying.theirs), Sealer::new(&keying.ours));
        Self { by_dtls: true, ..Self::of(keying, opener, sealer) }
    }

    /// Is put out of use. Keys of DTLS never come back.
    pub(super) fn retire(self, retired: &mut Retired) {
        let Some(keyed) = self.keyed.filter(|_| !self.by_dtls) else { return };
        if let Some(before) = keyed.before {
            retired.put_opener(before.keys, before.opener);
        }
        retired.put_opener(keyed.keying.theirs, keyed.opener);
        retired.put_sealer(keyed.keying.ours, keyed.sealer);
    }

    /// Whether it seals with these keys.
    pub(super) fn seals_with(&self, keys: &Keys) -> bool {
        let keyed = self.keyed.as_ref().filter(|_| !self.by_dtls);
        keyed.is_some_and(|keyed| keyed.keying.ours.share_a_key_with(keys))
    }

    /// Without keys: nothing passes.
    pub(super) const fn awaiting() -> Self {
        Self { keyed: None, by_dtls: true, notice: None }
    }

    pub(super) const fn is_keyed(&self) -> bool {
        self.keyed.is_some()
    }

    /// Goes over to what was agreed anew, each direction apart.
    fn rekey(&mut self, keying: Keying, retired: &mut Retired) {
        let from_dtls = std::mem::take(&mut self.by_dtls);
        let Some(keyed) = &mut self.keyed else {
            *self = Self::again(keying, retired);
            return;
        };
        let Keying { ours, theirs } = std::mem::replace(&mut keyed.keying, keying);
        let keying = &keyed.keying;
        if ours != keying.ours {
            if ours.share_a_key_with(&keying.ours) {
                keyed.sealer.resume(&ours, &keying.ours);
            } else {
                let sealer = retired.sealer(&keying.ours);
                let before = std::mem::replace(&mut keyed.sealer, sealer);
                if !from_dtls {
                    retired.put_sealer(ours, before);
                }
            }
            keyed.warn.sealer = keyed.sealer.rtp_left() / KEY_WARNING_PART;
            keyed.warn.spent[1] = false;
        }
        if theirs != keying.theirs {
            if theirs.share_a_key_with(&keying.theirs) {
                keyed.opener.resume(&theirs, &keying.theirs);
            } else {
                if let Some(older) = keyed.before.take() {
                    retired.put_opener(older.keys, older.opener);
                }
                let fresh = || Opener::following(&keyed.opener, &keying.theirs);
                let opener = retired.opener(&keying.theirs).unwrap_or_else(fresh);
                let opener = std::mem::replace(&mut keyed.opener, opener);
                keyed.before = Some(Box::new(Before { keys: theirs, opener, live: true }));
            }
            keyed.warn.opener = keyed.opener.rtp_left() / KEY_WARNING_PART;
            keyed.warn.spent[0] = false;
        }
    }

    /// For a call record: keys, rollover counters, windows. Keys of the party that others have
    /// replaced are left out; what it sent under them and is still on its way is lost.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        out.extend([u8::from(self.by_dtls), u8::from(self.keyed.is_some())]);
        if let Some(keyed) = &self.keyed {
            keyed.keying.ours.save(out);
            keyed.keying.theirs.save(out);
            keyed.sealer.save(out);
            keyed.opener.save(out);
        }
    }

    /// What [`Self::save`] wrote. `None`: it is something else.
    pub(super) fn load(mut from: &[u8]) -> Option<Self> {
        let (&[flag, keyed], rest) = from.split_first_chunk::<2>()?;
        from = rest;
        let keyed = match keyed {
            0 => None,
            1 => {
                let ours = Keys::load(&mut from)?;
                let theirs = Keys::load(&mut from)?;
                let sealer = Sealer::load(&ours, &mut from)?;
                let opener = Opener::load(&theirs, &mut from)?;
                let keying = Keying { ours, theirs };
                let warn = Warn::of(&opener, &sealer);
                Some(Keyed { keying, opener, before: None, sealer, warn })
            }
            _ => return None,
        };
        let by_dtls = flag == 1;
        (flag < 2 && from.is_empty()).then_some(Self { keyed, by_dtls, notice: None })
    }

    /// Whether a record of the call is kept; it has just been written.
    pub(super) fn kept(&mut self, kept: bool) {
        if let Some(keyed) = &mut self.keyed {
            if kept { keyed.sealer.kept() } else { keyed.sealer.not_kept() }
        }
    }

    /// Whether an index was used that the record does not claim.
    pub(super) fn take_outrun(&mut self) -> bool {
        self.keyed.as_mut().is_some_and(|keyed| keyed.sealer.take_outrun())
    }

    /// Authenticates and decrypts the packet that is `arena[start..]`, in place; it becomes shorter.
    /// Nothing has been learnt from the packet before this. On failure the caller forgets it.
    ///
    /// # Errors
    /// Why it is not a packet of the party.
    pub(super) fn open(
        &mut self,
        packet: Packet,
        arena: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), DropReason> {
        let keyed = self.keyed.as_mut().ok_or(DropReason::SrtpNoKeys)?;
        let end = arena.len();
        let length = end.saturating_sub(start);
        // Opened behind itself, so that it is whole for the keys before these.
        arena.resize(end.saturating_add(length), 0);
        let (protected, room) = arena.split_at_mut(end);
        let protected = protected.get(start..).unwrap_or_default();
        let opened = keyed.open(packet, protected, room).map_err(|refusal| match refusal {
            Refusal::Replay => DropReason::SrtpReplay,
            Refusal::Spent => {
                let told = std::mem::replace(&mut keyed.warn.spent[0], true);
                self.notice = (!told).then_some(Notice::KeySpent { ours: false });
                reason(refusal)
            }
            other => reason(other),
        })?;
        if packet == Packet::Rtp && keyed.opener.rtp_left() == keyed.warn.opener {
            keyed.warn.opener = u64::MAX;
            self.notice = Some(Notice::KeyEnding { ours: false });
        }
        arena.copy_within(end..end.saturating_add(opened), start);
        arena.truncate(start.saturating_add(opened));
        Ok(())
    }

    /// Encrypts and authenticates the packet that is `arena[start..]`, in place; it becomes longer.
    /// On failure the caller forgets it.
    ///
    /// # Errors
    /// Why it cannot go out.
    pub(super) fn seal(
        &mut self,
        packet: Packet,
        arena: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), DropReason> {
        let keyed = self.keyed.as_mut().ok_or(DropReason::SrtpNoKeys)?;
        let sealer = &mut keyed.sealer;
        let overhead = match packet {
            Packet::Rtp => sealer.rtp_overhead(),
            Packet::Rtcp => sealer.rtcp_overhead(),
        };
        let length = arena.len().saturating_sub(start);
        arena.resize(arena.len().saturating_add(overhead), 0);
        let room = arena.get_mut(start..).unwrap_or_default();
        let sealed = match packet {
            Packet::Rtp => sealer.seal_rtp(room, length),
            Packet::Rtcp => sealer.seal_rtcp(room, length),
        };
        sealed.map_err(|refusal| match refusal {
            Refusal::Replay => DropReason::SrtpRepeat,
            Refusal::Spent => {
                let told = std::mem::replace(&mut keyed.warn.spent[1], true);
                self.notice = (!told).then_some(Notice::KeySpent { ours: true });
                reason(refusal)
            }
            other => reason(other),
        })?;
        if packet == Packet::Rtp && sealer.rtp_left() == keyed.warn.sealer {
            keyed.warn.sealer = u64::MAX;
            self.notice = Some(Notice::KeyEnding { ours: true });
        }
        Ok(())
    }

    /// What is to be told of the keys since the last look.
    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }
}

impl Keyed {
    fn open(&mut self, packet: Packet, bytes: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let mut by = |opener: &mut Opener| match packet {
            Packet::Rtp => opener.open_rtp(bytes, out),
            Packet::Rtcp => opener.open_rtcp(bytes, out),
        };
        let opened = by(&mut self.opener);
        let Some(before) = self.before.as_mut().filter(|before| before.live) else { return opened };
        match opened {
            Ok(length) => {
                before.live = false;
                Ok(length)
            }
            Err(refusal) => by(&mut before.opener).map_err(|_| refusal),
        }
    }
}

const fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed | Refusal::Room => DropReason::MediaMalformed,
        Refusal::Authentication => DropReason::SrtpAuthentication,
        Refusal::Replay => DropReason::SrtpReplay,
        Refusal::MasterKey => DropReason::SrtpMasterKey,
        Refusal::Spent => DropReason::SrtpKeySpent,
        Refusal::Sources => DropReason::SrtpSources,
    }
}
