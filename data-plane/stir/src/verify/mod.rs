//! The verification service: judges the Identity headers of one request (RFC 8224 6.2, RFC 8588,
//! RFC 8946 4.2). The result is a verdict, not a SIP response; what to do with it is the trunk's
//! policy.

mod div;
mod token;

use smallvec::SmallVec;

use self::token::Token;
use crate::identity::elements;
use crate::limits;
use crate::outcome::{Outcome, Reason, Verstat};
use crate::passport::MediaKeys;
use crate::passport::read::Type;
use crate::sign::Attest;
use crate::tn::Party;
use crate::trust::Trust;

/// What a trunk demands of a token. The default is the default profile of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Oldest `iat` accepted, seconds (ST-34: 15 to 300).
    pub window_past_s: u32,
    /// Furthest future `iat` accepted, seconds.
    pub window_future_s: u32,
    /// Oldest `iat` accepted of the inner tokens of a div chain, seconds (ST-69: 60 s to 3 h).
    pub window_inner_s: u32,
    /// A Date header that does not agree with `iat` and now makes the token stale (ST-35).
    pub date_strict: bool,
    /// What `dest` is compared with (ST-18).
    pub dest_match: DestMatch,
    /// A SHAKEN token without the `ppt` header parameter is refused (ST-23).
    pub ppt_param_required: bool,
    /// Unknown members of the JOSE header are refused (ST-26).
    pub jose_strict: bool,
    /// With div tokens that form no complete chain, the others are judged alone instead of failing
    /// the request (ST-69).
    pub div_incomplete_ignored: bool,
    /// Longest chain of div tokens (ST-69).
    pub div_max: u8,
}

impl Profile {
    /// The default profile.
    pub const DEFAULT: Self = Self {
        window_past_s: limits::WINDOW_PAST_DEFAULT_S,
        window_future_s: limits::WINDOW_FUTURE_DEFAULT_S,
        window_inner_s: limits::WINDOW_PAST_DEFAULT_S,
        date_strict: false,
        dest_match: DestMatch::ToOrRequestUri,
        ppt_param_required: false,
        jose_strict: true,
        div_incomplete_ignored: false,
        div_max: limits::DIV_CHAIN_DEFAULT,
    };
}

impl Default for Profile {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the `dest` claim is compared with (ST-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestMatch {
    To,
    RequestUri,
    ToOrRequestUri,
}

/// One request to verify, as it was received, before any rewrite (ST-17). Party lists come from
/// [`crate::tn::parties`].
#[derive(Clone, Copy, Debug)]
pub struct VerifyRequest<'a> {
    /// Every Identity header field value, in any order; each may be a comma-joined list.
    pub identities: &'a [&'a [u8]],
    /// The calling party: P-Asserted-Identity of a trusted trunk, else From. Empty: none that could
    /// be compared.
    pub orig: &'a [Party],
    pub to: &'a [Party],
    pub request_uri: &'a [Party],
    /// The Date header, seconds since 1970-01-01.
    pub date: Option<u64>,
    /// The fingerprints in the request's SDP; empty if there are none. `None`: the body has not
    /// been looked at, and `mky` claims are not compared.
    pub media_keys: Option<&'a MediaKeys>,
    /// Seconds since 1970-01-01.
    pub now_unix: u64,
    pub profile: &'a Profile,
}

impl Default for VerifyRequest<'_> {
    /// A request without Identity, parties or time, in the default profile.
    fn default() -> Self {
        Self {
            identities: &[],
            orig: &[],
            to: &[],
            request_uri: &[],
            date: None,
            media_keys: None,
            now_unix: 0,
            profile: &Profile::DEFAULT,
        }
    }
}

/// How the verification of a request ended, and what the deciding token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// Attestation of the token; meaningful only if the outcome is passed (ST-66).
    pub attest: Option<Attest>,
    pub origid: Option<Box<str>>,
    pub x5u: Option<Box<str>>,
    /// Service provider code of the certificate (ST-87).
    pub spc: Option<Box<str>>,
    /// `now - iat`, seconds (ST-88).
    pub iat_skew_s: Option<i64>,
    /// A number in the token was not in canonical form (ST-15).
    pub not_canonical: bool,
}

