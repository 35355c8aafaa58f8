//! Offer/answer state of one leg (RFC 3264, RFC 6337), with the INVITE gate that decides glare.
//!
//! One value per dialog. An unreliable provisional with a description is a preview of the answer:
//! it does not close the exchange (RFC 6337 2.1), the 2xx does. A refused offer leaves the dialog
//! as it was before (RFC 6337 3.4).

/// Who has an unanswered offer in this dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// No offer is open.
    #[default]
    Idle,
    /// The peer offered, we owe the answer.
    Received,
    /// We offered, the peer owes the answer.
    Sent,
}

/// Why a request of the peer cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glare {
    /// Our own request crosses it: 491 (RFC 3261 14.2, RFC 3311 5.2).
    Pending,
    /// The peer's own request before it is unanswered: 500 with Retry-After (RFC 3261 14.2).
    TryLater,
}

/// Offer/answer and INVITE state of one dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Negotiation {
    exchange: Exchange,
    /// An INVITE of the peer has no final response yet, or its 2xx has no ACK yet.
    invite_in: bool,
    /// An INVITE of ours has no final response yet.
    invite_out: bool,
}

impl Negotiation {
    pub(crate) fn exchange(self) -> Exchange {
        self.exchange
    }

    /// Whether the peer's INVITE can be taken now.
    pub(crate) fn check_invite(self) -> Result<(), Glare> {
        if self.invite_in {
            return Err(Glare::TryLater);
        }
        self.check_offer()?;
        if self.invite_out { Err(Glare::Pending) } else { Ok(()) }
    }

    /// Whether an offer of the peer can be taken now, in whatever request.
    pub(crate) fn check_offer(self) -> Result<(), Glare> {
        match self.exchange {
            Exchange::Idle => Ok(()),
            Exchange::Received => Err(Glare::TryLater),
            Exchange::Sent => Err(Glare::Pending),
        }
    }

    /// Whether we can send an INVITE, with or without offer, into this dialog now.
    pub(crate) fn may_send_invite(self) -> bool {
        self.exchange == Exchange::Idle && !self.invite_in && !self.invite_out
    }

    /// Whether we can send an offer in an UPDATE now.
    pub(crate) fn may_send_offer(self) -> bool {
        self.exchange == Exchange::Idle
    }

    pub(crate) fn invite_received(&mut self, offer: bool) {
        self.invite_in = true;
        if offer {
            self.offer_received();
        }
    }

    pub(crate) fn invite_sent(&mut self, offer: bool) {
        self.invite_out = true;
        if offer {
            self.offer_sent();
        }
    }

    pub(crate) fn offer_received(&mut self) {
        self.exchange = Exchange::Received;
    }

    pub(crate) fn offer_sent(&mut self) {
        self.exchange = Exchange::Sent;
    }

    /// The open offer, in either direction, has its answer.
    pub(crate) fn answered(&mut self) {
        self.exchange = Exchange::Idle;
    }

    /// The open offer was refused: the descriptions in force stay in force.
    pub(crate) fn refused(&mut self) {
        self.exchange = Exchange::Idle;
    }

    /// The peer's INVITE is over: a final response without 2xx, or a 2xx whose ACK owes nothing.
    pub(crate) fn invite_in_over(&mut self) {
        self.invite_in = false;
    }

    pub(crate) fn invite_out_over(&mut self) {
        self.invite_out = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Exchange, Glare, Negotiation};

    #[test]
    fn glare_is_491_and_an_unanswered_request_of_the_peer_is_500() {
        let mut leg = Negotiation::default();
        assert_eq!(leg.check_invite(), Ok(()));
        leg.invite_sent(true);
        assert_eq!(leg.check_invite(), Err(Glare::Pending));
        assert_eq!(leg.check_offer(), Err(Glare::Pending));
        leg.answered();
        leg.invite_out_over();
        leg.invite_received(true);
        assert_eq!(leg.check_invite(), Err(Glare::TryLater));
        assert_eq!(leg.check_offer(), Err(Glare::TryLater));
        assert!(!leg.may_send_invite());
    }

