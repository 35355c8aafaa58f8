//! ICE-lite towards one party (RFC 8445 2.5): connectivity checks are answered, and the pair that
//! the party nominates becomes the one that media passes on.
//!
//! Nothing is learnt from a check whose MESSAGE-INTEGRITY does not verify under our password, and
//! what answers it is never longer than it, nor more frequent than [`ICE_REFUSALS_PER_SECOND`]: a
//! port is no reflector. A lite agent sends no checks and so asks for no consent (RFC 7675 1); that
//! of a party which renews its own is taken to have ended when its checks do.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ravelin_srtp::integrity::IntegrityKey;
use ravelin_wire::stun::{Check, Class, ErrorCode, Message, Role, Writer};

use super::endpoint::Component;
use crate::{
    drops::DropReason,
    limits::{
        ICE_ANSWERS_PER_SECOND, ICE_CONSENT, ICE_REFUSALS_PER_SECOND, ICE_RENEWAL_LEAST,
        ICE_RENOMINATION,
    },
    time::Instant,
};

/// Octets of our user name fragments: 48 bits, where 24 are asked for (RFC 8445 5.3).
pub const UFRAG_BYTES: usize = 8;
/// Octets of our passwords: 144 bits, where 128 are asked for (RFC 8445 5.3).
pub const PWD_BYTES: usize = 24;
/// Longest `ice-ufrag` and `ice-pwd` (RFC 8839 5.4).
const CREDENTIAL_MAX_BYTES: usize = 256;
/// Shortest `ice-ufrag` and `ice-pwd` (RFC 8839 5.4).
const UFRAG_MIN_BYTES: usize = 4;
const PWD_MIN_BYTES: usize = 22;

/// Our credentials towards one party, as SDP has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IceLocal {
    pub ufrag: [u8; UFRAG_BYTES],
    pub pwd: [u8; PWD_BYTES],
}

impl std::fmt::Debug for IceLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceLocal({}, ..)", String::from_utf8_lossy(&self.ufrag))
    }
}

impl IceLocal {
    /// The credentials that belong to `purpose` under `key`: always the same, and nobody without the
    /// key can tell them.
    pub(super) fn derive(key: &IntegrityKey, purpose: &[&[u8]]) -> Self {
        let mut letters = [b'A'; UFRAG_BYTES + PWD_BYTES];
        for (round, group) in letters.chunks_mut(16).enumerate() {
            let round = [u8::try_from(round).unwrap_or(u8::MAX)];
            let parts: Vec<&[u8]> =
                std::iter::once(&round[..]).chain(purpose.iter().copied()).collect();
            for (letter, octet) in group.iter_mut().zip(key.tag(&parts)) {
                *letter = ICE_CHARS.get(usize::from(octet & 63)).copied().unwrap_or(b'A');
            }
        }
        let mut ufrag = [0; UFRAG_BYTES];
        let mut pwd = [0; PWD_BYTES];
        for (to, from) in ufrag.iter_mut().chain(&mut pwd).zip(letters) {
            *to = from;
        }
        Self { ufrag, pwd }
    }
}

/// `ice-char` (RFC 8839 5.1).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The credentials of a party. When both change, ICE begins anew (RFC 8839 4.4.1.1.1).
#[derive(Clone, PartialEq, Eq)]
pub struct IceRemote {
    ufrag: Box<[u8]>,
    pwd: Box<[u8]>,
}

impl std::fmt::Debug for IceRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceRemote({}, ..)", String::from_utf8_lossy(&self.ufrag))
    }
}

impl IceRemote {
    /// Of the values of `a=ice-ufrag` and `a=ice-pwd`. `None`: not what RFC 8839 5.4 allows.
    #[must_use]
    pub fn parse(ufrag: &[u8], pwd: &[u8]) -> Option<Self> {
        let sound = |text: &[u8], least: usize| {
            (least..=CREDENTIAL_MAX_BYTES).contains(&text.len())
                && text.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
        };
        (sound(ufrag, UFRAG_MIN_BYTES) && sound(pwd, PWD_MIN_BYTES))
            .then(|| Self { ufrag: ufrag.into(), pwd: pwd.into() })
    }

    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.ufrag, &self.pwd]
    }
}

/// What an offer and its answer agreed on for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceTerms {
    /// What we said.
    pub local: IceLocal,
    /// What the party said; `None` while it has not: its checks are answered, and the pair waits.
    pub remote: Option<IceRemote>,
}

