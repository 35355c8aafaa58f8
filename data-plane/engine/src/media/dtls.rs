//! DTLS-SRTP with one party (RFC 5763, RFC 5764): the handshake on the media port that gives a
//! [`Shield`] its keys. One association for each m-line on its RTP port; RTCP shares that port (RFC
//! 5761), or has an association of its own on its own (RFC 5764 4.1.1).

use std::{net::SocketAddr, sync::Arc};

use ravelin_srtp::{
    Keying, Keys,
    dtls::{Association, Exported, Failure, Fingerprints, Identity, Rejection, Role, State},
};

use super::shield::Shield;
use crate::{
    drops::DropReason,
    limits::{DTLS_BEGIN, DTLS_BUSY_RETRY, DTLS_HANDSHAKES_MAX, DTLS_STEPS_PER_TURN},
    time::Instant,
};

/// What an offer and its answer agreed on for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsTerms {
    /// Ours.
    pub role: Role,
    /// Of the party's certificate.
    pub fingerprints: Fingerprints,
    /// `a=tls-id` of the party, if it gave one (RFC 8842 5.2): another one is another association.
    pub tls_id: Option<Box<[u8]>>,
    /// Ours, if the party gave one.
    pub own_tls_id: Option<TlsId>,
}

/// Our `a=tls-id`: 24 characters of 64, where 20 are asked for (RFC 8842 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsId([u8; TLS_ID_BYTES]);

const TLS_ID_BYTES: usize = 24;
/// Of what a tls-id may be made of, `-_+/` besides letters and digits, as much as six bits need.
const TLS_ID_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl TlsId {
    /// Of unforeseeable octets.
    #[must_use]
    pub fn draw(random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut octets = [0; TLS_ID_BYTES];
        random(&mut octets);
        Self(octets.map(|octet| TLS_ID_CHARS.get(usize::from(octet & 63)).copied().unwrap_or(b'A')))
    }

    /// As SDP has it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What all associations of a shard share.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// `None`: this shard has no certificate, and no DTLS.
    identity: Option<Arc<Identity>>,
    /// What ordinary calls may cost at once.
    ordinary: Budget,
    /// As much again for emergency calls: however many handshakes of others never end, theirs begin.
    emergency: Budget,
    /// Handshakes that ended, by outcome.
    pub(super) outcomes: Outcomes,
    /// The one that moved last has failed.
    failed: Option<Failure>,
    /// It was not begun in its time.
    late: bool,
}

/// What handshakes of one kind of call cost.
#[derive(Debug, Default)]
struct Budget {
    /// One more than there are handshakes under way.
    under_way: Arc<()>,
    /// Datagrams of handshakes that this turn has taken.
    steps: u32,
}

impl Budget {
    fn count(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }

    fn has_room(&self) -> bool {
        self.count() < DTLS_HANDSHAKES_MAX
    }

    /// This turn has spent what it may on handshakes.
    fn is_tired(&self) -> bool {
        self.steps >= DTLS_STEPS_PER_TURN
    }

    fn step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }
}

/// Handshakes that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub done: u64,
    /// The party's certificate was not the one that SDP names.
    pub fingerprint: u64,
    pub no_profile: u64,
    pub timeout: u64,
    pub protocol: u64,
}

impl Outcomes {
    fn count(&mut self, state: State) {
        let counter = match state {
            State::Idle | State::Handshake => return,
            State::Done => &mut self.done,
            State::Failed(Failure::Fingerprint) => &mut self.fingerprint,
            State::Failed(Failure::NoProfile) => &mut self.no_profile,
            State::Failed(Failure::Timeout) => &mut self.timeout,
            State::Failed(Failure::Protocol) => &mut self.protocol,
        };
        *counter += 1;
    }
}

impl Handshakes {
    pub(super) fn with(identity: Arc<Identity>) -> Self {
        Self { identity: Some(identity), ..Self::default() }
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Handshakes under way.
    pub(super) fn count(&self) -> usize {
        self.ordinary.count() + self.emergency.count()
    }

    fn of(&mut self, emergency: bool) -> &mut Budget {
        if emergency { &mut self.emergency } else { &mut self.ordinary }
    }

    /// That a handshake has failed: told once.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failed.take()
    }

    /// That a handshake was not begun in its time: told once.
    pub(super) fn take_late(&mut self) -> bool {
        std::mem::take(&mut self.late)
    }

