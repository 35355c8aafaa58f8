//! One dialog of ours with one peer (RFC 3261 12), kept as the text that goes into requests: what is
//! the same in each of them is written once.

use ravelin_wire::sip::{HeaderName, Message, Uri};
use smallvec::SmallVec;

use super::headers::{push_number, push_value};
use crate::ids::TagText;

/// A tag of a peer. Longer ones take memory of their own.
pub(crate) type PeerTag = SmallVec<[u8; 40]>;
/// A URI of a peer.
pub(crate) type UriText = SmallVec<[u8; 64]>;

/// Route values that a dialog keeps. A peer that record-routes more is refused.
pub(crate) const ROUTES_MAX: usize = 16;

/// A dialog, early or confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    /// `Call-ID`, `From` and `To` lines of our requests, complete but for what follows `to_end`.
    identity: SmallVec<[u8; 256]>,
    /// Where the Call-ID value ends in `identity`; it begins behind the header name.
    call_id_end: usize,
    /// Where the To value without the peer's tag ends.
    to_end: usize,
    pub local_tag: TagText,
    /// Empty until the peer has one.
    pub remote_tag: PeerTag,
    /// Request-URI of our requests: the peer's Contact.
    pub target: UriText,
    /// `Route` lines of our requests, complete.
    routes: SmallVec<[u8; 16]>,
    /// The first route is a strict router: it stands in the Request-URI, and the target at the end
    /// of the route set (RFC 3261 12.2.1.1).
    strict: bool,
    /// Of our last request.
    pub local_cseq: u32,
    /// Of the peer's last request; `None` before the first.
    pub remote_cseq: Option<u32>,
}

/// What a dialog is made of, for a record of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub identity: &'a [u8],
    pub call_id_end: u16,
    pub to_end: u16,
    pub local_tag: TagText,
    pub remote_tag: &'a [u8],
    pub target: &'a [u8],
    pub routes: &'a [u8],
    pub strict: bool,
    pub local_cseq: u32,
    pub remote_cseq: Option<u32>,
}

const CALL_ID_NAME: &[u8] = b"Call-ID: ";
const ROUTE_NAME: &[u8] = b"Route: ";

impl Dialog {
    /// The dialog of a request that we received: we are the UAS. `local` and `remote` are the whole
    /// To and From values of the request; they change sides in what we send.
    pub(crate) fn incoming(request: &Message<'_>, local_tag: TagText) -> Self {
        let (from, to) = (raw(request, HeaderName::From), raw(request, HeaderName::To));
        let mut dialog = Self::begin(request.call_id(), local_tag);
        dialog.lines(to, from);
        dialog.remote_tag = request.from().tag().unwrap_or_default().into();
        dialog.to_end = dialog.identity.len();
        dialog.remote_cseq = Some(request.cseq().number);
        dialog.retarget(request);
        dialog.learn_routes(request, false);
        dialog
    }

    /// The dialog of a request that we are about to send: we are the UAC. `from` and `to` are whole
    /// values without tags.
    pub(crate) fn outgoing(call_id: &[u8], local_tag: TagText, from: &[u8], to: &[u8]) -> Self {
        let mut dialog = Self::begin(call_id, local_tag);
        dialog.lines(from, to);
        dialog.to_end = dialog.identity.len();
        dialog
    }

    /// Target and route set of a 2xx of ours that no dialog awaits.
    pub(crate) fn stranger(response: &Message<'_>) -> Self {
        let mut dialog = Self::begin(response.call_id(), TagText::default());
        dialog.retarget(response);
        dialog.learn_routes(response, true);
        dialog
    }

