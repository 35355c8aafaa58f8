//! A SIP endpoint between two of which the engine stands: caller and callee of many calls at once.
//! It follows RFC 3261 as a telephone does: it retransmits, absorbs, acknowledges and gives up.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::{
    act::{Act, Effect, Outcome, Wake},
    rng::Rng,
    text::{self, Received},
};

/// RFC 3261 T1, T2 and 64*T1 in milliseconds.
const T1_MS: u64 = 500;
const T2_MS: u64 = 4_000;
pub(super) const GIVE_UP_MS: u64 = 64 * T1_MS;

/// Something that is sent again until the other side reacts.
#[derive(Clone, Debug)]
struct Unanswered {
    key: Key,
    bytes: Vec<u8>,
    interval_ms: u64,
    cap_ms: u64,
    since_ms: u64,
    /// A provisional response stops an INVITE's retransmission, but not the wait.
    silent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Request {
        branch: String,
        method: &'static str,
    },
    /// A final response to INVITE that waits for ACK, by CSeq number.
    Response {
        cseq: u32,
        success: bool,
    },
}

/// One call of one peer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    caller: bool,
    acts: Vec<Act>,
    call_id: String,
    local: String,
    remote: String,
    local_tag: String,
    target: String,
    cseq: u32,
    invite_branch: String,
    invite_pending: bool,
    /// An UPDATE with an offer waits for its answer.
    update_pending: bool,
    reinvite_sent: u32,
    /// Offers made again after a 491.
    retries: u32,
    cancelled: bool,
    invite: Option<Received>,
    unanswered: BTreeMap<u64, Unanswered>,
    responses: HashMap<(String, String), Vec<u8>>,
    ack: HashMap<u32, Vec<u8>>,
    media_to: Option<SocketAddr>,
    sdp_version: u32,
    started_ms: u64,
    pub(super) outcome: Outcome,
}

/// One endpoint: one address and port for the signalling of all its calls.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) sbc: SocketAddr,
    pub(super) calls: BTreeMap<u32, Call>,
    by_call_id: HashMap<String, u32>,
    next_id: u64,
    rng: Rng,
}

impl Peer {
    #[must_use]
    pub(super) fn new(address: SocketAddr, sbc: SocketAddr, rng: Rng) -> Self {
        Self { address, sbc, calls: BTreeMap::new(), by_call_id: HashMap::new(), next_id: 1, rng }
    }

    /// Media address of call `number` at this peer.
    #[must_use]
    pub(super) fn media(&self, number: u32) -> SocketAddr {
        let port = u16::try_from(40_000 + number % 10_000 * 2).unwrap_or(40_000);
        SocketAddr::new(self.address.ip(), port)
    }

    /// Prepares this peer to be the callee of call `number`.
    pub(super) fn expect(&mut self, number: u32, acts: Vec<Act>) {
        let call = self.blank(number, false, acts);
        self.calls.insert(number, call);
    }

    /// Starts call `number` to `uri_user` as the caller.
    pub(super) fn dial(
        &mut self,
        now: u64,
        number: u32,
        user: &str,
        acts: Vec<Act>,
    ) -> Vec<Effect> {
        let mut call = self.blank(number, true, acts);
        call.started_ms = now;
        call.call_id = format!("{:016x}-{number}@{}", self.rng.next(), self.address.ip());
        call.local_tag = format!("{:08x}", self.rng.next() as u32);
        call.local = format!(
            "\"Peer, {number}\" <sip:+1313555{:04}@{}>;tag={}",
            number % 10_000,
            self.address.ip(),
            call.local_tag
        );
        call.remote = format!("<sip:{user}@{}>", self.sbc.ip());
        call.target = format!("sip:{user}@{}", self.sbc);
        self.by_call_id.insert(call.call_id.clone(), number);
        self.calls.insert(number, call);
        let mut effects = self.send_invite(now, number, "sendrecv");
        effects.extend(self.start_clock_of_death(now, number));
        effects
    }