    #[test]
    fn an_invite_without_offer_of_ours_blocks_the_peers_invite_only() {
        let mut leg = Negotiation::default();
        leg.invite_sent(false);
        assert_eq!(leg.check_invite(), Err(Glare::Pending));
        assert_eq!(leg.check_offer(), Ok(()));
    }

    /// What may happen to a relayed exchange.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Side 0 or 1 sends an INVITE, with an offer or without one.
        Invite(bool, bool),
        Update(bool),
        /// The far side accepts, refuses, or the ACK with a late answer comes.
        Accept,
        Refuse,
        Ack,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let one = prop_oneof![
            (any::<bool>(), any::<bool>()).prop_map(|(side, offer)| Step::Invite(side, offer)),
            any::<bool>().prop_map(Step::Update),
            Just(Step::Accept),
            Just(Step::Refuse),
            Just(Step::Ack),
        ];
        prop::collection::vec(one, 0..64)
    }

    /// The open relayed request, as the far side sees it.
    #[derive(Clone, Copy, Debug)]
    struct Open {
        from: usize,
        invite: bool,
        offer: bool,
        late_answer_due: bool,
    }

    proptest! {
        /// However the requests cross, the two legs mirror one another, one exchange is open at
        /// most, and every refusal leaves both legs idle.
        #[test]
        fn the_legs_of_a_relay_mirror_one_another(steps in steps()) {
            let mut legs = [Negotiation::default(); 2];
            let mut open: Option<Open> = None;
            for step in steps {
                match (step, open) {
                    (Step::Invite(side, offer), _) => {
                        let from = usize::from(side);
                        let taken = legs[from].check_invite().is_ok()
                            && legs[1 - from].may_send_invite();
                        prop_assert_eq!(taken, open.is_none());
                        if taken {
                            legs[from].invite_received(offer);
                            legs[1 - from].invite_sent(offer);
                            open = Some(Open { from, invite: true, offer, late_answer_due: false });
                        }
                    }
                    (Step::Update(side), _) => {
                        let from = usize::from(side);
                        let taken = legs[from].check_offer().is_ok()
                            && legs[1 - from].may_send_offer()
                            && open.is_none();
                        if taken {
                            legs[from].offer_received();
                            legs[1 - from].offer_sent();
                            open =
                                Some(Open { from, invite: false, offer: true, late_answer_due: false });
                        }
                    }
                    (Step::Accept, Some(mut now)) if !now.late_answer_due => {
                        if now.invite {
                            legs[1 - now.from].invite_out_over();
                        }
                        if now.offer {
                            legs[now.from].answered();
                            legs[1 - now.from].answered();
                            legs[now.from].invite_in_over();
                            open = None;
                        } else {
                            legs[1 - now.from].offer_received();
                            legs[now.from].offer_sent();
                            now.late_answer_due = true;
                            open = Some(now);
                        }
                    }
                    (Step::Refuse, Some(now)) if !now.late_answer_due => {
                        for leg in &mut legs {
                            leg.refused();
                            leg.invite_in_over();
                            leg.invite_out_over();
                        }
                        prop_assert!(now.from < 2);
                        open = None;
                    }
                    (Step::Ack, Some(now)) if now.late_answer_due => {
                        legs[now.from].answered();
                        legs[1 - now.from].answered();
                        legs[now.from].invite_in_over();
                        open = None;
                    }
                    _ => {}
                }
                let mirrored = matches!(
                    (legs[0].exchange(), legs[1].exchange()),
                    (Exchange::Idle, Exchange::Idle)
                        | (Exchange::Received, Exchange::Sent)
                        | (Exchange::Sent, Exchange::Received)
                );
                prop_assert!(mirrored, "{:?}", legs);
                if open.is_none() {
                    prop_assert_eq!(legs, [Negotiation::default(); 2]);
                }
            }
        }
    }
}
