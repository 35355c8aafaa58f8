//! Answers without a transaction (RFC 3261 8.2.7): to what cannot be parsed, to what finds a table
//! full, to what a stranger sends. Nothing is stored, the same request gets the same answer, an ACK
//! gets none, and a token bucket bounds what a flood can make us send.

use std::time::Duration;

use ravelin_wire::sip::{HeaderName, Message, Method, Salvage, Writer};

use super::{
    reply::{begin, phrase, response_egress},
    transaction::Ctx,
};
use crate::{
    cause::Cause,
    drops::DropReason,
    ids::{Seed, siphash},
    limits::Limits,
    port::{Meta, Token},
    time::Instant,
};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Makes answers without state for one shard.
#[derive(Debug)]
pub struct Stateless {
    tags: siphash::Key,
    /// Nanoseconds that one answer costs.
    cost: u64,
    /// How far ahead of the clock the bucket may be spent.
    burst: u64,
    /// When the bucket is full again.
    full_at: u64,
}

impl Stateless {
    #[must_use]
    pub fn new(limits: &Limits, seed: &Seed) -> Self {
        let cost = NANOS_PER_SECOND / u64::from(limits.stateless_per_second.max(1));
        Self {
            tags: seed.key(b"stateless tags"),
            cost,
            burst: cost.saturating_mul(u64::from(limits.stateless_burst.max(1))),
            full_at: 0,
        }
    }

    /// Refuses a request that parsed. `headers` are added as they are (Allow, Retry-After ...).
    /// An ACK is dropped.
    ///
    /// # Errors
    /// Why no answer was given; counted.
    pub fn refuse(
        &mut self,
        now: Instant,
        meta: &Meta,
        request: &Message<'_>,
        cause: Cause,
        headers: &[(HeaderName, &[u8])],
        ctx: &mut Ctx<'_>,
    ) -> Result<(), DropReason> {
        if request.method().is_none_or(|method| method == Method::Ack) {
            return dropped(DropReason::StrayAck, ctx);
        }
        let Some(egress) = response_egress(meta, &request.top_via()) else {
            return dropped(DropReason::BadReplyAddress, ctx);
        };
        if !self.take(now) {
            let full = cause == Cause::TransactionsFull;
            let reason = if full { DropReason::TableFull } else { DropReason::StatelessRate };
            return dropped(reason, ctx);
        }
        let tag = self.tag(&[
            request.top_via().branch.unwrap_or_default(),
            request.call_id(),
            request.from().tag().unwrap_or_default(),
            &request.cseq().number.to_le_bytes(),
        ]);
        let code = status(cause);
        let written = ctx.tx.try_write(egress, Token::default(), |out| {
            let phrase = phrase(code).as_bytes();
            let mut writer = begin(request, meta.source, code, phrase, &tag, out);
            finish(&mut writer, cause, headers);
            writer.finish()
        });
        count(written.is_ok(), code, cause, ctx)
    }

    /// Refuses a request that did not parse, as far as it could be saved.
    ///
    /// # Errors
    /// Why no answer was given; counted.
    pub fn refuse_broken(
        &mut self,
        now: Instant,
        meta: &Meta,
        salvage: &Salvage<'_>,
        code: u16,
        cause: Cause,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), DropReason> {
        let Some(egress) = response_egress(meta, &salvage.via) else {
            return dropped(DropReason::BadReplyAddress, ctx);
        };
        if !self.take(now) {
            return dropped(DropReason::StatelessRate, ctx);
        }
        let tag = self.tag(&[
            salvage.via.branch.unwrap_or_default(),
            salvage.call_id.unwrap_or_default(),
            salvage.from.unwrap_or_default(),
            salvage.cseq.unwrap_or_default(),
        ]);
        let headers = [(HeaderName::Reason, cause.reason_header().as_bytes())];
        let written = ctx.tx.try_write(egress, Token::default(), |out| {
            salvage.write_answer(code, phrase(code).as_bytes(), &tag, meta.source, &headers, out)
        });
        count(written.is_ok(), code, cause, ctx)
    }