/// Priority of our candidate for component 1 (RTP) or 2 (RTCP): a host candidate, the only one
/// (RFC 8445 5.1.2.1).
#[must_use]
pub const fn candidate_priority(component: u8) -> u32 {
    (126 << 24) | (65_535 << 8) | (256 - component as u32)
}

/// The pair that a component uses, and how it came to that.
#[derive(Clone, Copy, Debug)]
struct Selected {
    address: SocketAddr,
    priority: u32,
    /// The last check with USE-CANDIDATE.
    nominated: Instant,
    /// The first and the last check on this pair.
    first: Instant,
    last: Instant,
    /// The party's checks have ended; it gets nothing.
    lapsed: bool,
    /// Of a lapsed pair: until when they may come again after an offer and answer.
    until: Option<Instant>,
}

/// Messages of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    second: u64,
    count: u32,
}

impl Rate {
    fn allows(&mut self, now: Instant, most: u32) -> bool {
        let second = now.as_millis() / 1_000;
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}

/// The ICE agent of one stream towards one party.
#[derive(Debug)]
pub(super) struct Ice {
    terms: IceTerms,
    key: IntegrityKey,
    /// By component: RTP, RTCP.
    selected: [Option<Selected>; 2],
    /// Whose check nominated, while the party's fragment is not known: the answer is on its way.
    early: Option<Box<[u8]>>,
    answers: Rate,
    refusals: Rate,
    /// The timer that is set.
    pub(super) armed: Option<Instant>,
}

/// Octets of an address in a call record.
pub(super) const ADDRESS_BYTES: usize = 18;

/// For a call record: as IPv6, then the port.
pub(super) fn push_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    out.extend_from_slice(&ip.octets());
    out.extend(address.port().to_le_bytes());
}

/// What [`push_address`] wrote.
pub(super) fn address_of(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_le_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical(), port))
}

/// A request that gets an error.
struct Refusal {
    code: ErrorCode,
    reason: DropReason,
    /// It was authenticated, and so is the answer.
    authentic: bool,
}

impl Ice {
    pub(super) fn new(terms: IceTerms) -> Self {
        Self {
            key: IntegrityKey::new(&terms.local.pwd),
            terms,
            selected: [None; 2],
            early: None,
            answers: Rate::default(),
            refusals: Rate::default(),
            armed: None,
        }
    }

    pub(super) fn terms(&self) -> &IceTerms {
        &self.terms
    }