impl Verdict {
    /// A verdict without a token.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            attest: None,
            origid: None,
            x5u: None,
            spc: None,
            iat_skew_s: None,
            not_canonical: false,
        }
    }

    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.reason.outcome()
    }

    #[must_use]
    pub const fn cause(&self) -> Option<u16> {
        self.outcome().cause()
    }

    #[must_use]
    pub const fn verstat(&self) -> Option<Verstat> {
        self.outcome().verstat()
    }
}

/// Judges one request (ST-60): it passes if one supported token passes, and is invalid only if all
/// of them are. Tokens of an unsupported type count as absent.
#[must_use]
pub fn verify(trust: &Trust, request: &VerifyRequest<'_>) -> Verdict {
    if request.identities.is_empty() {
        return Verdict::of(Reason::NoIdentity);
    }
    let mut tokens: SmallVec<[Token<'_>; 4]> = SmallVec::new();
    let mut worst: Option<Verdict> = None;
    let mut seen: SmallVec<[&[u8]; 4]> = SmallVec::new();
    let mut octets = 0usize;
    // A div token that does not even read.
    let mut broken_div: Option<Verdict> = None;
    for value in request.identities {
        octets = octets.saturating_add(value.len());
        if octets > limits::IDENTITY_TOTAL_BYTES_MAX {
            return Verdict::of(Reason::IdentityTooLong);
        }
        let mut empty = true;
        for element in elements(value) {
            empty = false;
            // A header that was repeated on the way is one header.
            if seen.contains(&element) {
                continue;
            }
            if seen.len() >= limits::IDENTITY_COUNT_MAX {
                return Verdict::of(Reason::IdentityTooMany);
            }
            seen.push(element);
            match Token::read(element, request.profile) {
                Ok(Some(token)) => tokens.push(token),
                Ok(None) => keep_worse(&mut worst, Verdict::of(Reason::PptUnsupported)),
                Err(reason) => {
                    if Token::names_div(element, request.profile) {
                        broken_div.get_or_insert_with(|| Verdict::of(reason));
                    }
                    keep_worse(&mut worst, Verdict::of(reason));
                }
            }
        }
        if empty {
            keep_worse(&mut worst, Verdict::of(Reason::IdentitySyntax));
        }
    }
    let diverted = tokens.iter().any(|token| token.passport_type() == Type::Div);
    if diverted || broken_div.is_some() {
        let chain = if diverted { Some(div::judge(trust, request, &tokens)) } else { broken_div };
        let chain = chain.unwrap_or_else(|| Verdict::of(Reason::DivIncomplete));
        let alone = request.profile.div_incomplete_ignored
            || tokens.iter().any(|token| token.covers_request_uri(request));
        if chain.outcome() == Outcome::Passed || !alone {
            return chain;
        }
        keep_worse(&mut worst, chain);
    }
    for token in tokens.iter().filter(|token| token.passport_type() != Type::Div) {
        let verdict = token.judge(trust, request);
        if verdict.outcome() == Outcome::Passed {
            return verdict;
        }
        keep_worse(&mut worst, verdict);
    }
    worst.unwrap_or_else(|| Verdict::of(Reason::NoIdentity))
}

/// Which of several verdicts that are no pass speaks for the request (RFC 8224 6.2.1, 6.2.2): a
/// token that could not be decided keeps the request from being invalid; 437 is for at least one
/// token, 436 and 438 are for all of them; ignored tokens speak last.
fn keep_worse(worst: &mut Option<Verdict>, verdict: Verdict) {
    let rank = |verdict: &Verdict| match verdict.outcome() {
        Outcome::NoneFetch => 5,
        Outcome::BadCred => 4,
        Outcome::Stale => 3,
        Outcome::BadToken => 2,
        Outcome::BadInfo => 1,
        _ => 0,
    };
    if worst.as_ref().is_none_or(|known| rank(&verdict) > rank(known)) {
        *worst = Some(verdict);
    }
}

#[cfg(test)]
mod tests;
