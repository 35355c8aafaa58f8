//! What the engine counts. Plain integers, owned by the shard; nothing here is shared.

use ravelin_contract::metrics::{Sample, SampleKind};
use ravelin_policy::MediaAction;

use crate::media::Loss;
use ravelin_stir::outcome::Outcome;

use crate::{cause::Cause, drops::DropReason};

/// Method classes that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodLabel {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Update,
    Info,
    Message,
    Prack,
    Refer,
    Register,
    Subscribe,
    Notify,
    Publish,
    Other,
}

impl MethodLabel {
    pub const ALL: &'static [Self] = &[
        Self::Invite,
        Self::Ack,
        Self::Bye,
        Self::Cancel,
        Self::Options,
        Self::Update,
        Self::Info,
        Self::Message,
        Self::Prack,
        Self::Refer,
        Self::Register,
        Self::Subscribe,
        Self::Notify,
        Self::Publish,
        Self::Other,
    ];

    /// Of a method token as it stands in the message (methods are case-sensitive).
    #[must_use]
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"UPDATE" => Self::Update,
            b"INFO" => Self::Info,
            b"MESSAGE" => Self::Message,
            b"PRACK" => Self::Prack,
            b"REFER" => Self::Refer,
            b"REGISTER" => Self::Register,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"PUBLISH" => Self::Publish,
            _ => Self::Other,
        }
    }

    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Message => "MESSAGE",
            Self::Prack => "PRACK",
            Self::Refer => "REFER",
            Self::Register => "REGISTER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Publish => "PUBLISH",
            Self::Other => "other",
        }
    }
}

const OUTCOMES: usize = Outcome::ALL.len();
const METHODS: usize = MethodLabel::ALL.len();
const CAUSES: usize = Cause::ALL.len();
const DROPS: usize = DropReason::ALL.len();
/// What can be done about silence and failures of media.
const MEDIA_ACTIONS: usize = ACTIONS.len();
const ACTIONS: [(MediaAction, &str); 3] =
    [(MediaAction::Alarm, "alarm"), (MediaAction::Bye, "bye"), (MediaAction::Nothing, "nothing")];
/// 1xx to 6xx.
const CLASSES: usize = 6;

/// Totals since the engine was made.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    drops: Array<DROPS>,
    refusals: Array<CAUSES>,
    requests_received: Array<METHODS>,
    requests_sent: Array<METHODS>,
    responses_received: Array<CLASSES>,
    responses_sent: Array<CLASSES>,
    /// Requests that a server transaction had seen before.
    pub request_retransmissions_received: u64,
    /// Responses that a client transaction had seen before.
    pub response_retransmissions_received: u64,
    /// Requests sent again by timers A and E.
    pub request_retransmissions_sent: u64,
    /// Responses sent again, by timer or because the request came again.
    pub response_retransmissions_sent: u64,
    /// Client transactions that ended by timer B or F.
    pub client_timeouts: u64,
    /// Refused INVITEs whose refusal was never acknowledged (timer H).
    pub ack_timeouts: u64,
    /// Answered INVITEs whose 2xx was never acknowledged (RFC 3261 13.3.1.4).
    pub unacknowledged_2xx: u64,
    /// Calls that a trunk wanted signed and that left unsigned for want of a credential.
    pub unsigned_no_credential: u64,
    /// Faults of ours that ended one call (a panic, caught).
    pub faults_contained: u64,
    /// Broken emergency requests that were mended and went on (EM-55).
    pub emergency_repaired: u64,
    /// Emergency calls of sources that send more than people dial (EM-67).
    pub emergency_excess: u64,
    /// Ordinary calls that gave way to an emergency call (EM-64).
    pub calls_preempted: u64,
    /// Calls that the end of the process ended.
    pub calls_stopped: u64,
    /// Calls of the process before that go on.
    pub calls_adopted: u64,
    /// Calls of the process before that were ended because they could not go on.
    pub calls_not_adopted: u64,
    /// Records of calls of the process before that could not be read.
    pub checkpoints_unreadable: u64,
    /// Confirmed calls whose record would be too long.
    pub checkpoints_too_long: u64,
    /// Records of calls handed out.
    pub checkpoints: u64,
    /// Verifications by outcome.
    identity: Array<OUTCOMES>,
    /// Client transactions that ended because nothing could be sent.
    pub transport_errors: u64,
    /// Requests for which a transaction table had no room.
    pub transactions_refused: u64,
    /// Large requests that went over TCP in place of UDP (RFC 3261 18.1.1).
    pub tcp_for_size: u64,
    /// Of these, fallen back to UDP.
    pub tcp_for_size_failed: u64,
    /// RTP packets and octets forwarded.
    pub rtp_packets: u64,
    pub rtp_bytes: u64,
    /// RTCP packets forwarded.
    pub rtcp_packets: u64,
    /// Of the streams of ended calls: RTP packets expected by their numbers, and those that never
    /// came; digits (RFC 4733).
    pub rtp_expected: u64,
    pub rtp_lost: u64,
    pub dtmf_events: u64,
    /// Allocations that found no free port pair.
    pub media_ports_refused: u64,
    /// New calls that went to another shard, for this one had no port for them.
    pub calls_placed: u64,
    /// The same that stayed, for too many had gone.
    pub placements_refused: u64,
    /// Parties that were found behind a NAT (trunk `media.nat: latch`).
    pub media_latched: u64,
    /// Directions that were silent for longer than their trunk allows, by what was done.
    rtp_timeouts: Array<MEDIA_ACTIONS>,
    /// Failed handshakes and lost consents, by what was done.
    handshakes_failed: Array<MEDIA_ACTIONS>,
    consents_lost: Array<MEDIA_ACTIONS>,
}