    /// The parts; a length beyond 65,535 is told as that, which no record has room for.
    pub(crate) fn parts(&self) -> Parts<'_> {
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        Parts {
            identity: &self.identity,
            call_id_end: short(self.call_id_end),
            to_end: short(self.to_end),
            local_tag: self.local_tag,
            remote_tag: &self.remote_tag,
            target: &self.target,
            routes: &self.routes,
            strict: self.strict,
            local_cseq: self.local_cseq,
            remote_cseq: self.remote_cseq,
        }
    }

    pub(crate) fn from_parts(parts: &Parts<'_>) -> Self {
        Self {
            identity: SmallVec::from_slice(parts.identity),
            call_id_end: usize::from(parts.call_id_end),
            to_end: usize::from(parts.to_end),
            local_tag: parts.local_tag,
            remote_tag: SmallVec::from_slice(parts.remote_tag),
            target: SmallVec::from_slice(parts.target),
            routes: SmallVec::from_slice(parts.routes),
            strict: parts.strict,
            local_cseq: parts.local_cseq,
            remote_cseq: parts.remote_cseq,
        }
    }

    fn begin(call_id: &[u8], local_tag: TagText) -> Self {
        let mut identity = SmallVec::new();
        identity.extend_from_slice(CALL_ID_NAME);
        identity.extend_from_slice(call_id);
        Self {
            call_id_end: identity.len(),
            identity,
            to_end: 0,
            local_tag,
            remote_tag: PeerTag::new(),
            target: UriText::new(),
            routes: SmallVec::new(),
            strict: false,
            local_cseq: 0,
            remote_cseq: None,
        }
    }

    fn lines(&mut self, local: &[u8], remote: &[u8]) {
        let mut line = Vec::with_capacity(local.len() + remote.len() + 64);
        line.extend_from_slice(b"\r\nFrom: ");
        push_value(local, &mut line);
        line.extend_from_slice(b";tag=");
        line.extend_from_slice(&self.local_tag);
        line.extend_from_slice(b"\r\nTo: ");
        push_value(remote, &mut line);
        self.identity.extend_from_slice(&line);
    }

    pub(crate) fn call_id(&self) -> &[u8] {
        self.identity.get(CALL_ID_NAME.len()..self.call_id_end).unwrap_or_default()
    }

    /// Takes the peer's tag, or another one of another branch of a fork.
    pub(crate) fn set_remote_tag(&mut self, tag: &[u8]) {
        self.remote_tag = tag.into();
        self.identity.truncate(self.to_end);
        if !tag.is_empty() {
            self.identity.extend_from_slice(b";tag=");
            self.identity.extend_from_slice(tag);
        }
    }

    /// Takes another tag of ours, for another dialog of the same INVITE (RFC 3261 12.1).
    pub(crate) fn set_local_tag(&mut self, tag: TagText) {
        replace_tag(&mut self.identity, &self.local_tag, &tag);
        self.local_tag = tag;
    }

    /// Takes the remote target from the Contact of a request or response that may refresh it
    /// (RFC 3261 12.2). Without a Contact nothing changes.
    pub(crate) fn retarget(&mut self, message: &Message<'_>) {
        if let Some(contact) = message.contact() {
            self.target = contact.uri.into();
        }
    }

    /// Takes the route set: as it stands for the UAS, reversed for the UAC (RFC 3261 12.1). Returns
    /// false if there are more than [`ROUTES_MAX`].
    pub(crate) fn learn_routes(&mut self, message: &Message<'_>, reversed: bool) -> bool {
        let mut values: SmallVec<[&[u8]; ROUTES_MAX]> = SmallVec::new();
        for value in message.values(HeaderName::RecordRoute) {
            if values.len() == ROUTES_MAX {
                return false;
            }
            values.push(value);
        }
        if reversed {
            values.reverse();
        }
        self.routes.clear();
        let mut line = Vec::new();
        for value in values {
            line.clear();
            line.extend_from_slice(ROUTE_NAME);
            push_value(value, &mut line);
            line.extend_from_slice(b"\r\n");
            self.routes.extend_from_slice(&line);
        }
        self.strict = self.first_route().and_then(Uri::parse).is_some_and(|uri| {
            !uri.params.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"lr"))
        });
        true
    }

    /// URI of the first route.
    fn first_route(&self) -> Option<&[u8]> {
        let routes = self.routes.strip_prefix(ROUTE_NAME)?;
        let line = routes.split(|&b| b == b'\r').next()?;
        match line.iter().position(|&b| b == b'<') {
            Some(open) => line.get(open + 1..)?.split(|&b| b == b'>').next(),
            None => Some(line),
        }
    }

    /// Request-URI of our requests: the target, or the strict router before it.
    pub(crate) fn request_uri(&self) -> &[u8] {
        let router = if self.strict { self.first_route() } else { None };
        router.unwrap_or(&self.target)
    }

    /// Appends the Route lines of our requests.
    pub(crate) fn write_routes(&self, out: &mut Vec<u8>) {
        if !self.strict {
            return out.extend_from_slice(&self.routes);
        }
        let first = self.routes.iter().position(|&b| b == b'\n').map_or(0, |end| end + 1);
        out.extend_from_slice(self.routes.get(first..).unwrap_or_default());
        out.extend_from_slice(b"Route: <");
        push_value(&self.target, out);
        out.extend_from_slice(b">\r\n");
    }

    /// Whether a request inside the dialog is of this one. Our own tag was compared already.
    pub(crate) fn matches(&self, request: &Message<'_>) -> bool {
        request.from().tag().unwrap_or_default() == self.remote_tag.as_slice()
            && request.call_id() == self.call_id()
    }

    /// URI of the next hop of our requests: the first route, else the target.
    pub(crate) fn next_hop(&self) -> Option<Uri<'_>> {
        let first = if self.routes.is_empty() { Some(&*self.target) } else { self.first_route() };
        first.and_then(Uri::parse)
    }

    /// Checks the CSeq of a request of the peer, ACK and CANCEL apart, and takes it. False: lower
    /// than the last (RFC 3261 12.2.2).
    pub(crate) fn take_cseq(&mut self, number: u32) -> bool {
        let fresh = self.remote_cseq.is_none_or(|last| number > last);
        if fresh {
            self.remote_cseq = Some(number);
        }
        fresh
    }

    /// CSeq of the next request of ours.
    pub(crate) fn next_cseq(&mut self) -> u32 {
        // CSeq is below 2^31 (RFC 3261 8.1.1.5): a call does not send so many requests.
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.local_cseq
    }

    /// Appends Route, Call-ID, From, To and CSeq of a request of ours.
    pub(crate) fn write(&self, cseq: u32, method: &[u8], out: &mut Vec<u8>) {
        self.write_routes(out);
        out.extend_from_slice(&self.identity);
        out.extend_from_slice(b"\r\nCSeq: ");
        push_number(u64::from(cseq), out);
        out.push(b' ');
        out.extend_from_slice(method);
        out.extend_from_slice(b"\r\n");
    }
}