    /// A turn begins.
    pub(super) fn new_turn(&mut self) {
        self.ordinary.steps = 0;
        self.emergency.steps = 0;
    }

    #[cfg(test)]
    pub(super) fn exhaust(&mut self) {
        self.ordinary.steps = DTLS_STEPS_PER_TURN;
    }
}

/// The DTLS association of one stream with one party.
#[derive(Debug)]
pub(super) struct Dtls {
    terms: DtlsTerms,
    association: Association,
    /// Held while the handshake is under way.
    permit: Option<Arc<()>>,
    /// Where the party was when the handshake began.
    party: Option<SocketAddr>,
    /// When there is no room to begin: when to try again.
    retry: Option<Instant>,
    /// The association was with the process before: its keys are used, and nothing is begun.
    inherited: bool,
    /// When it is to have begun.
    begun_by: Option<Instant>,
    /// It had not.
    late: bool,
    /// The timer that is set.
    pub(super) armed: Option<Instant>,
}

impl Dtls {
    pub(super) fn new(terms: DtlsTerms, identity: &Arc<Identity>) -> Self {
        let fingerprints = terms.fingerprints.clone();
        Self {
            association: Association::new(identity.clone(), terms.role, fingerprints),
            terms,
            permit: None,
            party: None,
            retry: None,
            inherited: false,
            begun_by: None,
            late: false,
            armed: None,
        }
    }

