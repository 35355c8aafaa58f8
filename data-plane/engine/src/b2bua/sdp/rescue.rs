//! Descriptions of emergency calls that cannot be taken as they are. Everybody else's are refused
//! with 488 and a Warning; a call for help goes on with what of it can be understood (EM-55, EM-62),
//! and what was done is on record.

use std::net::IpAddr;

use ravelin_wire::sdp::{self, SdpError};

/// What was done to a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// Lines that break the grammar were left out or put right.
    Mended,
    /// It has no address: the caller's media is looked for where its signalling comes from.
    NoAddress,
    /// It was sent on hold; the PSAP was not told so (emergency.md 16, 15).
    Held,
    /// It asks for encryption that we do not have: the answer is plain RTP, and the sender may take
    /// it or leave it (EM-49).
    Unencrypted,
    /// Nothing in it can be used. The PSAP is offered audio all the same, so that it knows of the
    /// call, where the caller is, and whom to call back.
    Substituted,
    /// An offer was not answered; the call stays up without media.
    Unanswered,
}

impl Oddity {
    const ALL: [Self; 6] = [
        Self::Mended,
        Self::NoAddress,
        Self::Held,
        Self::Unencrypted,
        Self::Substituted,
        Self::Unanswered,
    ];

    /// As it stands in the audit event and in the CDR.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mended => "mended",
            Self::NoAddress => "no_address",
            Self::Held => "held",
            Self::Unencrypted => "unencrypted",
            Self::Substituted => "substituted",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What was done to the descriptions of one party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    bits: u8,
    /// What would have refused the last that was mended.
    pub fault: Option<SdpError>,
}

impl Oddities {
    pub(crate) fn note(&mut self, oddity: Oddity) {
        self.bits |= 1 << oddity as u8;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Oddity> {
        Oddity::ALL.into_iter().filter(move |oddity| self.bits & 1 << *oddity as u8 != 0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// What was done, for a call record: below 128.
    pub(crate) const fn bits(self) -> u8 {
        self.bits
    }

    /// What [`Self::bits`] gave; the fault is not told of again.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self { bits: bits & ((1 << Oddity::ALL.len()) - 1), fault: None }
    }

    /// Adds those of `more`; whether there were new ones among them.
    pub(crate) fn add(&mut self, more: Self) -> bool {
        let before = self.bits;
        self.bits |= more.bits;
        self.fault = more.fault.or(self.fault);
        self.bits != before
    }
}

/// Writes what can be read of a description to `out`; gives what was done, and the m-lines that are too
/// many, refused. `None`: it is whole as it is.
pub(super) fn mend(text: &[u8], near: IpAddr, out: &mut Vec<u8>) -> Option<(Oddities, Vec<u8>)> {
    let fault = match sdp::Description::parse(text) {
        Ok(parsed) if sdp::is_whole(&parsed) => return None,
        Ok(parsed) => {
            let used = parsed.medias().iter().filter(|media| media.port != 0);
            let located = |media| parsed.connection_of(media).is_some();
            if used.into_iter().all(located) { SdpError::Media } else { SdpError::Connection }
        }
        Err(fault) => fault,
    };
    let mended = sdp::mend(text, near, out);
    let mut found = Oddities { fault: Some(fault), ..Oddities::default() };
    found.note(Oddity::Mended);
    if mended.guessed {
        found.note(Oddity::NoAddress);
    }
    Some((found, mended.excess))
}

/// Adds a stream of audio to a description in `text`, for a caller at `near` who has none that can be
/// used: G.711, which every PSAP takes (EM-59), and digits.
pub(super) fn substitute(near: IpAddr, text: &mut Vec<u8>) {
    let address = if near.is_ipv4() { "IP4" } else { "IP6" };
    let lines = format!(
        "m=audio 9 RTP/AVP 0 8 101\r\nc=IN {address} {near}\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"
    );
    text.extend_from_slice(lines.as_bytes());
}
