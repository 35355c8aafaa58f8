//! The two parties of a call, as the test plays them.

use super::*;

/// The host of an address as URIs write it.
fn host(of: &str) -> String {
    match addr(of).ip() {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// The caller's side of a call, as the test plays it.
#[derive(Clone, Debug)]
pub struct Caller {
    pub from: String,
    pub listener: u16,
    pub call_id: String,
    pub invite: String,
    pub remote: String,
    pub to: String,
    pub branch: String,
    pub cseq: u32,
}

impl Caller {
    /// An INVITE from the PBX to a number, with an offer.
    pub fn dial(world: &mut World, number: &str) -> Self {
        let body = sdp_part("127.0.1.1", 40_000);
        Self::invite(world, PBX, ACCESS, &format!("sip:{number}@127.0.0.10"), &body)
    }

    pub fn invite(world: &mut World, from: &str, listener: u16, uri: &str, more: &str) -> Self {
        let branch = world.branch();
        let ip = host(from);
        let call_id = format!("call-{branch}@{ip}");
        let to = format!("<{uri}>");
        let invite = format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP {from};branch={branch}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\nTo: {to}\nCall-ID: {call_id}\n\
             CSeq: 1 INVITE\nContact: <sip:+13135550100@{from}>\n{more}"
        );
        world.send(from, listener, &invite);
        Self {
            from: from.to_owned(),
            listener,
            call_id,
            invite,
            remote: String::new(),
            to,
            branch,
            cseq: 1,
        }
    }

    /// Takes dialog state from a response.
    pub fn learn(&mut self, response: &Msg) {
        self.to = response.header("To").to_owned();
        if let Some(contact) = response.try_header("Contact") {
            self.remote = contact.trim_matches(['<', '>']).to_owned();
        }
    }

    fn head(&self, method: &str, cseq: u32, branch: &str) -> String {
        let ip = host(&self.from);
        format!(
            "{method} {} SIP/2.0\nVia: SIP/2.0/UDP {};branch={branch}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\nTo: {}\nCall-ID: {}\n\
             CSeq: {cseq} {method}\n",
            self.remote, self.from, self.to, self.call_id
        )
    }

    pub fn ack(&self, world: &mut World, more: &str) {
        self.ack_of(world, self.cseq, more);
    }

    pub fn ack_of(&self, world: &mut World, cseq: u32, more: &str) {
        let branch = world.branch();
        let message = format!("{}{more}", self.head("ACK", cseq, &branch));
        world.send(&self.from, self.listener, &message);
    }

    /// ACK of a refusal: same branch, same Request-URI.
    pub fn ack_refusal(&self, world: &mut World, response: &Msg) {
        let uri = self.invite.split(' ').nth(1).unwrap();
        let message = format!(
            "ACK {uri} SIP/2.0\nVia: SIP/2.0/UDP {};branch={}\nFrom: {}\nTo: {}\nCall-ID: {}\n\
             CSeq: 1 ACK\nMax-Forwards: 70\n",
            self.from,
            self.branch,
            response.header("From"),
            response.header("To"),
            self.call_id
        );
        world.send(&self.from, self.listener, &message);
    }

    pub fn cancel(&self, world: &mut World) {
        let uri = self.invite.split(' ').nth(1).unwrap();
        let ip = host(&self.from);
        let to = self.invite.lines().find(|line| line.starts_with("To:")).unwrap();
        let message = format!(
            "CANCEL {uri} SIP/2.0\nVia: SIP/2.0/UDP {};branch={}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\n{to}\nCall-ID: {}\nCSeq: 1 CANCEL\n",
            self.from, self.branch, self.call_id
        );
        world.send(&self.from, self.listener, &message);
    }

    /// A new request inside the dialog.
    pub fn request(&mut self, world: &mut World, method: &str, more: &str) {
        self.request_over(world, method, 70, more);
    }

    /// The same with so many hops left.
    pub fn request_over(&mut self, world: &mut World, method: &str, hops: u32, more: &str) {
        self.cseq += 1;
        let branch = world.branch();
        let contact = format!("Contact: <sip:+13135550100@{}>\n", self.from);
        let head = self.head(method, self.cseq, &branch);
        let head = head.replace("Max-Forwards: 70", &format!("Max-Forwards: {hops}"));
        world.send(&self.from, self.listener, &format!("{head}{contact}{more}"));
    }
}

/// The callee's side of a call, as the test plays it.
#[derive(Clone, Debug)]
pub struct Callee {
    pub at: String,
    pub tag: String,
    pub invite: Msg,
    pub cseq: u32,
}

impl Callee {
    /// Takes the INVITE that arrived.
    #[track_caller]
    pub fn take(world: &mut World, at: &str) -> Self {
        let invite = world.expect(at, "INVITE ");
        Self {
            at: at.to_owned(),
            tag: format!("callee{at}").replace([':', '.'], "-"),
            invite,
            cseq: 0,
        }
    }

    pub fn reply(&self, world: &mut World, status: &str, more: &str) {
        let contact = format!("Contact: <sip:callee@{}>\n", self.at);
        let message = self.invite.reply(status, &self.tag, &format!("{contact}{more}"));
        world.send(&self.at, CORE, &message);
    }

    pub fn answer(&self, world: &mut World) {
        let ip = addr(&self.at).ip().to_string();
        self.reply(world, "200 OK", &sdp_part(&ip, 50_000));
    }

    /// A new request inside the dialog.
    pub fn request(&mut self, world: &mut World, method: &str, more: &str) {
        self.cseq += 1;
        let branch = world.branch();
        let target = self.invite.contact_uri();
        let message = format!(
            "{method} {target} SIP/2.0\nVia: SIP/2.0/UDP {at};branch={branch}\nMax-Forwards: 70\n\
             From: {to};tag={tag}\nTo: {from}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\n\
             Contact: <sip:callee@{at}>\n{more}",
            at = self.at,
            to = self.invite.header("To"),
            tag = self.tag,
            from = self.invite.header("From"),
            call_id = self.invite.header("Call-ID"),
            cseq = self.cseq,
        );
        let at = self.at.clone();
        world.send(&at, CORE, &message);
    }
}

/// A call from the PBX through carrier-a, answered and acknowledged.
#[track_caller]
pub fn connected(world: &mut World) -> (Caller, Callee) {
    let mut caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.reply(world, "180 Ringing", "");
    let ringing = world.expect(PBX, "SIP/2.0 180");
    caller.learn(&ringing);
    callee.answer(world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    world.quiet();
    (caller, callee)
}
