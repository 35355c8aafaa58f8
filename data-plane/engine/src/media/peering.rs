//! ICE and DTLS of a stream with one party: how offers and answers set them up, and their timers.

use std::{net::SocketAddr, sync::Arc};

use ravelin_srtp::dtls::{Fingerprint, Identity, State};

use super::{
    Anchor, MediaTable, Side,
    dtls::{Dtls, DtlsTerms, Handshakes, Outcomes},
    endpoint::{Component, Control, Endpoint, NO_PAIR, Remote},
    gate::Nat,
    ice::{Ice, IceLocal, IceRemote, IceTerms},
    notice::Notice,
    shield::Shield,
};
use crate::{
    port::{Egress, MediaPortId, Token, TxQueue},
    time::Instant,
    timer::{MediaTimer, Timer},
};

/// Timers of media that fire in one turn before the shard looks at its sockets again.
const TIMERS_PER_TURN: usize = 256;

/// How a stream is set up with one party besides addresses. `None`: not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peering {
    pub ice: Option<IceTerms>,
    pub dtls: Option<DtlsTerms>,
}

impl Anchor {
    /// Notes how stream `index` is set up with `side`, to take effect with [`MediaTable::commit`].
    /// What is not staged stays as it is.
    pub fn stage_peering(&mut self, side: Side, index: usize, peering: Peering) {
        self.peerings.retain(|(of, at, _)| (*of, *at) != (side, index));
        if index < self.streams() {
            self.peerings.push((side, index, peering));
        }
    }
}

impl Endpoint {
    /// What the gate goes by: with ICE nothing but a nominated pair.
    pub(super) fn announced(&self) -> Remote {
        match &self.ice {
            None => self.remote,
            Some(ice) => Remote {
                rtp: ice.selected(Component::Rtp),
                rtcp: ice.selected(Component::Rtcp),
                nat: Nat::Signalled,
                ..self.remote
            },
        }
    }

    fn party(&self) -> Option<SocketAddr> {
        self.gate.source(Component::Rtp)
    }
}

impl MediaTable {
    /// Lets streams of this shard use DTLS-SRTP, with this certificate.
    pub fn set_dtls_identity(&mut self, identity: Arc<Identity>) {
        self.handshakes = Handshakes::with(identity);
    }

    /// Of our certificate, for `a=fingerprint`. `None`: no DTLS here. A certificate that is being made
    /// is waited for.
    #[must_use]
    pub fn dtls_fingerprint(&self) -> Option<&Fingerprint> {
        self.handshakes.identity()?.fingerprint().ok()
    }

    /// DTLS handshakes under way.
    #[must_use]
    pub fn dtls_handshakes(&self) -> usize {
        self.handshakes.count()
    }

    /// DTLS handshakes that ended.
    #[must_use]
    pub fn dtls_outcomes(&self) -> Outcomes {
        self.handshakes.outcomes
    }

    /// How far DTLS with `side` is on stream `index`. `None`: it is not used.
    #[must_use]
    pub fn dtls_state(&self, anchor: &Anchor, side: Side, index: usize) -> Option<State> {
        let pair = anchor.pair(side, index)?;
        Some(self.endpoints.get(pair as usize)?.dtls.as_ref()?.state())
    }

    /// What DTLS with `side` goes by on stream `index`: what was agreed and took effect last, in this
    /// process.
    #[must_use]
    pub fn dtls_terms(&self, anchor: &Anchor, side: Side, index: usize) -> Option<&DtlsTerms> {
        let pair = anchor.pair(side, index)?;
        let dtls = self.endpoints.get(pair as usize)?.dtls.as_ref()?;
        (!dtls.is_inherited()).then(|| dtls.terms())
    }