    fn blank(&mut self, number: u32, caller: bool, acts: Vec<Act>) -> Call {
        Call {
            number,
            caller,
            acts,
            call_id: String::new(),
            local: String::new(),
            remote: String::new(),
            local_tag: String::new(),
            target: String::new(),
            cseq: self.rng.between(1, 1000) as u32,
            invite_branch: String::new(),
            invite_pending: false,
            update_pending: false,
            reinvite_sent: 0,
            retries: 0,
            cancelled: false,
            invite: None,
            unanswered: BTreeMap::new(),
            responses: HashMap::new(),
            ack: HashMap::new(),
            media_to: None,
            sdp_version: 1,
            started_ms: 0,
            outcome: Outcome::default(),
        }
    }

    fn start_clock_of_death(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let call = &self.calls[&number];
        let death = call.acts.iter().enumerate().find_map(|(index, act)| match act {
            Act::Die { after_ms } => Some((index, *after_ms)),
            _ => None,
        });
        death
            .map(|(index, after_ms)| Effect::Wake {
                call: number,
                at_ms: now + after_ms,
                wake: Wake::Act { index },
            })
            .into_iter()
            .collect()
    }

    /// A datagram for this peer's signalling address.
    pub(super) fn receive(&mut self, now: u64, bytes: &[u8]) -> Vec<Effect> {
        let Some(message) = Received::parse(bytes) else {
            panic!("a peer got octets that are no SIP: {:?}", String::from_utf8_lossy(bytes));
        };
        if message.method() == Some("OPTIONS") && message.to_tag().is_none() {
            return vec![self.answer_probe(&message)];
        }
        let number = match self.by_call_id.get(message.call_id()) {
            Some(number) => *number,
            None if message.method() == Some("INVITE") => match self.new_callee(now, &message) {
                Some(number) => number,
                None => return vec![self.simple(&message, 404, "Not Found")],
            },
            None if message.method() == Some("ACK") || message.code().is_some() => return vec![],
            None => return vec![self.simple(&message, 481, "Call/Transaction Does Not Exist")],
        };
        if self.calls[&number].outcome.died {
            return vec![];
        }
        if message.code().is_some() {
            self.response(now, number, &message)
        } else {
            self.request(now, number, &message)
        }
    }

