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
            return dropped(DropReason::StatelessRate, ctx);
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
