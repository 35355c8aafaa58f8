//! What `ravelin parse` prints about one file: the verdict of [`crate::sip::Message::parse`] on it
//! as a UDP datagram.

use crate::sip::{Framing, Message, Method, StartLine};

/// What kind of message was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A request with this method.
    Method(Method<'a>),
    /// A response with this code.
    Status(u16),
}

impl std::fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Method(method) => method.fmt(f),
            Self::Status(code) => code.fmt(f),
        }
    }
}

/// Accepted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Well formed; a layer above may still refuse what it asks for.
    Accept {
        /// What it is.
        kind: Kind<'a>,
    },
    /// Not well formed, or unsafe to pass on.
    Reject {
        /// Status code that a request of this kind is answered with. A response never is.
        cause: u16,
        /// Stable text.
        reason: &'static str,
    },
}

/// The verdict on `bytes`, whatever they are.
#[must_use]
pub fn verdict(bytes: &[u8]) -> Verdict<'_> {
    match Message::parse(bytes, Framing::Datagram) {
        Ok(message) => Verdict::Accept {
            kind: match message.start() {
                StartLine::Request { method, .. } => Kind::Method(method),
                StartLine::Response { code, .. } => Kind::Status(code),
            },
        },
        Err(error) => Verdict::Reject { cause: error.status(), reason: error.reason() },
    }
}