    /// The credentials for the SDP that `side` gets about stream `index`. `theirs`: what `side` has
    /// said in the offer that is being answered; `None`: we offer. They stay the same until the
    /// party begins ICE anew by other credentials (RFC 8839 4.4.1.1.1). From an offer of ours on its
    /// checks are answered, though the answer may not have come.
    pub fn ice_local(
        &mut self,
        anchor: &Anchor,
        side: Side,
        index: usize,
        theirs: Option<&IceRemote>,
    ) -> Option<IceLocal> {
        let pair = anchor.pair(side, index)?;
        let key = self.ice_key.clone();
        let endpoint = self.endpoints.get_mut(pair as usize)?;
        if let Some(ice) = &endpoint.ice {
            let known = ice.terms().remote.as_ref();
            if theirs.is_none() || known.is_none() || known == theirs {
                return Some(ice.terms().local);
            }
        }
        let (pair, generation) = (pair.to_be_bytes(), endpoint.generation.to_be_bytes());
        let [ufrag, pwd] = theirs.map_or([&b""[..]; 2], IceRemote::parts);
        // A colon is in neither.
        let local = IceLocal::derive(&key, &[&pair, &generation, ufrag, b":", pwd]);
        if theirs.is_none() {
            let ice = Ice::new(IceTerms { local, remote: None });
            endpoint.ice = Some(Box::new(ice));
        }
        Some(local)
    }

    /// Credentials that nobody was told before, for an offer that begins ICE anew; what is in force
    /// stays so until it is answered. `None`: ICE has not begun.
    pub fn ice_anew(
        &self,
        anchor: &Anchor,
        side: Side,
        index: usize,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<IceLocal> {
        let pair = anchor.pair(side, index)?;
        let endpoint = self.endpoints.get(pair as usize)?;
        endpoint.ice.as_ref()?;
        let mut drawn = [0; 16];
        random(&mut drawn);
        let purpose = [&pair.to_be_bytes()[..], &endpoint.generation.to_be_bytes(), &drawn];
        Some(IceLocal::derive(&self.ice_key, &purpose))
    }

    /// Sets how stream `index` is set up with `side`, at once. What does not change goes on: a DTLS
    /// association as long as role, fingerprints and `tls-id` stay (RFC 8842 5.4), ICE as long as
    /// the credentials do.
    pub fn set_peering(&mut self, anchor: &Anchor, side: Side, index: usize, peering: Peering) {
        let Some(pair) = anchor.pair(side, index) else { return };
        let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { return };
        let Peering { ice, dtls } = peering;
        match (ice, &mut endpoint.ice) {
            (None, there) => *there = None,
            (Some(terms), Some(ice)) => ice.agree(terms),
            (Some(terms), there) => *there = Some(Box::new(Ice::new(terms))),
        }
        match (dtls, self.handshakes.identity()) {
            (Some(terms), Some(identity)) => {
                let goes_on = |dtls: &Dtls| *dtls.terms() == terms && !dtls.is_inherited();
                if !endpoint.dtls.as_deref().is_some_and(goes_on) {
                    endpoint.dtls = Some(Box::new(Dtls::new(terms, identity)));
                }
            }
            _ => endpoint.dtls = None,
        }
    }

    /// What a commit or a packet has changed takes effect on associations and timers.
    pub(super) fn settle(&mut self, pair: u32) {
        let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { return };
        if endpoint.other == NO_PAIR {
            return;
        }
        let party = endpoint.party();
        endpoint.control_apart(self.handshakes.identity());
        // Without ICE another address of the party is another association (RFC 8842 5.1).
        if endpoint.ice.is_none()
            && let Some(dtls) = &mut endpoint.dtls
            && dtls.has_moved(endpoint.remote.rtp)
            && let Some(identity) = self.handshakes.identity()
        {
            **dtls = Dtls::new(dtls.terms().clone(), identity);
        }
        let generation = endpoint.generation;
        if let Some(dtls) = &mut endpoint.dtls
            && let Some(due) = dtls.deadline(party)
            && dtls.armed.is_none_or(|armed| armed > due)
        {
            dtls.armed = Some(due);
            self.timers.insert(due, Timer::Media { pair, generation, kind: MediaTimer::Dtls });
        }
        let party = endpoint.gate.source(Component::Rtcp);
        if let Some(control) = &mut endpoint.control
            && let Some(due) = control.dtls.deadline(party)
            && control.dtls.armed.is_none_or(|armed| armed > due)
        {
            control.dtls.armed = Some(due);
            self.timers.insert(due, Timer::Media { pair, generation, kind: MediaTimer::Control });
        }
        if let Some(ice) = &mut endpoint.ice
            && let Some(due) = ice.deadline()
            && ice.armed.is_none_or(|armed| armed > due)
        {
            ice.armed = Some(due);
            self.timers.insert(due, Timer::Media { pair, generation, kind: MediaTimer::Ice });
        }
    }

    /// Does what ICE and DTLS have due by `now`. Called in each turn.
    pub fn expire(&mut self, now: Instant, tx: &mut TxQueue) {
        self.handshakes.new_turn();
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.timers.pop_expired(now) else { return };
            let Timer::Media { pair, generation, kind } = timer else { continue };
            let endpoint = self.endpoints.get_mut(pair as usize);
            let current = endpoint.filter(|end| end.generation == generation);
            let Some(endpoint) = current.filter(|end| end.other != NO_PAIR) else { continue };
            match kind {
                MediaTimer::Ice => {
                    if endpoint.ice_due(now) {
                        self.notices.add(endpoint.owner, Notice::ConsentLost);
                    }
                }
                MediaTimer::Dtls => {
                    endpoint.dtls_due(now, Component::Rtp.port(pair), &mut self.handshakes, tx);
                }
                MediaTimer::Control => {
                    endpoint.dtls_due(now, Component::Rtcp.port(pair), &mut self.handshakes, tx);
                }
            }
            if let Some(failure) = self.handshakes.take_failure() {
                self.notices.add(endpoint.owner, Notice::HandshakeFailed(failure));
            }
            if self.handshakes.take_late() {
                self.notices.add(endpoint.owner, Notice::HandshakeLate);
            }
            self.settle(pair);
            self.tell_fast(pair);
        }
    }