    /// One answer's worth from the bucket.
    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now.0).saturating_add(self.cost);
        let allowed = full_at - now.0 <= self.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }

    /// The same request gets the same tag, and nobody can foresee it. Shorter than the tags of
    /// dialogs, so that it names no owner.
    fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = self.tags.hasher();
        for part in parts {
            hasher.write_field(part);
        }
        let mut tag = [0; 16];
        crate::ids::hex(hasher.finish(), &mut tag);
        tag
    }
}

/// Adds what every refusal of ours carries: the Reason, Retry-After with a 503, and `headers`.
pub fn finish(writer: &mut Writer<'_>, cause: Cause, headers: &[(HeaderName, &[u8])]) {
    for (name, value) in headers {
        writer.header(*name, value);
    }
    if cause.status() == 503 && !headers.iter().any(|(name, _)| *name == HeaderName::RetryAfter) {
        writer.header_number(HeaderName::RetryAfter, RETRY_AFTER.as_secs());
    }
    writer.header(HeaderName::Reason, cause.reason_header().as_bytes());
}

/// What a peer is asked to wait after a 503 of ours.
const RETRY_AFTER: Duration = Duration::from_secs(5);

fn status(cause: Cause) -> u16 {
    if cause.status() == 0 { 500 } else { cause.status() }
}

fn dropped(reason: DropReason, ctx: &mut Ctx<'_>) -> Result<(), DropReason> {
    ctx.counters.drop(reason);
    Err(reason)
}