#[derive(Clone, Debug)]
struct Array<const N: usize>([u64; N]);

impl<const N: usize> Default for Array<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Array<N> {
    fn add(&mut self, index: usize) {
        if let Some(count) = self.0.get_mut(index) {
            *count = count.wrapping_add(1);
        }
    }

    fn at(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

impl Counters {
    pub fn drop(&mut self, reason: DropReason) {
        self.drops.add(reason as usize);
    }

    pub fn refusal(&mut self, cause: Cause) {
        self.refusals.add(cause as usize);
    }

    pub fn rtp_timeout(&mut self, action: MediaAction) {
        self.rtp_timeouts.add(action as usize);
    }

    /// Directions that were silent for too long and met this action.
    #[must_use]
    pub fn rtp_timeouts(&self, action: MediaAction) -> u64 {
        self.rtp_timeouts.at(action as usize)
    }

    pub fn media_failure(&mut self, loss: Loss, action: MediaAction) {
        match loss {
            Loss::Handshake => self.handshakes_failed.add(action as usize),
            Loss::Consent => self.consents_lost.add(action as usize),
        }
    }

    /// Failures of media that met this action.
    #[must_use]
    pub fn media_failures(&self, loss: Loss, action: MediaAction) -> u64 {
        match loss {
            Loss::Handshake => self.handshakes_failed.at(action as usize),
            Loss::Consent => self.consents_lost.at(action as usize),
        }
    }

    pub fn identity_verified(&mut self, outcome: Outcome) {
        self.identity.add(outcome as usize);
    }

    pub fn request_received(&mut self, method: MethodLabel) {
        self.requests_received.add(method as usize);
    }

    pub fn request_sent(&mut self, method: MethodLabel) {
        self.requests_sent.add(method as usize);
    }

    /// `code` of 100 to 699; anything else is not counted because it cannot have been parsed.
    pub fn response_received(&mut self, code: u16) {
        self.responses_received.add(usize::from(code / 100).wrapping_sub(1));
    }

    pub fn response_sent(&mut self, code: u16) {
        self.responses_sent.add(usize::from(code / 100).wrapping_sub(1));
    }

    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.at(reason as usize)
    }

    #[must_use]
    pub fn refusals(&self, cause: Cause) -> u64 {
        self.refusals.at(cause as usize)
    }

    #[must_use]
    pub fn requests_received(&self, method: MethodLabel) -> u64 {
        self.requests_received.at(method as usize)
    }

    #[must_use]
    pub fn requests_sent(&self, method: MethodLabel) -> u64 {
        self.requests_sent.at(method as usize)
    }

    /// Responses received of class `class` (1 for 1xx to 6 for 6xx).
    #[must_use]
    pub fn responses_received(&self, class: usize) -> u64 {
        self.responses_received.at(class.wrapping_sub(1))
    }

    #[must_use]
    pub fn responses_sent(&self, class: usize) -> u64 {
        self.responses_sent.at(class.wrapping_sub(1))
    }

    /// Everything as metric samples. Off the packet path: it allocates.
    pub fn samples(&self, into: &mut Vec<Sample>) {
        let mut add = |name: &str, help: &str, label: Option<(&str, &str)>, value: u64| {
            into.push(counter(name, help, label, value));
        };
        for reason in DropReason::ALL {
            add(
                "drops_total",
                "Packets discarded without an answer",
                Some(("reason", reason.label())),
                self.drops(*reason),
            );
        }
        for cause in Cause::ALL {
            add(
                "refusals_total",
                "Requests refused by Ravelin itself",
                Some(("cause", cause.label())),
                self.refusals(*cause),
            );
        }
        for outcome in Outcome::ALL {
            add(
                "identity_verified_total",
                "Verifications of callers' Identity headers",
                Some(("outcome", outcome.label())),
                self.identity.at(outcome as usize),
            );
        }
        for (action, name) in ACTIONS {
            add(
                "rtp_timeouts_total",
                "Parties silent for longer than their trunk allows, by what was done",
                Some(("action", name)),
                self.rtp_timeouts(action),
            );
            for (loss, metric) in [
                (Loss::Handshake, "dtls_failures_total"),
                (Loss::Consent, "ice_consent_losses_total"),
            ] {
                add(
                    metric,
                    "Streams that nothing can pass in any more, by what was done",
                    Some(("action", name)),
                    self.media_failures(loss, action),
                );
            }
        }
        for method in MethodLabel::ALL {
            let label = Some(("method", method.label()));
            add(
                "requests_received_total",
                "SIP requests received",
                label,
                self.requests_received(*method),
            );
            add(
                "requests_sent_total",
                "SIP requests sent, retransmissions apart",
                label,
                self.requests_sent(*method),
            );
        }
        for (class, name) in (1..).zip(["1xx", "2xx", "3xx", "4xx", "5xx", "6xx"]) {
            let label = Some(("class", name));
            add(
                "responses_received_total",
                "SIP responses received",
                label,
                self.responses_received(class),
            );
            add(
                "responses_sent_total",
                "SIP responses sent, retransmissions apart",
                label,
                self.responses_sent(class),
            );
        }
        for (name, help, value) in [
            (
                "request_retransmissions_received_total",
                "Requests received again",
                self.request_retransmissions_received,
            ),
            (
                "response_retransmissions_received_total",
                "Responses received again",
                self.response_retransmissions_received,
            ),
            (
                "request_retransmissions_sent_total",
                "Requests sent again",
                self.request_retransmissions_sent,
            ),
            (
                "response_retransmissions_sent_total",
                "Responses sent again",
                self.response_retransmissions_sent,
            ),
            ("client_timeouts_total", "Requests never answered", self.client_timeouts),
            ("ack_timeouts_total", "Refusals of INVITEs never acknowledged", self.ack_timeouts),
            (
                "unacknowledged_2xx_total",
                "Answers to INVITEs never acknowledged",
                self.unacknowledged_2xx,
            ),
            (
                "unsigned_no_credential_total",
                "Calls that left unsigned for want of a credential",
                self.unsigned_no_credential,
            ),
            (
                "faults_contained_total",
                "Internal faults that ended one call",
                self.faults_contained,
            ),
            (
                "emergency_repaired_total",
                "Broken emergency requests that were mended and went on",
                self.emergency_repaired,
            ),
            (
                "emergency_excess_total",
                "Emergency calls beyond what one source may have ordinary calls ended for",
                self.emergency_excess,
            ),
            (
                "calls_preempted_total",
                "Ordinary calls that gave way to an emergency call",
                self.calls_preempted,
            ),
            ("calls_stopped_total", "Calls that the end of the process ended", self.calls_stopped),
            ("calls_adopted_total", "Calls taken over from the process before", self.calls_adopted),
            (
                "calls_not_adopted_total",
                "Calls of the process before that were ended because they could not go on",
                self.calls_not_adopted,
            ),
            (
                "checkpoints_unreadable_total",
                "Records of calls of the process before that could not be read",
                self.checkpoints_unreadable,
            ),
            (
                "checkpoints_too_long_total",
                "Confirmed calls that are too large for a record and would not live through a crash",
                self.checkpoints_too_long,
            ),
            ("checkpoints_total", "Records of confirmed calls written", self.checkpoints),
            ("transport_errors_total", "Requests that could not be sent", self.transport_errors),
            (
                "transactions_refused_total",
                "Requests for which the transaction table had no room",
                self.transactions_refused,
            ),
            ("tcp_for_size_total", "Large requests sent over TCP", self.tcp_for_size),
            (
                "tcp_for_size_failed_total",
                "Large requests that fell back to UDP",
                self.tcp_for_size_failed,
            ),
            ("rtp_packets_total", "RTP packets forwarded", self.rtp_packets),
            ("rtp_bytes_total", "RTP octets forwarded", self.rtp_bytes),
            ("rtcp_packets_total", "RTCP packets forwarded", self.rtcp_packets),
            (
                "rtp_expected_total",
                "RTP packets that the sequence numbers of ended calls' streams promised",
                self.rtp_expected,
            ),
            ("rtp_lost_total", "Of these, packets that never came", self.rtp_lost),
            ("dtmf_events_total", "Digits in RTP of ended calls", self.dtmf_events),
            (
                "media_ports_refused_total",
                "Allocations that found no free media port",
                self.media_ports_refused,
            ),
            (
                "calls_placed_total",
                "New calls handed to the next shard for want of a media port",
                self.calls_placed,
            ),
            (
                "placements_refused_total",
                "New calls that stayed without a media port, too many having gone to other shards",
                self.placements_refused,
            ),
            ("media_latched_total", "Parties found behind a NAT", self.media_latched),
        ] {
            add(name, help, None, value);
        }
    }
}

/// One counter as a sample.
#[must_use]
pub fn counter(name: &str, help: &str, label: Option<(&str, &str)>, value: u64) -> Sample {
    sample(name, help, SampleKind::Counter, label, value)
}

/// One gauge as a sample.
#[must_use]
pub fn gauge(name: &str, help: &str, label: Option<(&str, &str)>, value: u64) -> Sample {
    sample(name, help, SampleKind::Gauge, label, value)
}

fn sample(
    name: &str,
    help: &str,
    kind: SampleKind,
    label: Option<(&str, &str)>,
    value: u64,
) -> Sample {
    Sample {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        labels: label.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect(),
        // Exact up to 2^53, which a packet counter reaches after a century.
        value: value as f64,
    }
}