    #[cfg(test)]
    pub(super) fn exhaust_handshakes(&mut self) {
        self.handshakes.exhaust();
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }
}

impl Endpoint {
    /// True if the consent of the party has ended.
    fn ice_due(&mut self, now: Instant) -> bool {
        let Some(ice) = &mut self.ice else { return false };
        ice.armed = None;
        let ended = ice.expire(now);
        if ended {
            let announced = self.announced();
            self.gate.signalled(now, &announced);
        }
        ended
    }

    fn dtls_due(
        &mut self,
        now: Instant,
        port: MediaPortId,
        handshakes: &mut Handshakes,
        tx: &mut TxQueue,
    ) {
        let component = Component::of(port);
        let party = self.gate.source(component);
        let emergency = self.serves_emergency();
        let dtls = match component {
            Component::Rtp => self.dtls.as_deref_mut(),
            Component::Rtcp => self.control.as_mut().map(|control| &mut control.dtls),
        };
        let Some(dtls) = dtls else { return };
        dtls.armed = None;
        dtls.expire(now, party, (handshakes, emergency), &mut |datagram| {
            if let Some(to) = party {
                tx.push(Egress::Media { port, to }, Token::default(), datagram);
            }
        });
    }

    /// RTCP that has a port of its own has an association of its own, on the same terms, and goes
    /// over to another one when RTP does.
    fn control_apart(&mut self, identity: Option<&Arc<Identity>>) {
        let apart = !self.remote.rtcp_mux && self.remote.rtcp.is_some();
        let dtls = self.dtls.as_ref().filter(|_| apart);
        let (Some(dtls), Some(identity)) = (dtls, identity) else {
            self.control = None;
            return;
        };
        let goes_on = self.control.as_ref().is_some_and(|control| {
            let moved = self.ice.is_none() && control.dtls.has_moved(self.remote.rtcp);
            control.dtls.terms() == dtls.terms() && !moved
        });
        if !goes_on {
            let dtls = Dtls::new(dtls.terms().clone(), identity);
            self.control = Some(Box::new(Control { dtls, shield: Shield::awaiting() }));
        }
    }
}
