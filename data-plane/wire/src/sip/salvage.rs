//! What can be saved of a broken request: enough to answer it without state.

use std::net::SocketAddr;

use super::addr::NameAddr;
use super::chars::{self, TOKEN, split, trim};
use super::message::{looks_like_request, skip_line_ends};
use super::name::HeaderName;
use super::values::{Values, elements};
use super::via::{Via, write_via_with_source};
use super::writer::{WriteError, Writer};
use crate::limits::{HEADER_MAX_COUNT, MESSAGE_MAX_BYTES, VIA_MAX_COUNT};

/// The pieces of a request that an answer repeats (RFC 3261 8.2.6.2), each as far as it can be
/// repeated safely. Only the topmost Via is known to be well formed.
#[derive(Clone, Copy, Debug)]
pub struct Salvage<'a> {
    head: &'a [u8],
    /// The topmost Via.
    pub via: Via<'a>,
    /// Value of From.
    pub from: Option<&'a [u8]>,
    /// Value of To.
    pub to: Option<&'a [u8]>,
    /// Value of Call-ID.
    pub call_id: Option<&'a [u8]>,
    /// Value of CSeq.
    pub cseq: Option<&'a [u8]>,
}

/// Looks for what an answer to the broken request `bytes` needs. `None`: it is no request, it is an
/// ACK, or no Via says which transaction the answer is for.
#[must_use]
pub fn salvage(bytes: &[u8]) -> Option<Salvage<'_>> {
    let bytes = skip_line_ends(bytes);
    if !looks_like_request(bytes) {
        return None;
    }
    let bytes = split(bytes, MESSAGE_MAX_BYTES).0;
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 2);
    let head = split(bytes, end).0;
    // An answer of ours is text, whatever the request was.
    let is_text = |value: &[u8]| std::str::from_utf8(value).is_ok();
    let first =
        |name| lines(head).find(|(n, _)| *n == name).map(|(_, value)| value).filter(|v| is_text(v));
    let via = first(HeaderName::Via)?;
    let element = elements(via).next()?;
    let mut via = Via::EMPTY;
    Via::parse_any_version(element, &mut via)?;
    if !lines(head).all(|(name, value)| name != HeaderName::Via || is_text(value)) {
        return None;
    }
    Some(Salvage {
        head,
        via,
        from: first(HeaderName::From),
        to: first(HeaderName::To),
        call_id: first(HeaderName::CallId),
        cseq: first(HeaderName::CSeq),
    })
}

impl<'a> Salvage<'a> {
    /// Every Via value, topmost first.
    pub fn vias(&self) -> impl Iterator<Item = &'a [u8]> {
        lines(self.head)
            .filter(|(name, _)| *name == HeaderName::Via)
            .flat_map(|(_, value)| Values::new(value, true))
            .take(VIA_MAX_COUNT)
    }

    /// Appends a final answer without state: the Via values (the top one with `received` and
    /// `rport` from the packet `source`), From, To with `to_tag` when it has none, Call-ID, CSeq,
    /// and then `headers` (Reason, Retry-After ...).
    ///
    /// # Errors
    /// [`WriteError`] if a piece holds octets that must not be repeated; nothing is written then.
    pub fn write_answer(
        &self,
        code: u16,
        reason: &[u8],
        to_tag: &[u8],
        source: SocketAddr,
        headers: &[(HeaderName, &[u8])],
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let mut writer = Writer::new(out);
        writer.status_line(code, reason);
        writer.header_with(HeaderName::Via, |out| write_via_with_source(&self.via, source, out));
        for via in self.vias().skip(1) {
            writer.header(HeaderName::Via, via);
        }
        if let Some(from) = self.from {
            writer.header(HeaderName::From, from);
        }
        if let Some(to) = self.to {
            // A To that cannot be read is repeated as it is: adding to it could change its sense.
            let tagless = NameAddr::parse(to).is_some_and(|to| to.tag().is_none());
            if tagless && !to_tag.is_empty() {
                writer.header_parts(HeaderName::To, &[to, b";tag=", to_tag]);
            } else {
                writer.header(HeaderName::To, to);
            }
        }
        if let Some(call_id) = self.call_id {
            writer.header(HeaderName::CallId, call_id);
        }
        if let Some(cseq) = self.cseq {
            writer.header(HeaderName::CSeq, cseq);
        }
        for (name, value) in headers {
            writer.header(*name, value);
        }
        writer.finish()
    }
}

/// Header lines of a head that need not be well formed, folds kept in the value.
fn lines(head: &[u8]) -> impl Iterator<Item = (HeaderName, &[u8])> {
    let mut at = memchr::memchr(b'\n', head).map_or(head.len(), |lf| lf + 1);
    std::iter::from_fn(move || {
        let start = at;
        if start >= head.len() {
            return None;
        }
        loop {
            let rest = head.get(at..).unwrap_or_default();
            at += memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            if !matches!(head.get(at), Some(b' ' | b'\t')) {
                break;
            }
        }
        let line = head.get(start..at).unwrap_or_default();
        let (name, rest) = split(line, chars::run(line, TOKEN));
        let value = trim(rest).strip_prefix(b":").map(trim);
        Some(value.map_or((HeaderName::Other, line), |value| (HeaderName::of(name), value)))
    })
    .take(HEADER_MAX_COUNT)
}