    /// A datagram for one of this peer's media ports.
    pub(super) fn receive_rtp(&mut self, at: SocketAddr, bytes: &[u8]) {
        let Some(call) = self
            .calls
            .values_mut()
            .find(|call| u32::from(at.port()) == 40_000 + call.number % 10_000 * 2)
        else {
            return;
        };
        let number = bytes
            .get(12..16)
            .map(|octets| u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]));
        if number == Some(call.number) {
            call.outcome.rtp += 1;
        } else {
            call.outcome.foreign_rtp += 1;
        }
    }

    pub(super) fn wake(&mut self, now: u64, number: u32, wake: Wake) -> Vec<Effect> {
        if self.calls[&number].outcome.died {
            return vec![];
        }
        match wake {
            Wake::Again { id } => self.again(now, number, id),
            Wake::Act { index } => self.act(now, number, index),
            Wake::Final => self.callee_final(now, number),
            Wake::Rtp { left } => self.send_rtp(now, number, left),
        }
    }

    fn again(&mut self, now: u64, number: u32, id: u64) -> Vec<Effect> {
        let (from, to) = (self.address, self.sbc);
        let call = self.call(number);
        let Some(item) = call.unanswered.get_mut(&id) else { return vec![] };
        if now >= item.since_ms + GIVE_UP_MS && !(item.silent && now < item.since_ms + 180_000) {
            let key = item.key.clone();
            call.unanswered.remove(&id);
            return match key {
                Key::Request { method: "INVITE", .. } if !call.outcome.answered => {
                    call.outcome.ended = true;
                    call.outcome.refused = Some(408);
                    vec![]
                }
                Key::Request { method: "BYE", .. } => {
                    call.outcome.ended = true;
                    vec![]
                }
                Key::Response { success: true, .. } if !call.outcome.ended => {
                    call.outcome.unacknowledged = true;
                    self.bye(now, number)
                }
                _ => vec![],
            };
        }
        item.interval_ms = (item.interval_ms * 2).min(item.cap_ms);
        let wake =
            Effect::Wake { call: number, at_ms: now + item.interval_ms, wake: Wake::Again { id } };
        if item.silent {
            return vec![wake];
        }
        vec![Effect::Send { from, to, bytes: item.bytes.clone() }, wake]
    }

    fn until_answered(&mut self, now: u64, number: u32, key: Key, bytes: Vec<u8>) -> Vec<Effect> {
        let id = self.next_id;
        self.next_id += 1;
        let capped = !matches!(&key, Key::Request { method: "INVITE", .. });
        let item = Unanswered {
            key,
            bytes: bytes.clone(),
            interval_ms: T1_MS,
            cap_ms: if capped { T2_MS } else { GIVE_UP_MS },
            since_ms: now,
            silent: false,
        };
        self.call(number).unanswered.insert(id, item);
        vec![
            Effect::Send { from: self.address, to: self.sbc, bytes },
            Effect::Wake { call: number, at_ms: now + T1_MS, wake: Wake::Again { id } },
        ]
    }

    fn act(&mut self, now: u64, number: u32, index: usize) -> Vec<Effect> {
        let call = self.call(number);
        if call.outcome.ended && !matches!(call.acts[index], Act::Die { .. }) {
            return vec![];
        }
        match call.acts[index] {
            Act::Die { .. } => {
                call.outcome.died = true;
                call.unanswered.clear();
                vec![]
            }
            Act::Cancel { .. } if !call.outcome.answered => self.cancel(now, number),
            Act::Bye { .. } => self.bye(now, number),
            Act::Reinvite { .. } => {
                if call.offer_under_way() {
                    return vec![];
                }
                call.reinvite_sent += 1;
                let direction = if call.reinvite_sent % 2 == 1 { "sendonly" } else { "sendrecv" };
                self.send_invite(now, number, direction)
            }
            Act::Update { .. } => {
                if call.offer_under_way() {
                    return vec![];
                }
                call.update_pending = true;
                call.sdp_version += 1;
                let version = call.sdp_version;
                let media = self.media(number);
                let ip = media.ip().to_string();
                let body = text::sdp(&ip, media.port(), version, "sendrecv");
                self.in_dialog(now, number, "UPDATE", &body)
            }
            Act::Request { method, .. } => {
                let body = String::new();
                self.in_dialog(now, number, method, &body)
            }
            _ => vec![],
        }
    }

    fn send_invite(&mut self, now: u64, number: u32, direction: &str) -> Vec<Effect> {
        let media = self.media(number);
        let branch = self.branch();
        let call = self.call(number);
        call.sdp_version += 1;
        call.invite_branch.clone_from(&branch);
        call.invite_pending = true;
        let body = text::sdp(&media.ip().to_string(), media.port(), call.sdp_version, direction);
        let bytes = self.write_request(number, "INVITE", &branch, &body);
        self.until_answered(now, number, Key::Request { branch, method: "INVITE" }, bytes)
    }

    fn in_dialog(
        &mut self,
        now: u64,
        number: u32,
        method: &'static str,
        body: &str,
    ) -> Vec<Effect> {
        let branch = self.branch();
        let bytes = self.write_request(number, method, &branch, body);
        self.until_answered(now, number, Key::Request { branch, method }, bytes)
    }

    fn cancel(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let branch = self.calls[&number].invite_branch.clone();
        let (cseq, address) = (self.calls[&number].cseq, self.address);
        let call = self.call(number);
        call.cancelled = true;
        let bytes = text::write(
            &format!("CANCEL {} SIP/2.0", call.target),
            &[
                ("Via", format!("SIP/2.0/UDP {address};branch={branch}")),
                ("Max-Forwards", "70".into()),
                ("From", call.local.clone()),
                ("To", call.remote.clone()),
                ("Call-ID", call.call_id.clone()),
                ("CSeq", format!("{cseq} CANCEL")),
            ],
            "",
        );
        self.until_answered(now, number, Key::Request { branch, method: "CANCEL" }, bytes)
    }

    fn bye(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let call = self.call(number);
        if call.outcome.ended || call.bye_sent() {
            return vec![];
        }
        self.in_dialog(now, number, "BYE", "")
    }

    fn write_request(&mut self, number: u32, method: &str, branch: &str, body: &str) -> Vec<u8> {
        let address = self.address;
        let call = self.call(number);
        call.cseq += 1;
        text::write(
            &format!("{method} {} SIP/2.0", call.target),
            &[
                ("Via", format!("SIP/2.0/UDP {address};branch={branch}")),
                ("Max-Forwards", "70".into()),
                ("From", call.local.clone()),
                ("To", call.remote.clone()),
                ("Call-ID", call.call_id.clone()),
                ("CSeq", format!("{} {method}", call.cseq)),
                ("Contact", format!("<sip:peer@{address}>")),
            ],
            body,
        )
    }

    fn response(&mut self, now: u64, number: u32, message: &Received) -> Vec<Effect> {
        let code = message.code().unwrap_or_default();
        let (cseq, method) = message.cseq();
        let branch = message.branch().to_owned();
        let call = self.call(number);
        let id = call.unanswered.iter().find_map(|(id, item)| match &item.key {
            Key::Request { branch: sent, method: of } => {
                (*sent == branch && *of == method).then_some(*id)
            }
            Key::Response { .. } => None,
        });
        if code < 200 {
            if let Some(item) = id.and_then(|id| call.unanswered.get_mut(&id)) {
                item.silent = method == "INVITE";
            }
            return if method == "INVITE" { self.ringing(now, number) } else { vec![] };
        }
        if let Some(id) = id {
            call.unanswered.remove(&id);
        }
        match method {
            "INVITE" if code < 300 => self.answered(now, number, message, cseq, id.is_some()),
            "INVITE" => {
                let mut effects = self.refused(number, message, code, cseq, id.is_some());
                if code == 491 && id.is_some() {
                    effects.extend(self.retry(now, number));
                }
                effects
            }
            "UPDATE" if call.update_pending && id.is_some() => {
                call.update_pending = false;
                if code < 300 {
                    call.learn_media(message);
                }
                if code == 491 { self.retry(now, number) } else { vec![] }
            }
            "BYE" => {
                let outcome = &mut self.call(number).outcome;
                outcome.bye_code.get_or_insert(code);
                outcome.ended = true;
                vec![]
            }
            _ => vec![],
        }
    }

    /// The caller hears of progress: now a CANCEL is allowed (RFC 3261 9.1).
    fn ringing(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let call = self.call(number);
        if call.outcome.answered || call.cancelled {
            return vec![];
        }
        let acts = call.acts.clone();
        acts.iter()
            .enumerate()
            .filter_map(|(index, act)| match act {
                Act::Cancel { after_ms } => Some(Effect::Wake {
                    call: number,
                    at_ms: now + after_ms,
                    wake: Wake::Act { index },
                }),
                _ => None,
            })
            .collect()
    }

    fn answered(
        &mut self,
        now: u64,
        number: u32,
        message: &Received,
        cseq: u32,
        first: bool,
    ) -> Vec<Effect> {
        let (from, to, branch) = (self.address, self.sbc, self.branch());
        let call = self.call(number);
        if let (false, Some(ack)) = (first, call.ack.get(&cseq)) {
            return vec![Effect::Send { from, to, bytes: ack.clone() }];
        }
        let initial = !call.outcome.answered;
        if initial {
            assert_eq!(call.outcome.refused, None, "a 2xx came after a refusal");
            call.remote = message.header("to").unwrap_or_default().to_owned();
        }
        if let Some(contact) = message.contact() {
            call.target = contact.to_owned();
        }
        call.invite_pending = false;
        call.outcome.answered = true;
        call.outcome.acknowledged = true;
        call.learn_media(message);
        let ack = text::write(
            &format!("ACK {} SIP/2.0", call.target),
            &[
                ("Via", format!("SIP/2.0/UDP {from};branch={branch}")),
                ("Max-Forwards", "70".into()),
                ("From", call.local.clone()),
                ("To", call.remote.clone()),
                ("Call-ID", call.call_id.clone()),
                ("CSeq", format!("{cseq} ACK")),
            ],
            "",
        );
        call.ack.insert(cseq, ack.clone());
        let mut effects = vec![Effect::Send { from, to, bytes: ack }];
        if initial {
            if call.cancelled {
                effects.extend(self.bye(now, number));
            } else {
                effects.extend(self.established(now, number));
            }
        }
        effects
    }

    fn refused(
        &mut self,
        number: u32,
        message: &Received,
        code: u16,
        cseq: u32,
        first: bool,
    ) -> Vec<Effect> {
        let (from, to) = (self.address, self.sbc);
        let call = self.call(number);
        if first {
            call.invite_pending = false;
            if !call.outcome.answered {
                call.outcome.refused = Some(code);
                call.outcome.ended = true;
            }
        }
        let ack = text::write(
            &format!("ACK {} SIP/2.0", call.target),
            &[
                ("Via", format!("SIP/2.0/UDP {from};branch={}", message.branch())),
                ("Max-Forwards", "70".into()),
                ("From", call.local.clone()),
                ("To", message.header("to").unwrap_or_default().to_owned()),
                ("Call-ID", call.call_id.clone()),
                ("CSeq", format!("{cseq} ACK")),
            ],
            "",
        );
        vec![Effect::Send { from, to, bytes: ack }]
    }

    /// After a 491 the offer is made again, later by the one who made the call (RFC 3261 14.1).
    fn retry(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let (slow, fast) = (self.rng.between(2_100, 4_000), self.rng.below(2_000));
        let call = self.call(number);
        call.retries += 1;
        let offer = |act: &Act| matches!(act, Act::Reinvite { .. } | Act::Update { .. });
        let Some(index) = call.acts.iter().position(offer) else { return vec![] };
        if call.retries > 3 {
            return vec![];
        }
        let at_ms = now + if call.caller { slow } else { fast };
        vec![Effect::Wake { call: number, at_ms, wake: Wake::Act { index } }]
    }

    /// After the answer: the rest of the plan, and some audio.
    fn established(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let call = self.call(number);
        let mut effects =
            vec![Effect::Wake { call: number, at_ms: now + 100, wake: Wake::Rtp { left: 3 } }];
        for (index, act) in call.acts.iter().enumerate() {
            let after_ms = match act {
                Act::Bye { after_ms }
                | Act::Reinvite { after_ms }
                | Act::Update { after_ms }
                | Act::Request { after_ms, .. } => *after_ms,
                _ => continue,
            };
            let wake = Wake::Act { index };
            effects.push(Effect::Wake { call: number, at_ms: now + after_ms, wake });
        }
        effects
    }

    fn send_rtp(&mut self, now: u64, number: u32, left: u32) -> Vec<Effect> {
        let from = self.media(number);
        let call = self.call(number);
        let Some(to) = call.media_to else { return vec![] };
        if call.outcome.ended || left == 0 {
            return vec![];
        }
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&(left as u16).to_be_bytes());
        packet.extend_from_slice(&(left * 160).to_be_bytes());
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&[0x55; 156]);
        let wake = Wake::Rtp { left: left - 1 };
        vec![
            Effect::Send { from, to, bytes: packet },
            Effect::Wake { call: number, at_ms: now + 20, wake },
        ]
    }

    fn new_callee(&mut self, now: u64, invite: &Received) -> Option<u32> {
        let user = invite.uri().strip_prefix("sip:")?.split('@').next()?;
        let digits = match user.len().checked_sub(6) {
            Some(last) => user.get(last..)?,
            // 911: the call is known by its caller, whose number has to reach the PSAP.
            None => invite.header("from")?.split("+1313555").nth(1)?.get(..4)?,
        };
        let number: u32 = digits.parse().ok()?;
        let tag = format!("{:08x}", self.rng.next() as u32);
        let call = self.calls.get_mut(&number)?;
        if call.caller || !call.call_id.is_empty() {
            return None;
        }
        call.started_ms = now;
        call.call_id = invite.call_id().to_owned();
        call.local = format!("{};tag={tag}", invite.header("to")?);
        call.local_tag = tag;
        call.remote = invite.header("from")?.to_owned();
        call.target = invite.contact()?.to_owned();
        self.by_call_id.insert(call.call_id.clone(), number);
        Some(number)
    }

    fn request(&mut self, now: u64, number: u32, message: &Received) -> Vec<Effect> {
        let (from, to) = (self.address, self.sbc);
        let method = message.method().unwrap_or_default();
        let key = (message.branch().to_owned(), method.to_owned());
        if let Some(bytes) = self.calls[&number].responses.get(&key) {
            return vec![Effect::Send { from, to, bytes: bytes.clone() }];
        }
        match method {
            "ACK" => {
                let (cseq, _) = message.cseq();
                let call = self.call(number);
                let mut success = false;
                call.unanswered.retain(|_, item| match item.key {
                    Key::Response { cseq: of, success: ok } if of == cseq => {
                        success |= ok;
                        false
                    }
                    _ => true,
                });
                if success && !call.outcome.acknowledged {
                    call.outcome.acknowledged = true;
                    return self.established(now, number);
                }
                vec![]
            }
            // A repeated INVITE before the first response to it.
            "INVITE"
                if self.calls[&number]
                    .invite
                    .as_ref()
                    .is_some_and(|invite| invite.branch() == message.branch()) =>
            {
                vec![]
            }
            "INVITE" if self.calls[&number].invite.is_none() && !self.calls[&number].caller => {
                self.first_invite(now, number, message)
            }
            "INVITE" => self.reinvited(now, number, message),
            "UPDATE" if !message.body.is_empty() => {
                let call = self.call(number);
                if call.outcome.ended {
                    return vec![self.simple(message, 481, "Call/Transaction Does Not Exist")];
                }
                if call.offer_under_way() {
                    return vec![self.simple(message, 491, "Request Pending")];
                }
                call.learn_media(message);
                vec![self.update_ok(number, message)]
            }
            "CANCEL" => {
                let mut effects = vec![self.simple(message, 200, "OK")];
                let call = self.call(number);
                if !call.outcome.answered && call.outcome.refused.is_none() {
                    effects.extend(self.callee_refuses(now, number, 487));
                }
                effects
            }
            "BYE" => {
                let effect = self.simple(message, 200, "OK");
                let call = self.call(number);
                call.outcome.ended = true;
                call.outcome.hung_up = true;
                call.unanswered.clear();
                vec![effect]
            }
            _ => vec![self.simple(message, 200, "OK")],
        }
    }

    fn first_invite(&mut self, now: u64, number: u32, message: &Received) -> Vec<Effect> {
        let effects = self.start_clock_of_death(now, number);
        let call = self.call(number);
        call.invite = Some(message.clone());
        call.learn_media(message);
        let mut after = 1;
        for act in call.acts.clone() {
            match act {
                Act::Answer { ring_ms, .. } | Act::Ring { ring_ms } => after = ring_ms,
                Act::Refuse { after_ms, .. } => after = after_ms,
                _ => {}
            }
        }
        let wake = Effect::Wake { call: number, at_ms: now + after, wake: Wake::Final };
        effects.into_iter().chain([wake]).collect()
    }

    /// Callee: the next step of the plan after the INVITE: ringing, then the final response.
    fn callee_final(&mut self, now: u64, number: u32) -> Vec<Effect> {
        let call = self.call(number);
        if call.outcome.refused.is_some() || call.outcome.answered {
            return vec![];
        }
        let Some(invite) = call.invite.clone() else { return vec![] };
        let rang = call.responses.contains_key(&(String::from("rang"), String::new()));
        for act in call.acts.clone() {
            match act {
                Act::Refuse { code, .. } => return self.callee_refuses(now, number, code),
                Act::Answer { after_ms, early_sdp, .. } if !rang => {
                    let code = if early_sdp { 183 } else { 180 };
                    let effect = self.provisional(number, &invite, code, early_sdp);
                    let wake =
                        Effect::Wake { call: number, at_ms: now + after_ms, wake: Wake::Final };
                    return vec![effect, wake];
                }
                Act::Ring { .. } if !rang => {
                    return vec![self.provisional(number, &invite, 180, false)];
                }
                Act::Answer { .. } => {
                    self.call(number).outcome.answered = true;
                    return self.invite_ok(now, number, &invite);
                }
                _ => {}
            }
        }
        vec![]
    }

    fn provisional(&mut self, number: u32, invite: &Received, code: u16, with_sdp: bool) -> Effect {
        let media = self.media(number);
        let body = if with_sdp {
            text::sdp(&media.ip().to_string(), media.port(), 2, "sendrecv")
        } else {
            String::new()
        };
        let bytes = self.write_response(number, invite, code, "Progress", &body);
        let call = self.call(number);
        call.responses.insert((String::from("rang"), String::new()), Vec::new());
        call.responses.insert((invite.branch().into(), "INVITE".into()), bytes.clone());
        Effect::Send { from: self.address, to: self.sbc, bytes }
    }

    fn callee_refuses(&mut self, now: u64, number: u32, code: u16) -> Vec<Effect> {
        let call = self.call(number);
        let Some(invite) = call.invite.clone() else { return vec![] };
        call.outcome.refused = Some(code);
        call.outcome.ended = true;
        self.final_response(now, number, &invite, code, "Refused", "")
    }

    fn reinvited(&mut self, now: u64, number: u32, message: &Received) -> Vec<Effect> {
        let call = self.call(number);
        if call.outcome.ended {
            return vec![self.simple(message, 481, "Call/Transaction Does Not Exist")];
        }
        if call.invite_pending || call.update_pending {
            return self.final_response(now, number, message, 491, "Request Pending", "");
        }
        call.learn_media(message);
        self.invite_ok(now, number, message)
    }

    fn invite_ok(&mut self, now: u64, number: u32, invite: &Received) -> Vec<Effect> {
        let media = self.media(number);
        let call = self.call(number);
        call.sdp_version += 1;
        let direction = if invite.body.contains("a=sendonly") { "recvonly" } else { "sendrecv" };
        let body = text::sdp(&media.ip().to_string(), media.port(), call.sdp_version, direction);
        self.final_response(now, number, invite, 200, "OK", &body)
    }

    /// The answer to the offer of an UPDATE.
    fn update_ok(&mut self, number: u32, update: &Received) -> Effect {
        let media = self.media(number);
        let call = self.call(number);
        call.sdp_version += 1;
        let version = call.sdp_version;
        let body = text::sdp(&media.ip().to_string(), media.port(), version, "sendrecv");
        let bytes = self.write_response(number, update, 200, "OK", &body);
        let key = (update.branch().to_owned(), "UPDATE".to_owned());
        self.call(number).responses.insert(key, bytes.clone());
        Effect::Send { from: self.address, to: self.sbc, bytes }
    }

    /// A final response to INVITE, repeated until its ACK.
    fn final_response(
        &mut self,
        now: u64,
        number: u32,
        invite: &Received,
        code: u16,
        reason: &str,
        body: &str,
    ) -> Vec<Effect> {
        let bytes = self.write_response(number, invite, code, reason, body);
        let (cseq, _) = invite.cseq();
        let call = self.call(number);
        call.responses.insert((invite.branch().into(), "INVITE".into()), bytes.clone());
        let key = Key::Response { cseq, success: code < 300 };
        self.until_answered(now, number, key, bytes)
    }

    fn simple(&mut self, request: &Received, code: u16, reason: &str) -> Effect {
        let number = self.by_call_id.get(request.call_id()).copied();
        let bytes = match number {
            Some(number) => {
                let bytes = self.write_response(number, request, code, reason, "");
                let method = request.method().unwrap_or_default().to_owned();
                let key = (request.branch().to_owned(), method);
                self.call(number).responses.insert(key, bytes.clone());
                bytes
            }
            None => {
                respond(request, code, reason, request.header("to").unwrap_or_default(), "", "")
            }
        };
        Effect::Send { from: self.address, to: self.sbc, bytes }
    }

    fn answer_probe(&self, request: &Received) -> Effect {
        let to = format!("{};tag=probe", request.header("to").unwrap_or_default());
        let bytes = respond(request, 200, "OK", &to, "", "");
        Effect::Send { from: self.address, to: self.sbc, bytes }
    }

    fn write_response(
        &mut self,
        number: u32,
        request: &Received,
        code: u16,
        reason: &str,
        body: &str,
    ) -> Vec<u8> {
        let contact = format!("<sip:peer@{}>", self.address);
        let call = self.call(number);
        let mut to = request.header("to").unwrap_or_default().to_owned();
        if request.to_tag().is_none() {
            to = format!("{to};tag={}", call.local_tag);
        }
        respond(request, code, reason, &to, &contact, body)
    }

    fn branch(&mut self) -> String {
        format!("z9hG4bK-peer-{:016x}", self.rng.next())
    }

    fn call(&mut self, number: u32) -> &mut Call {
        self.calls.get_mut(&number).expect("a call of this peer")
    }
}

