//! ICE and DTLS of a stream with one party: how offers and answers set them up, and their timers.

use std::{net::SocketAddr, sync::Arc};

use ravelin_srtp::dtls::{Fingerprint, Identity, State};

use super::{
    Anchor, MediaTable, Side,
    dtls::{Dtls, DtlsTerms, Handshakes, Outcomes},
    endpoint::{Component, Endpoint, NO_PAIR, Remote},
    gate::Nat,
    ice::{Ice, IceLocal, IceRemote, IceTerms},
};
use crate::{
    port::{Egress, Token, TxQueue},
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

    /// Of our certificate, for `a=fingerprint`. `None`: no DTLS here.
    #[must_use]
    pub fn dtls_fingerprint(&self) -> Option<&Fingerprint> {
        self.handshakes.identity().map(|identity| identity.fingerprint())
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
                MediaTimer::Ice => endpoint.ice_due(now),
                MediaTimer::Dtls => endpoint.dtls_due(now, pair, &mut self.handshakes, tx),
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
    fn ice_due(&mut self, now: Instant) {
        let Some(ice) = &mut self.ice else { return };
        ice.armed = None;
        if ice.expire(now) {
            let announced = self.announced();
            self.gate.signalled(now, &announced);
        }
    }

    fn dtls_due(&mut self, now: Instant, pair: u32, handshakes: &mut Handshakes, tx: &mut TxQueue) {
        let party = self.party();
        let Some(dtls) = &mut self.dtls else { return };
        dtls.armed = None;
        dtls.expire(now, party, handshakes, &mut |datagram| {
            if let Some(to) = party {
                let egress = Egress::Media { port: Component::Rtp.port(pair), to };
                tx.push(egress, Token::default(), datagram);
            }
        });
    }
}