    /// For a call record: the terms. The association ends with the process; its keys do not.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        let DtlsTerms { role, fingerprints, tls_id, own_tls_id: _ } = &self.terms;
        let client = u8::from(*role == Role::Client);
        let count = u8::try_from(fingerprints.iter().count()).unwrap_or(u8::MAX);
        out.extend([client, u8::from(tls_id.is_some()), count]);
        let mut text = |text: &[u8]| {
            out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(text);
        };
        if let Some(tls_id) = tls_id {
            text(tls_id);
        }
        for fingerprint in fingerprints.iter() {
            text(fingerprint.to_string().as_bytes());
        }
    }

    /// What [`Self::save`] wrote. A party that begins anew, with a ClientHello of its own, is
    /// answered as in any handshake; we begin nothing until an offer or answer says so. `None`: it is
    /// something else.
    pub(super) fn load(mut from: &[u8], identity: &Arc<Identity>) -> Option<Self> {
        let mut take = |length: usize| {
            let (taken, rest) = from.split_at_checked(length)?;
            from = rest;
            Some(taken)
        };
        let &[client, has_id, count] = take(3)? else { return None };
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            take(usize::from(length))
        };
        let tls_id = if has_id != 0 { Some(text()?.into()) } else { None };
        let mut fingerprints = Fingerprints::default();
        for _ in 0..count {
            if !fingerprints.add(text()?) {
                return None;
            }
        }
        if !from.is_empty() || fingerprints.is_empty() {
            return None;
        }
        let role = if client != 0 { Role::Client } else { Role::Server };
        let terms = DtlsTerms { role, fingerprints, tls_id, own_tls_id: None };
        Some(Self { inherited: true, ..Self::new(terms, identity) })
    }

    /// The association was with the process before: our certificate is another one now, so that the
    /// next offer or answer makes another association (RFC 8842 5.1).
    pub(super) fn is_inherited(&self) -> bool {
        self.inherited
    }

    pub(super) fn terms(&self) -> &DtlsTerms {
        &self.terms
    }

    pub(super) fn state(&self) -> State {
        self.association.state()
    }

    /// From now on a handshake is due. `keyed`: keys of before a restart are there.
    pub(super) fn expect(&mut self, now: Instant, keyed: bool) {
        if self.state() == State::Idle && !(self.inherited && keyed) {
            self.begun_by = Some(now + DTLS_BEGIN);
            self.late = false;
        }
    }

    /// There are no keys of it, and there will be none unless it begins though it is overdue.
    pub(super) fn is_lost(&self) -> bool {
        match self.state() {
            State::Idle => self.late,
            State::Failed(_) => true,
            State::Handshake | State::Done => false,
        }
    }

    /// Whether the handshake has begun, with a party that was elsewhere than it is now. Of one that
    /// names its associations a name that stays says that this one goes on (RFC 8842 4).
    pub(super) fn has_moved(&self, now: Option<SocketAddr>) -> bool {
        let moved = matches!((self.party, now), (Some(then), Some(now)) if then != now);
        moved && self.terms.tls_id.is_none()
    }

    /// When [`Self::expire`] has something to do. `party`: where packets for it go.
    pub(super) fn deadline(&self, party: Option<SocketAddr>) -> Option<Instant> {
        let due = if self.begins() {
            // As soon as it is known where the party is.
            party.map(|_| self.retry.unwrap_or_default())
        } else {
            self.association.deadline().map(Instant)
        };
        due.into_iter().chain(self.overdue()).min()
    }

    /// When it is to be told that nothing has begun.
    fn overdue(&self) -> Option<Instant> {
        self.begun_by.filter(|_| self.state() == State::Idle && !self.late)
    }

    fn begins(&self) -> bool {
        !self.inherited
            && self.association.state() == State::Idle
            && self.terms.role == Role::Client
    }

    /// Takes a DTLS datagram from the party's address, `emergency`: of an emergency call. `send`: takes
    /// each datagram that goes back there. Gives the shield once the handshake is done and the fingerprint fits.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        (handshakes, emergency): (&mut Handshakes, bool),
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Box<Shield>>, DropReason> {
        let before = self.association.state();
        let budget = handshakes.of(emergency);
        let busy = match before {
            State::Idle => !budget.has_room() || budget.is_tired(),
            State::Handshake => budget.is_tired(),
            State::Done | State::Failed(_) => false,
        };
        if busy {
            return Err(DropReason::DtlsBusy);
        }
        let restarts = self.association.restarts();
        let exported = self.association.receive(now.0, datagram, send).map_err(reason)?;
        self.moved_on(before, Some(source), handshakes, emergency);
        // What was kept out, and a cookie, cost next to nothing.
        if before == State::Handshake || self.association.state() != State::Idle {
            handshakes.of(emergency).step();
        }
        // If it was the party's own, it is all that is ever seen of what it cannot do.
        if self.association.restarts() != restarts {
            return Err(DropReason::DtlsBroken);
        }
        Ok(exported.map(shield))
    }

    /// Begins, retransmits or gives up, whatever is due.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        party: Option<SocketAddr>,
        (handshakes, emergency): (&mut Handshakes, bool),
        send: &mut dyn FnMut(&[u8]),
    ) {
        if self.overdue().is_some_and(|by| now >= by) {
            self.late = true;
            handshakes.late = true;
        }
        let before = self.association.state();
        if self.begins() {
            if party.is_none() {
                return;
            }
            let budget = handshakes.of(emergency);
            if !budget.has_room() || budget.is_tired() {
                self.retry = Some(now + DTLS_BUSY_RETRY);
                return;
            }
            budget.step();
            self.association.start(now.0, send);
        } else {
            // Keys come of datagrams only.
            let _ = self.association.expire(now.0, send);
        }
        self.moved_on(before, party, handshakes, emergency);
    }

    fn moved_on(
        &mut self,
        before: State,
        party: Option<SocketAddr>,
        handshakes: &mut Handshakes,
        emergency: bool,
    ) {
        let after = self.association.state();
        if before == State::Idle && after != State::Idle {
            self.party = party;
        }
        match after {
            State::Handshake if self.permit.is_none() => {
                self.permit = Some(handshakes.of(emergency).under_way.clone());
            }
            State::Handshake => {}
            State::Idle | State::Done | State::Failed(_) => self.permit = None,
        }
        if before != after {
            handshakes.outcomes.count(after);
            if let State::Failed(failure) = after {
                handshakes.failed = Some(failure);
            }
        }
    }
}

fn shield(keys: Exported) -> Box<Shield> {
    let Exported { local, remote } = keys;
    Box::new(Shield::of_dtls(Keying { ours: Keys::single(local), theirs: Keys::single(remote) }))
}

fn reason(rejection: Rejection) -> DropReason {
    match rejection {
        Rejection::Malformed => DropReason::DtlsMalformed,
        Rejection::PlainAlert => DropReason::DtlsPlainAlert,
        Rejection::Unexpected => DropReason::DtlsUnexpected,
        Rejection::StrayHello => DropReason::DtlsStrayHello,
        Rejection::UselessHello => DropReason::DtlsUselessHello,
        Rejection::Over => DropReason::DtlsOver,
    }
}
