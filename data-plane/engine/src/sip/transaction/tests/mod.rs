//! Every timer and race of RFC 3261 17 and RFC 6026 by virtual time.

mod client;
mod loss;
mod server;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use ravelin_wire::sip::{Framing, Message, Method};

use super::*;
use crate::{
    drops::DropReason,
    port::{FlowId, Local, Meta, Transport},
    sip::reply::{self, response_egress},
};

const LISTENER: ListenerId = ListenerId(0);

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5060))
}

fn udp() -> Egress {
    Egress::Udp { listener: LISTENER, to: peer() }
}

fn tcp() -> Egress {
    Egress::Connect { listener: LISTENER, to: peer(), transport: Transport::Tcp }
}

fn hop(egress: Egress) -> Hop {
    Hop { egress, tcp: None }
}

/// One side: a layer, its clock and what it sent.
struct Side {
    layer: Layer,
    wheel: Wheel,
    tx: TxQueue,
    counters: Counters,
    now: Instant,
}

/// What was sent: when (in milliseconds since the start), where and what.
#[derive(Clone, Debug)]
struct Sent {
    at: u64,
    egress: Egress,
    bytes: Vec<u8>,
}

impl Sent {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    fn starts(&self, start: &str) -> bool {
        self.bytes.starts_with(start.as_bytes())
    }
}

macro_rules! ctx {
    ($side:expr) => {
        &mut Ctx { wheel: &mut $side.wheel, tx: &mut $side.tx, counters: &mut $side.counters }
    };
}
use ctx;

impl Side {
    fn new(limits: Limits) -> Self {
        Self {
            layer: Layer::new(limits, &Seed([5; 32]), ShardId(2)),
            wheel: Wheel::new(Instant(0)),
            tx: TxQueue::default(),
            counters: Counters::default(),
            now: Instant(0),
        }
    }

    fn take_sent(&mut self) -> Vec<Sent> {
        let at = self.now.as_millis();
        let sent = self
            .tx
            .iter()
            .map(|tx| Sent { at, egress: tx.egress, bytes: tx.bytes.to_vec() })
            .collect();
        self.tx.clear();
        sent
    }

    /// Lets time pass; gives what was sent and what the TU was told meanwhile.
    fn run(&mut self, ms: u64) -> (Vec<Sent>, Vec<(u64, TuEvent)>) {
        let until = self.now + Duration::from_millis(ms);
        let (mut sent, mut events) = (self.take_sent(), Vec::new());
        while let Some(next) = self.wheel.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            while let Some(timer) = self.wheel.pop_expired(self.now) {
                let event = self.layer.fire(self.now, timer, ctx!(self));
                events.extend(event.map(|event| (self.now.as_millis(), event)));
                sent.extend(self.take_sent());
            }
        }
        self.now = until;
        (sent, events)
    }

    fn receive(&mut self, text: &str) -> ServerEvent {
        let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
        self.layer.receive_request(self.now, &message, ctx!(self))
    }

    fn receive_response(&mut self, text: &str) -> ClientEvent {
        let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
        self.layer.receive_response(self.now, &message, ctx!(self))
    }

    /// Starts a client transaction; gives it and the request as it went out.
    fn request(&mut self, method: &str, egress: Egress, owner: u64) -> (ClientKey, Sent) {
        self.request_of(method, hop(egress), owner, "")
    }

    fn request_of(&mut self, method: &str, hop: Hop, owner: u64, body: &str) -> (ClientKey, Sent) {
        let (client, branch) = self.layer.reserve_branch(Room::Ordinary, ctx!(self)).unwrap();
        let branch = std::str::from_utf8(&branch).unwrap();
        let transport = if matches!(hop.egress, Egress::Udp { .. }) { "UDP" } else { "TCP" };
        let text = format!(
            "{method} sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 192.0.2.9:5060;\
             branch={branch};rport\r\nRoute: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\nMax-Forwards: 69\r\n\
             From: \"A\" <sip:a@x>;tag=f1\r\nTo: <sip:b@y>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\n\
             Contact: <sip:us>\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let method = Method::of(method.as_bytes());
        let written =
            self.layer.request(self.now, client, method, hop, TuKey(owner), ctx!(self), |out| {
                out.extend_from_slice(text.as_bytes());
                Ok::<(), Infallible>(())
            });
        assert_eq!(written, Ok(()));
        let mut sent = self.take_sent();
        assert_eq!(sent.len(), 1);
        (client, sent.remove(0))
    }

    /// Opens the transaction of a new request that came by UDP from [`peer`].
    fn open(&mut self, text: &str, owner: u64) -> ServerKey {
        self.open_from(text, owner, Local::Signalling { listener: LISTENER })
    }

    fn open_from(&mut self, text: &str, owner: u64, local: Local) -> ServerKey {
        let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
        let event = self.layer.receive_request(self.now, &message, ctx!(self));
        let ServerEvent::New(new) = event else { panic!("{event:?}") };
        let meta = Meta { source: peer(), local };
        let egress = response_egress(&meta, &message.top_via()).unwrap();
        let method = message.method().unwrap();
        let server = self.layer.open(new, method, egress, Room::Ordinary, ctx!(self)).unwrap();
        self.layer.set_owner(server, TuKey(owner));
        server
    }

    fn respond(&mut self, server: ServerKey, request: &str, code: u16) -> Vec<Sent> {
        let request = Message::parse(request.as_bytes(), Framing::Datagram).unwrap();
        let written = self.layer.respond(self.now, server, code, ctx!(self), |out| {
            let tag: &[u8] = if code == 100 { b"" } else { b"t1" };
            let phrase = reply::phrase(code).as_bytes();
            reply::begin(&request, peer(), code, phrase, tag, out).finish()
        });
        assert_eq!(written, Ok(()));
        self.take_sent()
    }

    fn assert_empty(&self) {
        assert_eq!(
            (
                self.layer.clients(),
                self.layer.servers(),
                self.layer.buffers(),
                self.wheel.len(),
                self.layer.by_request.len(),
                self.layer.by_origin.len(),
                self.layer.unanswered.len(),
            ),
            (0, 0, 0, 0, 0, 0, 0)
        );
    }
}

/// An answer to `request` with To tag `tag`.
fn answer(request: &Sent, code: u16, tag: &str) -> String {
    let message = Message::parse(&request.bytes, Framing::Datagram).unwrap();
    let mut out = Vec::new();
    let phrase = reply::phrase(code).as_bytes();
    reply::begin(&message, peer(), code, phrase, tag.as_bytes(), &mut out).finish().unwrap();
    String::from_utf8(out).unwrap()
}

/// A request of a peer.
fn incoming(method: &str, branch: &str) -> String {
    let cseq = if method == "ACK" || method == "CANCEL" { "INVITE" } else { method };
    assert!(["INVITE", "BYE", "OPTIONS", "MESSAGE"].contains(&cseq));
    format!(
        "{method} sip:us SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@x>;tag=fa\r\nTo: <sip:b@y>{}\r\nCall-ID: c9\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n",
        if method == "ACK" { ";tag=t1" } else { "" }
    )
}

fn times(sent: &[Sent]) -> Vec<u64> {
    sent.iter().map(|sent| sent.at).collect()
}
