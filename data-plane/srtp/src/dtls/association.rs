//! One association: from the first hello to the keys, and what little comes after.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dimpl::{Dtls, Output, SrtpProfile};

use super::{
    Fingerprints, Identity, Rejection, Role,
    cookie::{self, Cookie},
    guard::{Guard, Offer, Pass, hello_verify_request, renumber},
    limits::{HANDSHAKE_MAX, LINGER, MTU, RESTARTS_MAX},
};
use crate::{MasterKey, Suite};

/// The library writes datagrams and the peer's certificate here.
const SCRATCH_BYTES: usize = 4_096;
const _: () = assert!(SCRATCH_BYTES > MTU);

/// The master keys that a handshake agreed on (RFC 5764 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Protects what we send.
    pub local: MasterKey,
    /// Protects what the peer sends.
    pub remote: MasterKey,
}

/// Why there will be no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The peer's certificate is not the one that SDP names (RFC 5763 5).
    Fingerprint,
    /// No SRTP profile was agreed on.
    NoProfile,
    /// The peer was silent for too long.
    Timeout,
    /// The peer broke the protocol, or refused.
    Protocol,
}

impl Failure {
    /// As a label of the counter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::NoProfile => "no_profile",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

/// How far an association is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was said by either side.
    Idle,
    Handshake,
    /// Keys were handed out.
    Done,
    Failed(Failure),
}

