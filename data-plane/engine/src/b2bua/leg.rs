//! One leg of a call: the dialog with one peer, its offer/answer state, and what it waits for.

use ravelin_wire::sip::{Message, Method};
use smallvec::SmallVec;

use super::{dialog::Dialog, hiding::Hide, offer::Negotiation, sdp::Description};
pub(crate) use crate::media::Side;
use crate::{
    port::{Egress, ListenerId, Transport},
    sip::transaction::{ClientKey, Hop, ServerKey},
};

/// Our 2xx to an INVITE of the peer waits for its ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckExpected {
    pub server: ServerKey,
    pub cseq: u32,
}

/// How far the end of a leg is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Goodbye {
    #[default]
    No,
    /// Our BYE waits for the peer's ACK (RFC 3261 15).
    WhenAcknowledged,
    /// Our BYE is on its way.
    Sent(ClientKey),
    /// Nothing more to say on this leg.
    Done,
}

/// A leg.
#[derive(Debug)]
pub(crate) struct Leg {
    pub dialog: Dialog,
    pub listener: ListenerId,
    /// The way of our requests to the peer.
    pub hop: Hop,
    /// The peer's own addresses mean nothing here: its packets' source does.
    pub behind_nat: bool,
    pub negotiation: Negotiation,
    /// What we last told this peer about media.
    pub description: Description,
    pub ack_expected: Option<AckExpected>,
    /// CSeq of our INVITE whose 2xx waits for an ACK with the answer of the other side.
    pub ack_due: Option<u32>,
    /// The answer that the last ACK carried, for its retransmissions. Empty: none.
    pub ack_body: Vec<u8>,
    /// CSeq of that ACK.
    pub ack_body_cseq: u32,
    pub goodbye: Goodbye,
    /// Our user part on this side, for Contact.
    pub user: SmallVec<[u8; 32]>,
    /// Addresses of this side as they stand in URIs: the peer's, then our own.
    pub peer_host: SmallVec<[u8; 24]>,
    pub own_host: SmallVec<[u8; 24]>,
}

impl Leg {
    /// How a message of this leg's peer is made fit for `other`.
    pub(crate) fn hide<'a>(&'a self, other: &'a Self) -> Hide<'a> {
        Hide {
            hosts: [&self.peer_host, &self.own_host],
            by: &other.own_host,
            call_id: other.dialog.call_id(),
        }
    }

    /// Takes the remote target from a message that may refresh it (RFC 3261 12.2), and with it the
    /// way of our requests.
    pub(crate) fn retarget(&mut self, message: &Message<'_>) {
        self.dialog.retarget(message);
        self.find_way();
    }

    /// The way of our requests, after a change of target or route set.
    pub(crate) fn find_way(&mut self) {
        self.hop = request_hop(&self.dialog, self.behind_nat, self.hop);
        // Via and Contact name the listener that the requests leave from.
        if let Egress::Connect { listener, .. } = self.hop.egress {
            self.listener = listener;
        }
    }

    /// Whether an INVITE may be sent to this peer now.
    pub(crate) fn may_send_invite(&self) -> bool {
        self.negotiation.may_send_invite() && self.ack_expected.is_none() && self.ack_due.is_none()
    }
}

/// One request that one peer sent and the other must answer.
#[derive(Debug)]
pub(crate) struct Relay {
    pub from: Side,
    pub method: RelayMethod,
    pub server: ServerKey,
    pub client: ClientKey,
    /// CSeq of the peer's request and of ours.
    pub cseq_in: u32,
    pub cseq_out: u32,
    /// The request carried an offer.
    pub offer: bool,
    /// What a response repeats of the request.
    pub head: Vec<u8>,
}

/// Requests that are relayed inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayMethod {
    Invite,
    Update,
    Info,
    Message,
}

impl RelayMethod {
    pub(crate) fn of(method: Method<'_>) -> Option<Self> {
        match method {
            Method::Invite => Some(Self::Invite),
            Method::Update => Some(Self::Update),
            Method::Info => Some(Self::Info),
            Method::Message => Some(Self::Message),
            _ => None,
        }
    }

    pub(crate) const fn method(self) -> Method<'static> {
        match self {
            Self::Invite => Method::Invite,
            Self::Update => Method::Update,
            Self::Info => Method::Info,
            Self::Message => Method::Message,
        }
    }

    /// Whether it makes or changes the dialog: its answers carry Contact and refresh the target.
    pub(crate) const fn refreshes_target(self) -> bool {
        matches!(self, Self::Invite | Self::Update)
    }
}

/// Where our requests to a peer go: to the next hop's literal address; to the packet's source if
/// the next hop is a name (no DNS here), or if the peer is behind a NAT, which shows in a Via that
/// does not name the source.
fn request_hop(dialog: &Dialog, behind_nat: bool, default: Hop) -> Hop {
    if behind_nat {
        return default;
    }
    let Some(uri) = dialog.next_hop() else { return default };
    let Some(address) = socket_address(&uri) else { return default };
    let wants_tcp = uri.params.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"transport")
            && value.is_some_and(|value| value.eq_ignore_ascii_case(b"tcp"))
    });
    let egress = match default.egress {
        // RFC 3263 4.1: the URI says how.
        Egress::Udp { .. } if wants_tcp && default.tcp.is_some() => {
            let listener = default.tcp.map_or(ListenerId(0), |(listener, _)| listener);
            let egress = Egress::Connect { listener, to: address, transport: Transport::Tcp };
            return Hop { egress, tcp: None };
        }
        Egress::Udp { listener, .. } => Egress::Udp { listener, to: address },
        Egress::Flow { flow, or_connect } => {
            Egress::Flow { flow, or_connect: or_connect.map(|(listener, _)| (listener, address)) }
        }
        Egress::Connect { listener, transport, .. } => {
            Egress::Connect { listener, to: address, transport }
        }
        Egress::Media { .. } => return default,
    };
    let tcp = default.tcp.map(|(listener, _)| (listener, address));
    Hop { egress, tcp }
}

/// Address of a URI with a literal host.
pub(crate) fn socket_address(uri: &ravelin_wire::sip::Uri<'_>) -> Option<std::net::SocketAddr> {
    let host = uri.host_ip()?;
    let port = uri.port.filter(|port| *port != 0).unwrap_or(5060);
    (!host.is_unspecified() && !host.is_multicast()).then(|| std::net::SocketAddr::new(host, port))
}

/// Whether the packet's source is not what the top Via says.
pub(crate) fn is_behind_nat(message: &Message<'_>, source: std::net::SocketAddr) -> bool {
    match message.top_via().host() {
        Some(ravelin_wire::sip::Host::Ip(ip)) => ip != source.ip(),
        _ => false,
    }
}