impl Call {
    fn learn_media(&mut self, message: &Received) {
        if let Some((address, port)) = message.audio() {
            self.media_to = address.parse().ok().map(|ip| SocketAddr::new(ip, port));
        }
    }

    fn waits_for_ack(&self) -> bool {
        self.unanswered.values().any(|item| matches!(item.key, Key::Response { .. }))
    }

    /// Whether an offer of this party, or its answer, is still on its way.
    fn offer_under_way(&self) -> bool {
        self.invite_pending || self.update_pending || self.waits_for_ack()
    }

    fn bye_sent(&self) -> bool {
        self.unanswered.values().any(|item| matches!(item.key, Key::Request { method: "BYE", .. }))
    }

    /// Whether a message of this party still waits for an answer.
    #[must_use]
    pub(super) fn is_busy(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether this party ever took part.
    #[must_use]
    pub(super) const fn took_part(&self) -> bool {
        !self.call_id.is_empty()
    }
}

fn respond(
    request: &Received,
    code: u16,
    reason: &str,
    to: &str,
    contact: &str,
    body: &str,
) -> Vec<u8> {
    let mut headers: Vec<(&str, String)> =
        request.all("via").map(|via| ("Via", via.to_owned())).collect();
    headers.push(("From", request.header("from").unwrap_or_default().to_owned()));
    headers.push(("To", to.to_owned()));
    headers.push(("Call-ID", request.call_id().to_owned()));
    headers.push(("CSeq", request.header("cseq").unwrap_or_default().to_owned()));
    if !contact.is_empty() {
        headers.push(("Contact", contact.to_owned()));
    }
    text::write(&format!("SIP/2.0 {code} {reason}"), &headers, body)
}