/// Runs one handshake. All times are nanoseconds since the origin of the [`Identity`], all datagrams
/// to the peer go into `send`.
pub struct Association {
    identity: Arc<Identity>,
    role: Role,
    expected: Fingerprints,
    guard: Guard,
    state: State,
    /// None before the first hello, and when nothing is left to do.
    dtls: Option<Box<Dtls>>,
    /// Tells this association from all others of the identity.
    number: u64,
    /// HelloVerifyRequests sent: as many record numbers are used.
    requests: u32,
    /// The certificate of the peer was checked.
    trusted: bool,
    restarts: u8,
    /// When [`Self::expire`] is to be called.
    deadline: Option<u64>,
    /// When all of it must be over.
    limit: u64,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association")
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Association {
    /// An association with the peer whose certificate is one of `expected`. It costs nothing but
    /// this value before the first hello.
    #[must_use]
    pub fn new(identity: Arc<Identity>, role: Role, expected: Fingerprints) -> Self {
        Self {
            number: identity.next_number(),
            requests: 0,
            identity,
            role,
            expected,
            guard: Guard::new(role),
            state: State::Idle,
            dtls: None,
            trusted: false,
            restarts: 0,
            deadline: None,
            limit: u64::MAX,
        }
    }

    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the peer's certificate is checked against.
    #[must_use]
    pub fn expected(&self) -> &Fingerprints {
        &self.expected
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Self::expire`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// A client says its hello. A server, or one that has begun, does nothing.
    pub fn start(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) {
        if self.role == Role::Client && self.state == State::Idle {
            self.greet(now, send);
        }
    }

    /// Takes one datagram of the peer. `Some`: the handshake is complete, here are its keys.
    ///
    /// # Errors
    /// Why the datagram changed nothing. Counted by the caller.
    pub fn receive(
        &mut self,
        now: u64,
        datagram: &[u8],
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Exported>, Rejection> {
        match self.state {
            State::Failed(_) => return Err(Rejection::Over),
            State::Done if self.dtls.is_none() => return Err(Rejection::Over),
            State::Idle if self.role == Role::Client => return Err(Rejection::Unexpected),
            State::Idle | State::Handshake | State::Done => {}
        }
        match self.guard.pass(datagram)? {
            Pass::On => Ok(self.drive(now, Some(datagram), send)),
            Pass::Part => Ok(None),
            Pass::Hello(offer) => {
                // No key, no answer; whoever started us was told.
                let made = self.identity.made().map_err(|_| Rejection::Over)?;
                let cookie = cookie::make(&made.secret, self.number);
                let proven = offer.cookie.is_some_and(|theirs| cookie::equal(&theirs, &cookie));
                // The first hello of a client cannot have a cookie of ours, and each later one has:
                // to ask again would take the client out of step, whoever said it.
                if offer.sequence > 0 {
                    if !proven {
                        return Err(Rejection::UselessHello);
                    }
                    return self.accept(now, &offer, &cookie, send).map(|()| None);
                }
                let request = hello_verify_request(self.requests, offer.sequence, &cookie);
                if let Some(request) = request {
                    self.requests = self.requests.saturating_add(1);
                    send(&request);
                }
                Ok(None)
            }
        }
    }

    /// A hello from somebody who gets what is sent to where it came from: the handshake begins.
    fn accept(
        &mut self,
        now: u64,
        offer: &Offer,
        cookie: &Cookie,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Rejection> {
        let mut dtls = self.library(now).ok_or(Rejection::Over)?;
        // The library wants to have asked for the cookie itself, as often as it was.
        let shown = cookie::with_checked(cookie, || {
            dtls.handle_timeout(self.instant(now)).ok()?;
            for sequence in 0..offer.sequence {
                dtls.handle_packet(&offer.earlier(sequence)?).ok()?;
                discard(&mut dtls);
            }
            dtls.handle_packet(&offer.record()?).ok()
        });
        if shown.is_none() {
            return Err(Rejection::UselessHello);
        }
        self.begun(now);
        self.dtls = Some(Box::new(dtls));
        self.guard.going(Some(offer.random));
        let _ = self.poll(now, send);
        Ok(())
    }

    /// Does what is due.
    pub fn expire(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) -> Option<Exported> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return None;
        }
        self.deadline = None;
        if now >= self.limit {
            // The last flight is no longer needed; or the peer has not answered in time.
            self.dtls = None;
            if self.state == State::Handshake {
                self.state = State::Failed(Failure::Timeout);
            }
            return None;
        }
        self.drive(now, None, send)
    }

    fn begun(&mut self, now: u64) {
        if self.state == State::Idle {
            self.limit = now.saturating_add(nanoseconds(HANDSHAKE_MAX));
            self.state = State::Handshake;
        }
        self.trusted = false;
    }

    /// None without a key of ours.
    fn library(&self, now: u64) -> Option<Dtls> {
        let made = self.identity.made().ok()?;
        let (config, certificate) = (made.config.clone(), made.certificate.clone());
        let mut dtls = Dtls::new_12(config, certificate, self.instant(now));
        dtls.set_active(self.role == Role::Client);
        Some(dtls)
    }

    /// A client says hello, or says it anew.
    fn greet(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) {
        self.begun(now);
        let Some(dtls) = self.library(now) else {
            self.fail(Failure::Protocol);
            return;
        };
        self.dtls = Some(Box::new(dtls));
        self.guard = Guard::new(self.role);
        self.guard.going(None);
        // Nothing can come of the first flight but datagrams.
        let _ = self.drive(now, None, send);
    }

    fn instant(&self, now: u64) -> Instant {
        self.identity.origin + Duration::from_nanos(now)
    }

    /// Runs the library until it waits.
    fn drive(
        &mut self,
        now: u64,
        datagram: Option<&[u8]>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Option<Exported> {
        let at = self.instant(now);
        let was_done = self.state == State::Done;
        let dtls = self.dtls.as_mut()?;
        let mut result = dtls.handle_timeout(at);
        if let Some(datagram) = datagram
            && result.is_ok()
        {
            result = dtls.handle_packet(datagram);
        }
        let exported = self.poll(now, send);
        match result {
            Ok(()) => {}
            // Keys that are agreed on stay, whatever comes behind them.
            Err(_) if was_done || exported.is_some() => {
                self.dtls = None;
                self.deadline = None;
            }
            Err(error) => self.broken(now, &error, send),
        }
        exported
    }

    /// The library has given up. What made it do so may have been forged, so it begins again, a few
    /// times.
    fn broken(&mut self, now: u64, error: &dimpl::Error, send: &mut dyn FnMut(&[u8])) {
        if self.state != State::Handshake {
            return;
        }
        let timeout = matches!(error, dimpl::Error::Timeout(_));
        if timeout || self.restarts >= RESTARTS_MAX {
            self.fail(if timeout { Failure::Timeout } else { Failure::Protocol });
            return;
        }
        self.restarts += 1;
        match self.role {
            Role::Client => self.greet(now, send),
            Role::Server => {
                self.dtls = None;
                self.guard = Guard::new(self.role);
                self.deadline = Some(self.limit);
            }
        }
    }

    /// How often the handshake broke and began again.
    #[must_use]
    pub const fn restarts(&self) -> u8 {
        self.restarts
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Failed(failure);
        self.dtls = None;
        self.deadline = None;
    }

    fn poll(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) -> Option<Exported> {
        let mut scratch = [0; SCRATCH_BYTES];
        let mut renumbered = [0; MTU];
        let mut exported = None;
        let mut connected = false;
        loop {
            let dtls = self.dtls.as_mut()?;
            match dtls.poll_output(&mut scratch) {
                Output::Packet(packet) => {
                    if let Some(copy) = renumbered.get_mut(..packet.len()) {
                        copy.copy_from_slice(packet);
                        renumber(copy, self.requests);
                        send(copy);
                    }
                }
                Output::PeerCert(certificate) => {
                    if !self.expected.match_certificate(certificate) {
                        self.fail(Failure::Fingerprint);
                        return None;
                    }
                    self.trusted = true;
                }
                Output::Connected => connected = true,
                Output::KeyingMaterial(material, profile) => {
                    exported = split(self.role, &material, profile);
                }
                Output::Timeout(at) => {
                    let at = at.saturating_duration_since(self.identity.origin);
                    self.deadline = Some(nanoseconds(at).min(self.limit));
                    break;
                }
                // A certificate that is longer than the scratch.
                Output::BufferTooSmall { .. } => {
                    self.fail(Failure::Protocol);
                    return None;
                }
                // No data is carried, and the end of the media is said in SIP.
                Output::ApplicationData(_) | Output::CloseNotify => {}
                _ => {}
            }
        }
        if connected && self.state == State::Handshake {
            match exported.filter(|_| self.trusted) {
                Some(keys) => {
                    self.state = State::Done;
                    self.guard.done();
                    self.limit = now.saturating_add(nanoseconds(LINGER));
                    self.deadline = Some(self.limit);
                    return Some(keys);
                }
                None => self.fail(Failure::NoProfile),
            }
        } else if self.state == State::Done {
            self.deadline = Some(self.limit);
        }
        None
    }
}

/// Takes what the library wants to say and says it not.
fn discard(dtls: &mut Dtls) {
    let mut scratch = [0; SCRATCH_BYTES];
    while !matches!(
        dtls.poll_output(&mut scratch),
        Output::Timeout(_) | Output::BufferTooSmall { .. }
    ) {}
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Cuts the exported octets: the client's key, the server's, the client's salt, the server's
/// (RFC 5764 4.2).
fn split(role: Role, material: &[u8], profile: SrtpProfile) -> Option<Exported> {
    let suite = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Suite::AesCm128HmacSha1_80,
        SrtpProfile::AEAD_AES_128_GCM => Suite::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Suite::AeadAes256Gcm,
        _ => return None,
    };
    let (client_key, rest) = material.split_at_checked(suite.key_bytes())?;
    let (server_key, rest) = rest.split_at_checked(suite.key_bytes())?;
    let (client_salt, server_salt) = rest.split_at_checked(suite.salt_bytes())?;
    let client = MasterKey::of_parts(suite, client_key, client_salt)?;
    let server = MasterKey::of_parts(suite, server_key, server_salt)?;
    Some(match role {
        Role::Client => Exported { local: client, remote: server },
        Role::Server => Exported { local: server, remote: client },
    })
}