fn count(written: bool, code: u16, cause: Cause, ctx: &mut Ctx<'_>) -> Result<(), DropReason> {
    if !written {
        return dropped(DropReason::MalformedRequest, ctx);
    }
    ctx.counters.response_sent(code);
    ctx.counters.refusal(cause);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ravelin_wire::sip::{Framing, salvage};

    use super::*;
    use crate::{
        counters::Counters,
        port::{Egress, ListenerId, Local, TxQueue},
        timer::Wheel,
    };

    struct Rig {
        stateless: Stateless,
        wheel: Wheel,
        tx: TxQueue,
        counters: Counters,
    }

    const INVITE: &str = "INVITE sip:b@x SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1, SIP/2.0/UDP far;branch=z9hG4bK0\r\n\
        From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
        Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

    impl Rig {
        fn new(per_second: u32, burst: u32) -> Self {
            let limits = Limits {
                stateless_per_second: per_second,
                stateless_burst: burst,
                ..Limits::default()
            };
            Self {
                stateless: Stateless::new(&limits, &Seed([4; 32])),
                wheel: Wheel::new(Instant(0)),
                tx: TxQueue::default(),
                counters: Counters::default(),
            }
        }

        fn refuse(&mut self, now: Instant, text: &str, cause: Cause) -> Result<String, DropReason> {
            let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
            let Self { stateless, wheel, tx, counters } = self;
            tx.clear();
            let meta = meta("192.0.2.1:9");
            stateless.refuse(now, &meta, &message, cause, &[], &mut Ctx { wheel, tx, counters })?;
            Ok(self.sent())
        }

        fn refuse_broken(&mut self, text: &str) -> Result<String, DropReason> {
            let bytes = text.as_bytes();
            let error = Message::parse(bytes, Framing::Datagram).unwrap_err();
            let salvage = salvage(bytes).unwrap();
            let Self { stateless, wheel, tx, counters } = self;
            tx.clear();
            let ctx = &mut Ctx { wheel, tx, counters };
            let meta = meta("192.0.2.1:9");
            let cause = Cause::Malformed;
            stateless.refuse_broken(Instant(1), &meta, &salvage, error.status(), cause, ctx)?;
            Ok(self.sent())
        }

        fn sent(&self) -> String {
            assert_eq!(self.tx.len(), 1);
            let tx = self.tx.iter().next().unwrap();
            let to = SocketAddr::from(([192, 0, 2, 1], 5070));
            assert_eq!(tx.egress, Egress::Udp { listener: ListenerId(0), to });
            String::from_utf8(tx.bytes.to_vec()).unwrap()
        }
    }

    fn meta(source: &str) -> Meta {
        let source = source.parse().unwrap();
        Meta { source, local: Local::Signalling { listener: ListenerId(0) } }
    }

    #[test]
    fn a_refusal_is_whole_and_the_same_each_time() {
        let mut rig = Rig::new(10, 10);
        let answer = rig.refuse(Instant(1), INVITE, Cause::NoDialog).unwrap();
        let tag = answer.split("To: <sip:b@x>;tag=").nth(1).unwrap().split('\r').next().unwrap();
        assert_eq!(tag.len(), 16);
        assert_eq!(
            answer,
            format!(
                "SIP/2.0 481 Call/Transaction Does Not Exist\r\n\
                 Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1\r\n\
                 Via: SIP/2.0/UDP far;branch=z9hG4bK0\r\nFrom: <sip:a@x>;tag=1\r\n\
                 To: <sip:b@x>;tag={tag}\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
                 Reason: ravelin;cause=111;text=\"Call or transaction does not exist\"\r\n\
                 Content-Length: 0\r\n\r\n"
            )
        );
        assert_eq!(rig.refuse(Instant(2), INVITE, Cause::NoDialog).unwrap(), answer);
        let other = rig.refuse(Instant(2), &INVITE.replace("K1", "K2"), Cause::NoDialog).unwrap();
        assert!(!other.contains(tag));
        assert_eq!(rig.counters.refusals(Cause::NoDialog), 3);
        assert_eq!(rig.counters.responses_sent(4), 3);
    }

    #[test]
    fn a_503_asks_for_patience() {
        let mut rig = Rig::new(10, 10);
        let answer = rig.refuse(Instant(1), INVITE, Cause::TransactionsFull).unwrap();
        assert!(answer.starts_with("SIP/2.0 503 ") && answer.contains("\r\nRetry-After: 5\r\n"));
        assert!(answer.contains("\r\nReason: ravelin;cause=302;"));
    }

    #[test]
    fn what_a_full_table_leaves_without_an_answer_is_told_apart() {
        let mut rig = Rig::new(10, 1);
        assert!(rig.refuse(Instant(1), INVITE, Cause::TransactionsFull).is_ok());
        let refused = rig.refuse(Instant(1), INVITE, Cause::TransactionsFull);
        assert_eq!(refused, Err(DropReason::TableFull));
        let refused = rig.refuse(Instant(1), INVITE, Cause::NoDialog);
        assert_eq!(refused, Err(DropReason::StatelessRate));
        let drops = |reason| rig.counters.drops(reason);
        assert_eq!((drops(DropReason::TableFull), drops(DropReason::StatelessRate)), (1, 1));
    }

    #[test]
    fn an_ack_gets_no_answer() {
        let mut rig = Rig::new(10, 10);
        let ack = INVITE.replace("INVITE", "ACK");
        let refused = rig.refuse(Instant(1), &ack, Cause::NoDialog);
        assert_eq!(refused, Err(DropReason::StrayAck));
        assert_eq!(rig.counters.drops(DropReason::StrayAck), 1);
        assert!(rig.tx.is_empty());
    }

    #[test]
    fn a_broken_request_is_answered_as_far_as_it_can_be() {
        let mut rig = Rig::new(10, 10);
        let broken = INVITE.replace("CSeq: 1 INVITE", "CSeq: 1 BYE");
        let answer = rig.refuse_broken(&broken).unwrap();
        assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
        assert!(answer.contains("\r\nReason: ravelin;cause=101;"), "{answer}");
        assert_eq!(rig.counters.refusals(Cause::Malformed), 1);
    }

    /// Bounded by time, and no more at once than the burst.
    #[test]
    fn a_flood_gets_few_answers() {
        let mut rig = Rig::new(100, 20);
        let mut answered = 0;
        for ms in 0..2_000 {
            for _ in 0..5 {
                let now = Instant::from_millis(1_000 + ms);
                match rig.refuse(now, INVITE, Cause::UnknownSource) {
                    Ok(_) => answered += 1,
                    Err(reason) => assert_eq!(reason, DropReason::StatelessRate),
                }
            }
        }
        assert!((210..=220).contains(&answered), "{answered}");
        assert_eq!(rig.counters.drops(DropReason::StatelessRate), 10_000 - answered);
    }
}