/// Puts `new` in the place of our tag `old`, which stands in `text` at most once: nobody can foresee
/// it.
pub(crate) fn replace_tag(text: &mut [u8], old: &TagText, new: &TagText) {
    let at = text.windows(old.len()).position(|window| window == old);
    if let Some(place) = at.and_then(|at| text.get_mut(at..at + new.len())) {
        place.copy_from_slice(new);
    }
}

/// First raw value of a header that is there once.
pub(crate) fn raw<'a>(message: &Message<'a>, name: HeaderName) -> &'a [u8] {
    message.header(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ravelin_wire::sip::Framing;

    use super::*;

    const TAG: TagText = *b"00000000010123456789abcdef";

    const INVITE: &[u8] = b"INVITE sip:1@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n\
        Record-Route: <sip:p2;lr>, <sip:192.0.2.2:5070;lr>\r\nRecord-Route: <sip:p1;lr>\r\n\
        From: \"A\" <sip:a@a>;tag=x1;p=q\r\nTo: <sip:1@b>\r\nCall-ID: c@a\r\nCSeq: 7 INVITE\r\n\
        Contact: <sip:a@192.0.2.1:5080>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

    fn text(dialog: &Dialog, cseq: u32, method: &[u8]) -> String {
        let mut out = Vec::new();
        dialog.write(cseq, method, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_uas_turns_the_identities_round_and_keeps_the_route_order() {
        let request = Message::parse(INVITE, Framing::Datagram).unwrap();
        let mut dialog = Dialog::incoming(&request, TAG);
        let cseq = dialog.next_cseq();
        assert_eq!(
            text(&dialog, cseq, b"BYE"),
            "Route: <sip:p2;lr>\r\nRoute: <sip:192.0.2.2:5070;lr>\r\nRoute: <sip:p1;lr>\r\n\
             Call-ID: c@a\r\nFrom: <sip:1@b>;tag=00000000010123456789abcdef\r\n\
             To: \"A\" <sip:a@a>;tag=x1;p=q\r\nCSeq: 1 BYE\r\n"
        );
        assert_eq!(dialog.target.as_slice(), b"sip:a@192.0.2.1:5080");
        assert_eq!(dialog.next_hop().unwrap().host, b"p2");
        assert!(!dialog.take_cseq(7));
        assert!(dialog.take_cseq(8));
    }

    #[test]
    fn the_uac_takes_the_tag_of_the_newest_fork_and_reverses_the_routes() {
        let mut dialog = Dialog::outgoing(b"id", TAG, b"<sip:a@us>", b"<sip:1@them>");
        let cseq = dialog.next_cseq();
        assert!(text(&dialog, cseq, b"INVITE").contains("\r\nTo: <sip:1@them>\r\n"));
        dialog.set_remote_tag(b"f1");
        dialog.set_remote_tag(b"f2");
        let request = Message::parse(INVITE, Framing::Datagram).unwrap();
        assert!(dialog.learn_routes(&request, true));
        let out = text(&dialog, cseq, b"ACK");
        assert!(
            out.starts_with("Route: <sip:p1;lr>\r\nRoute: <sip:192.0.2.2:5070;lr>\r\n"),
            "{out}"
        );
        assert!(out.ends_with("To: <sip:1@them>;tag=f2\r\nCSeq: 1 ACK\r\n"), "{out}");
    }

    /// RFC 3261 12.2.1.1, 16.12.1.1.
    #[test]
    fn a_strict_router_stands_in_the_request_uri_and_the_target_last() {
        let text_of = |routes: &str| {
            let invite = std::str::from_utf8(INVITE).unwrap().replace(
                "Record-Route: <sip:p2;lr>, <sip:192.0.2.2:5070;lr>\r\nRecord-Route: <sip:p1;lr>",
                routes,
            );
            let request = Message::parse(invite.as_bytes(), Framing::Datagram).unwrap();
            let dialog = Dialog::incoming(&request, TAG);
            let mut out = Vec::new();
            dialog.write_routes(&mut out);
            (
                String::from_utf8(dialog.request_uri().to_vec()).unwrap(),
                String::from_utf8(out).unwrap(),
                String::from_utf8(dialog.next_hop().unwrap().host.to_vec()).unwrap(),
            )
        };
        let (uri, routes, hop) = text_of("Record-Route: <sip:192.0.2.9:5070>, <sip:p1;lr>");
        assert_eq!(uri, "sip:192.0.2.9:5070");
        assert_eq!(routes, "Route: <sip:p1;lr>\r\nRoute: <sip:a@192.0.2.1:5080>\r\n");
        assert_eq!(hop, "192.0.2.9");
        // A strict router behind a loose one is that one's affair.
        let (uri, routes, _) = text_of("Record-Route: <sip:p2;LR>, <sip:p1>");
        assert_eq!(uri, "sip:a@192.0.2.1:5080");
        assert_eq!(routes, "Route: <sip:p2;LR>\r\nRoute: <sip:p1>\r\n");
    }

    #[test]
    fn another_tag_of_ours_takes_the_place_of_the_first() {
        let request = Message::parse(INVITE, Framing::Datagram).unwrap();
        let mut dialog = Dialog::incoming(&request, TAG);
        let other = *b"0000000001ffffffffffffffff";
        dialog.set_local_tag(other);
        let out = text(&dialog, 1, b"BYE");
        assert!(out.contains("From: <sip:1@b>;tag=0000000001ffffffffffffffff\r\n"), "{out}");
        assert_eq!(dialog.local_tag, other);
    }
}
