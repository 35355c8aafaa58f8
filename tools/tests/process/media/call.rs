//! Calls as their parties see them: each offer and answer is the test's.

use super::edge::Edge;
use crate::peer::{Peer, header};

/// A call from the customer to the carrier.
pub(super) struct Call {
    pub(super) name: String,
    cseq: u32,
    /// The last INVITE that the callee got, and the last answer that the caller got.
    pub(super) invite: String,
    pub(super) answer: String,
}

impl Call {
    /// The caller offers; the callee has the INVITE, and says that it rings.
    #[track_caller]
    pub(super) fn ring(edge: &mut Edge, number: usize, offer: &str) -> Self {
        let (name, user) = (format!("call{number}x"), format!("+1212{number:07}"));
        edge.caller.offer(&name, &user, offer);
        let invite = edge.callee.expect("INVITE ", &user);
        edge.callee.reply(&invite, "180 Ringing");
        edge.caller.expect("SIP/2.0 180", &format!("{name}@"));
        Self { name, cseq: 1, invite, answer: String::new() }
    }

    /// The callee answers.
    #[track_caller]
    pub(super) fn accept(&mut self, edge: &mut Edge, answer: &str) {
        edge.callee.answer(&self.invite, "200 OK", answer);
        self.agree(edge);
    }

    fn agree(&mut self, edge: &mut Edge) {
        edge.callee.expect("ACK ", &header(&self.invite, "Call-ID"));
        let cseq = format!("CSeq: {} INVITE", self.cseq);
        self.answer = loop {
            let answer = edge.caller.expect("SIP/2.0 200", &format!("{}@", self.name));
            if answer.contains(&cseq) {
                break answer;
            }
        };
        self.request(&edge.caller, "ACK", "");
    }

    /// Rings and is answered.
    #[track_caller]
    pub(super) fn up(edge: &mut Edge, number: usize, offer: &str, answer: &str) -> Self {
        let mut call = Self::ring(edge, number, offer);
        call.accept(edge, answer);
        call
    }

    /// The caller offers anew; the callee has it.
    #[track_caller]
    pub(super) fn offer_again(&mut self, edge: &mut Edge, offer: &str) {
        self.cseq += 1;
        self.request(&edge.caller, "INVITE", offer);
        let id = header(&self.invite, "Call-ID");
        self.invite = loop {
            // The first one may have been sent again.
            let invite = edge.callee.expect("INVITE ", &id);
            if invite != self.invite {
                break invite;
            }
        };
    }

    /// Offered and answered anew.
    #[track_caller]
    pub(super) fn again(&mut self, edge: &mut Edge, offer: &str, answer: &str) {
        self.offer_again(edge, offer);
        self.accept(edge, answer);
    }

    /// The caller hangs up.
    #[track_caller]
    pub(super) fn end(mut self, edge: &mut Edge) {
        self.cseq += 1;
        self.request(&edge.caller, "BYE", "");
        let bye = edge.callee.expect("BYE ", &header(&self.invite, "Call-ID"));
        edge.callee.reply(&bye, "200 OK");
        edge.caller.expect("SIP/2.0 200", &format!("CSeq: {} BYE", self.cseq));
    }

    fn request(&self, caller: &Peer, method: &str, body: &str) {
        let Self { name, cseq, answer, .. } = self;
        let me = caller.address();
        let target = header(answer, "Contact");
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        caller.send(&format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{method}{cseq}{name};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: {}\r\n\
             Call-ID: {name}@{me}\r\nCSeq: {cseq} {method}\r\nContact: <sip:a@{me}>\r\n\
             {kind}Content-Length: {}\r\n\r\n{body}",
            target.trim_matches(['<', '>']),
            header(answer, "To"),
            body.len(),
        ));
    }
}