    /// For a call record.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        let IceTerms { local, remote } = &self.terms;
        out.extend_from_slice(&local.ufrag);
        out.extend_from_slice(&local.pwd);
        let text = |text: &[u8], out: &mut Vec<u8>| {
            // At most CREDENTIAL_MAX_BYTES.
            out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(text);
        };
        out.extend([u8::from(remote.is_some()), u8::from(self.early.is_some())]);
        for part in remote.iter().flat_map(IceRemote::parts).chain(self.early.as_deref()) {
            text(part, out);
        }
        for selected in &self.selected {
            out.push(u8::from(selected.is_some()));
            if let Some(selected) = selected {
                push_address(selected.address, out);
                out.extend(selected.priority.to_le_bytes());
                out.extend([u8::from(selected.lapsed), u8::from(selected.is_renewed())]);
            }
        }
    }

    /// What [`Self::save`] wrote. A party that renewed its consent has its full time to do so again.
    /// `None`: it is something else.
    pub(super) fn load(now: Instant, mut from: &[u8]) -> Option<Self> {
        let mut take = |length: usize| {
            let (taken, rest) = from.split_at_checked(length)?;
            from = rest;
            Some(taken)
        };
        let local = IceLocal {
            ufrag: take(UFRAG_BYTES)?.try_into().ok()?,
            pwd: take(PWD_BYTES)?.try_into().ok()?,
        };
        let &[has_remote, has_early] = take(2)? else { return None };
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            take(usize::from(length))
        };
        let remote = if has_remote != 0 { Some(IceRemote::parse(text()?, text()?)?) } else { None };
        let early = if has_early != 0 { Some(text()?.into()) } else { None };
        let mut ice = Self { early, ..Self::new(IceTerms { local, remote }) };
        for selected in &mut ice.selected {
            if take(1)? == [0] {
                continue;
            }
            let address = address_of(take(ADDRESS_BYTES)?)?;
            let priority = u32::from_le_bytes(take(4)?.try_into().ok()?);
            let &[lapsed, renewed] = take(2)? else { return None };
            let ago = if renewed != 0 { ICE_RENEWAL_LEAST } else { Duration::ZERO };
            let first = Instant(now.0.saturating_sub(u64::try_from(ago.as_nanos()).ok()?));
            *selected = Some(Selected {
                address,
                priority,
                nominated: now,
                first,
                last: now,
                lapsed: lapsed != 0,
                until: None,
            });
        }
        from.is_empty().then_some(ice)
    }

    /// What was agreed takes effect. With new credentials ICE begins anew; media stays on the old
    /// pair until another is nominated (RFC 8445 9).
    pub(super) fn agree(&mut self, terms: IceTerms) {
        if let (Some(early), Some(remote)) = (&self.early, &terms.remote)
            && early[..] != remote.ufrag[..]
        {
            // Somebody else had got our offer too.
            self.selected = [None; 2];
        }
        self.early = None;
        if terms.local != self.terms.local {
            self.key = IntegrityKey::new(&terms.local.pwd);
            for selected in self.selected.iter_mut().flatten() {
                // Any nomination of the new epoch is better.
                selected.priority = 0;
                selected.nominated = Instant::default();
            }
        }
        self.terms = terms;
    }

    /// Where this component's packets come from and go to: the nominated pair, as long as the party
    /// is who SDP says and wants them.
    pub(super) fn selected(&self, component: Component) -> Option<SocketAddr> {
        let [rtp, rtcp] = &self.selected;
        let selected = match component {
            Component::Rtp => rtp,
            Component::Rtcp => rtcp,
        };
        let usable = selected.as_ref().filter(|selected| !selected.lapsed)?;
        self.terms.remote.is_some().then_some(usable.address)
    }

    /// The party agreed to it, and never nominated anything.
    pub(super) fn has_failed(&self) -> bool {
        self.terms.remote.is_some() && self.selected.iter().all(Option::is_none)
    }

    /// An offer was answered: a party whose consent has ended has its full time to give it again.
    pub(super) fn expect(&mut self, now: Instant) {
        for selected in self.selected.iter_mut().flatten().filter(|selected| selected.lapsed) {
            selected.until = Some(now + ICE_CONSENT);
        }
    }

    /// RTP has no consent, and will not have it again without a check that is overdue.
    pub(super) fn is_lost(&self) -> bool {
        let [rtp, _] = &self.selected;
        rtp.as_ref().is_some_and(|selected| selected.lapsed && selected.until.is_none())
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.selected.iter().flatten().filter_map(Selected::deadline).min()
    }

    /// True if the consent of a component ended by `now`, or was not given again in time.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for selected in self.selected.iter_mut().flatten() {
            if selected.deadline().is_some_and(|deadline| now >= deadline) {
                selected.lapsed = true;
                selected.until = None;
                any = true;
            }
        }
        any
    }

    /// Takes a STUN message that came to a port of the stream, from anywhere. Appends the answer to
    /// `reply`; it goes back to `source` from the same port, also when an error is returned. True:
    /// [`Self::selected`] may have changed.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        component: Component,
        source: SocketAddr,
        bytes: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        let message = Message::parse(bytes).ok_or(DropReason::StunMalformed)?;
        if message.fingerprint_ok() == Some(false) {
            return Err(DropReason::StunMalformed);
        }
        match (message.class, message.method) {
            (Class::Request, 1) => {}
            // Keeps a NAT's binding (RFC 8445 11); not authenticated, and says nothing.
            (Class::Indication, 1) => return Err(DropReason::KeepAlive),
            // We asked for nothing, and know no other method.
            _ => return Err(DropReason::StunUnexpected),
        }
        match self.judge(&message) {
            Ok(check) => {
                if !self.answers.allows(now, ICE_ANSWERS_PER_SECOND) {
                    return Err(DropReason::StunRate);
                }
                Writer::binding(reply, Class::Success, message.transaction)
                    .xor_mapped_address(source)
                    .integrity(|covered| self.key.tag(&[covered]))
                    .finish();
                Ok(self.learn(now, component, source, &check))
            }
            Err(refusal) => {
                self.refuse(now, &message, &refusal, reply);
                Err(refusal.reason)
            }
        }
    }

    /// Whether a request is a check of the party (RFC 8489 9.1.3, 6.3.1; RFC 8445 7.3.1.1).
    fn judge<'a>(&self, message: &Message<'a>) -> Result<Check<'a>, Refusal> {
        let refusal = |code, reason, authentic| Refusal { code, reason, authentic };
        let bad = || refusal(ErrorCode::BadRequest, DropReason::StunMalformed, false);
        let stranger =
            || refusal(ErrorCode::Unauthenticated, DropReason::StunAuthentication, false);
        let check = Check::read(message).map_err(|_| bad())?;
        let (Some(username), Some(integrity)) = (check.username, message.integrity()) else {
            return Err(bad());
        };
        if !self.is_for_us(username)
            || !self.key.verifies(&[&integrity.head, integrity.covered], integrity.tag)
        {
            return Err(stranger());
        }
        if !check.unknown.is_empty() {
            return Err(refusal(ErrorCode::UnknownAttribute, DropReason::StunMalformed, true));
        }
        // A lite agent never controls a full one.
        if matches!(check.role, Some(Role::Controlled(_))) {
            return Err(refusal(ErrorCode::RoleConflict, DropReason::StunRoleConflict, true));
        }
        Ok(check)
    }

    /// `ours:theirs`; theirs must be the party's, once it is known.
    fn is_for_us(&self, username: &[u8]) -> bool {
        let theirs =
            username.strip_prefix(&self.terms.local.ufrag).and_then(|rest| rest.strip_prefix(b":"));
        match (theirs, &self.terms.remote) {
            (Some(theirs), Some(remote)) => *theirs == remote.ufrag[..],
            (Some(theirs), None) => {
                (UFRAG_MIN_BYTES..=CREDENTIAL_MAX_BYTES).contains(&theirs.len())
            }
            (None, _) => false,
        }
    }

    fn refuse(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        refusal: &Refusal,
        reply: &mut Vec<u8>,
    ) {
        if !self.refusals.allows(now, ICE_REFUSALS_PER_SECOND) {
            return;
        }
        let start = reply.len();
        let mut writer =
            Writer::binding(reply, Class::Error, message.transaction).error_code(refusal.code);
        if refusal.code == ErrorCode::UnknownAttribute
            && let Ok(check) = Check::read(message)
        {
            writer = writer.unknown_attributes(check.unknown.as_slice());
        }
        if refusal.authentic {
            writer = writer.integrity(|covered| self.key.tag(&[covered]));
        }
        let length = writer.finish();
        // Nobody unknown gets more octets than he sent, for another to receive.
        if !refusal.authentic && length > message.bytes().len() {
            reply.truncate(start);
        }
    }

    /// Takes notice of an authenticated check.
    fn learn(
        &mut self,
        now: Instant,
        component: Component,
        source: SocketAddr,
        check: &Check<'_>,
    ) -> bool {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let [rtp, rtcp] = &mut self.selected;
        let slot = match component {
            Component::Rtp => rtp,
            Component::Rtcp => rtcp,
        };
        if let Some(selected) = slot.as_mut().filter(|selected| selected.address == source) {
            let lapsed = std::mem::take(&mut selected.lapsed);
            selected.until = None;
            selected.last = now;
            if check.use_candidate {
                selected.nominated = now;
                selected.priority = check.priority.unwrap_or(0);
            }
            return lapsed;
        }
        if !check.use_candidate {
            return false;
        }
        let priority = check.priority.unwrap_or(0);
        // Who nominates every pair means the best of them (RFC 5245 8.1.1.2); who nominates another
        // one later has moved.
        let stays = slot.as_ref().is_some_and(|selected| {
            !selected.lapsed
                && selected.priority > priority
                && now.since(selected.nominated) < ICE_RENOMINATION
        });
        if stays {
            return false;
        }
        *slot = Some(Selected {
            address: source,
            priority,
            nominated: now,
            first: now,
            last: now,
            lapsed: false,
            until: None,
        });
        if self.terms.remote.is_none() {
            let theirs = check.username.and_then(|name| name.get(UFRAG_BYTES + 1..));
            self.early = theirs.map(Into::into);
        }
        true
    }
}

impl Selected {
    fn deadline(&self) -> Option<Instant> {
        if self.lapsed { self.until } else { self.is_renewed().then(|| self.last + ICE_CONSENT) }
    }

    /// Whether the party goes on checking after its nomination (RFC 7675 5.1), so that silence says
    /// something. Parties of RFC 5245 need not.
    fn is_renewed(&self) -> bool {
        !self.lapsed && self.last.since(self.first) >= ICE_RENEWAL_LEAST
    }
}

const _: () = assert!(ICE_CONSENT.as_secs() > ICE_RENEWAL_LEAST.as_secs());
const _: () = assert!(ICE_RENOMINATION.as_nanos() < Duration::from_secs(5).as_nanos());
