//! Writes responses to the peers of a call.

use ravelin_wire::sip::Message;

use super::{
    compose::{ListenerText, write_content, write_no_body},
    headers::{
        ALLOW, push_number, push_value, write_body_headers, write_line, write_passed,
        write_unsupported,
    },
    hiding::{Hide, Veil},
};
use crate::{
    cause::Cause,
    sip::reply::{begin, phrase},
};

/// What a response repeats of its request: Via, From, To with our tag, Call-ID, CSeq lines.
pub(crate) fn write_head(
    request: &Message<'_>,
    source: std::net::SocketAddr,
    tag: &[u8],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    begin(request, source, 100, b"", tag, out);
    // The status line is each response's own.
    let written = out.get(start..).unwrap_or_default();
    let line = written.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    out.drain(start..start + line);
}

/// What Ravelin takes in a body that it has to understand, as Accept and Accept-Encoding lines
/// (RFC 3261 8.2.3).
pub(crate) const ACCEPT_LINES: &[u8] =
    b"Accept: application/sdp, multipart/mixed\r\nAccept-Encoding: identity\r\n";

/// Appends the lines that a refusal with this cause must have besides its Reason: what of Require is
/// not supported (RFC 3261 8.2.2.3), what a body may be (8.2.3).
pub(crate) fn write_refusal_lines(cause: Cause, request: &Message<'_>, out: &mut Vec<u8>) {
    match cause {
        Cause::BadExtension => {
            let mut tags = Vec::new();
            write_unsupported(request, &mut tags);
            write_line(b"Unsupported", &tags, out);
        }
        Cause::MediaType => out.extend_from_slice(ACCEPT_LINES),
        _ => {}
    }
}

/// A response to one peer.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    pub code: u16,
    /// From [`write_head`].
    pub head: &'a [u8],
    /// Further lines, complete: Record-Route lines of the request for responses that make a dialog,
    /// those of [`write_refusal_lines`] for refusals.
    pub lines: &'a [u8],
    /// Our Contact on this side, for responses that make or refresh a dialog.
    pub contact: Option<(&'a ListenerText, &'a [u8])>,
    /// The response of the other side that this one passes on, and its body as this side may see
    /// it.
    pub passed: Option<(&'a Message<'a>, Hide<'a>, &'a [u8])>,
    /// Why we answer this on our own.
    pub cause: Option<Cause>,
    /// Value of `Reason: STIR` (ST-61).
    pub stir_reason: Option<&'static str>,
    pub allow: bool,
    /// Seconds of Retry-After.
    pub retry_after: Option<u32>,
    /// Value of a Warning of our own.
    pub warning: Option<&'static str>,
}

impl<'a> Response<'a> {
    /// A response of our own without further ado.
    pub(crate) const fn own(code: u16, head: &'a [u8]) -> Self {
        Self {
            code,
            head,
            lines: &[],
            contact: None,
            passed: None,
            cause: None,
            stir_reason: None,
            allow: false,
            retry_after: None,
            warning: None,
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SIP/2.0 ");
        push_number(u64::from(self.code), out);
        out.push(b' ');
        match self.passed.map(|(message, ..)| message.start()) {
            Some(ravelin_wire::sip::StartLine::Response { code, reason }) if code == self.code => {
                match self.passed {
                    Some((message, hide, _)) => Veil::of(message, hide).push(reason, out),
                    None => push_value(reason, out),
                }
            }
            _ => out.extend_from_slice(phrase(self.code).as_bytes()),
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.head);
        out.extend_from_slice(self.lines);
        if let Some((listener, user)) = self.contact {
            listener.write_contact(user, out);
        }
        if self.allow {
            write_line(b"Allow", ALLOW, out);
        }
        if let Some(seconds) = self.retry_after {
            out.extend_from_slice(b"Retry-After: ");
            push_number(u64::from(seconds), out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(warning) = self.warning {
            write_line(b"Warning", warning.as_bytes(), out);
        }
        if let Some(cause) = self.cause {
            write_line(b"Reason", cause.reason_header().as_bytes(), out);
        }
        if let Some(reason) = self.stir_reason {
            write_line(b"Reason", reason.as_bytes(), out);
        }
        match self.passed {
            Some((message, hide, body)) => {
                write_passed(message, hide, out);
                if body.is_empty() {
                    write_no_body(out);
                } else {
                    write_body_headers(message, out);
                    write_content(body, out);
                }
            }
            None => write_no_body(out),
        }
    }
}
