//! One Identity header value: read, then judged alone against the request.

use std::sync::Arc;

use super::{DestMatch, Profile, Verdict, VerifyRequest};
use crate::cert::VerifiedChain;
use crate::cert::tn_auth_list::Coverage;
use crate::cert::url::{UrlError, check_url};
use crate::identity::{Identity, Info};
use crate::limits::DATE_TOLERANCE_S;
use crate::outcome::Reason;
use crate::passport::read::{SIGNATURE_BYTES, Type, read_signature};
use crate::passport::{MediaKeys, Passport, write};
use crate::tn::Party;
use crate::trust::Trust;

/// A token that is sound by itself; nothing has been compared with the request yet.
pub(super) enum Token<'a> {
    Full(Box<Passport<'a>>),
    Compact { x5u: &'a str, signature: Box<[u8; SIGNATURE_BYTES]> },
}

impl<'a> Token<'a> {
    /// Reads an Identity header value. `None`: its type is not supported, so it counts as absent
    /// (RFC 8224 6.2 step 1).
    pub(super) fn read(value: &'a [u8], profile: &Profile) -> Result<Option<Self>, Reason> {
        let identity = Identity::parse(value)?;
        if identity.alg.is_some_and(|alg| alg != b"ES256") {
            return Err(Reason::AlgParam);
        }
        let named = match identity.ppt {
            Some(ppt) => match Type::of_ppt(ppt) {
                Some(known) => Some(known),
                None => return Ok(None),
            },
            None => None,
        };
        if identity.is_compact() {
            return Self::read_compact(&identity, named).map(Some);
        }
        let Some(jose) = Passport::jose(identity.token, profile.jose_strict)? else {
            let mismatch = named.is_some();
            return if mismatch { Err(Reason::PptMismatch) } else { Ok(None) };
        };
        match named {
            Some(named) if named != jose.passport_type => return Err(Reason::PptMismatch),
            None if profile.ppt_param_required && jose.passport_type != Type::Base => {
                return Err(Reason::PptParamMissing);
            }
            _ => {}
        }
        let info = info_url(&identity)?;
        if info != jose.x5u.as_ref() {
            return Err(Reason::InfoNotX5u);
        }
        check_info(info)?;
        let passport = Passport::read(identity.token, jose)?;
        Ok(Some(Self::Full(Box::new(passport))))
    }

    /// Whether a value that could not be read says that it is a div token.
    pub(super) fn names_div(value: &[u8], profile: &Profile) -> bool {
        let Ok(identity) = Identity::parse(value) else { return false };
        let jose = || Passport::jose(identity.token, profile.jose_strict).ok().flatten();
        match identity.ppt {
            Some(ppt) => Type::of_ppt(ppt) == Some(Type::Div),
            None => jose().is_some_and(|jose| jose.passport_type == Type::Div),
        }
    }

    /// `..signature`: base PASSporTs only (ST-29).
    fn read_compact(identity: &Identity<'a>, named: Option<Type>) -> Result<Self, Reason> {
        if named.is_some() {
            return Err(Reason::CompactForm);
        }
        let info = info_url(identity)?;
        check_info(info)?;
        let text = identity.token.get(2..).unwrap_or_default();
        Ok(Self::Compact { x5u: info, signature: Box::new(read_signature(text)?) })
    }

    pub(super) const fn passport_type(&self) -> Type {
        match self {
            Self::Full(passport) => passport.jose.passport_type,
            Self::Compact { .. } => Type::Base,
        }
    }

    pub(super) const fn full(&self) -> Option<&Passport<'a>> {
        match self {
            Self::Full(passport) => Some(passport),
            Self::Compact { .. } => None,
        }
    }

    /// Whether the token is not div and its `dest` is the request's target itself.
    pub(super) fn covers_request_uri(&self, request: &VerifyRequest<'_>) -> bool {
        self.full().is_some_and(|passport| {
            passport.jose.passport_type != Type::Div
                && any_equal(&passport.claims.dest, request.request_uri)
        })
    }

    /// Judges the token against the request.
    pub(super) fn judge(&self, trust: &Trust, request: &VerifyRequest<'_>) -> Verdict {
        match self {
            Self::Full(passport) => {
                let reason = match passport.jose.passport_type {
                    Type::DivO => super::div::judge_nested(trust, request, passport),
                    Type::Rph => judge_full(trust, request, passport)
                        .map(|_| Reason::PptOther)
                        .unwrap_or_else(|reason| reason),
                    _ => judge_full(trust, request, passport)
                        .map(|_| Reason::Valid)
                        .unwrap_or_else(|reason| reason),
                };
                verdict(reason, trust, request, passport)
            }
            Self::Compact { x5u, signature } => {
                let reason = match judge_compact(trust, request, x5u, signature) {
                    Ok(()) => Reason::Valid,
                    Err(reason) => reason,
                };
                Verdict { x5u: Some((*x5u).into()), ..Verdict::of(reason) }
            }
        }
    }
}

/// A verdict with what the token says.
pub(super) fn verdict(
    reason: Reason,
    trust: &Trust,
    request: &VerifyRequest<'_>,
    passport: &Passport<'_>,
) -> Verdict {
    let claims = &passport.claims;
    let chain = trust.chain(&passport.jose.x5u, request.now_unix).ok();
    Verdict {
        reason,
        attest: claims.attest,
        origid: claims.origid.clone(),
        x5u: Some(passport.jose.x5u.clone()),
        spc: chain.and_then(|chain| chain.tn_auth_list().spc()).map(Into::into),
        iat_skew_s: i64::try_from(i128::from(request.now_unix) - i128::from(claims.iat)).ok(),
        not_canonical: claims.not_canonical,
    }
}

fn info_url<'a>(identity: &Identity<'a>) -> Result<&'a str, Reason> {
    match identity.info {
        Info::Url(url) => std::str::from_utf8(url).map_err(|_| Reason::InfoSyntax),
        Info::Missing => Err(Reason::InfoMissing),
        Info::Malformed => Err(Reason::InfoSyntax),
    }
}

fn check_info(url: &str) -> Result<(), Reason> {
    check_url(url.as_bytes()).map_err(|error| match error {
        UrlError::Scheme => Reason::InfoNotHttps,
        _ => Reason::InfoPolicy,
    })
}

/// The cheap comparisons first, then certificate and signature.
fn judge_full(
    trust: &Trust,
    request: &VerifyRequest<'_>,
    passport: &Passport<'_>,
) -> Result<(), Reason> {
    let claims = &passport.claims;
    check_fresh(request, claims.iat, request.profile.window_past_s)?;
    check_date(request, claims.iat)?;
    check_orig(request, &claims.orig)?;
    check_dest(request, &claims.dest)?;
    check_media_keys(request, passport)?;
    let chain = credential(trust, request, passport)?;
    check_credential(chain, passport)
}

/// `now - past <= iat <= now + future`, ends included (ST-34).
pub(super) fn check_fresh(
    request: &VerifyRequest<'_>,
    iat: u64,
    past_s: u32,
) -> Result<(), Reason> {
    let now = request.now_unix;
    if iat < now.saturating_sub(u64::from(past_s)) {
        return Err(Reason::IatStale);
    }
    if iat > now.saturating_add(u64::from(request.profile.window_future_s)) {
        return Err(Reason::IatFuture);
    }
    Ok(())
}

/// Only in the strict profile (ST-35). An absent Date is no Date.
pub(super) fn check_date(request: &VerifyRequest<'_>, iat: u64) -> Result<(), Reason> {
    match request.date {
        Some(date) if request.profile.date_strict => {
            let off = date.abs_diff(iat).max(date.abs_diff(request.now_unix));
            if off > DATE_TOLERANCE_S { Err(Reason::DateMismatch) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

pub(super) fn check_orig(request: &VerifyRequest<'_>, orig: &Party) -> Result<(), Reason> {
    if request.orig.contains(orig) {
        return Ok(());
    }
    let anonymous = |party: &Party| {
        matches!(party, Party::Uri(uri)
            if uri.starts_with("sip:anonymous@") || uri.ends_with("@anonymous.invalid"))
    };
    // An empty list is a request without a calling party, too.
    if request.orig.iter().all(anonymous) {
        return Err(Reason::OrigAnonymous);
    }
    Err(Reason::OrigMismatch)
}

/// Any value of `dest` that matches suffices (ST-18).
fn check_dest(request: &VerifyRequest<'_>, dest: &[Party]) -> Result<(), Reason> {
    let to = || any_equal(dest, request.to);
    let request_uri = || any_equal(dest, request.request_uri);
    let matches = match request.profile.dest_match {
        DestMatch::To => to(),
        DestMatch::RequestUri => request_uri(),
        DestMatch::ToOrRequestUri => to() || request_uri(),
    };
    if matches { Ok(()) } else { Err(Reason::DestMismatch) }
}

pub(super) fn any_equal(claimed: &[Party], actual: &[Party]) -> bool {
    claimed.iter().any(|one| actual.contains(one))
}

/// `mky` and the fingerprints in the SDP are the same (ST-73). A base PASSporT has to list them
/// (RFC 8224 4.1); the other types may leave them out.
fn check_media_keys(request: &VerifyRequest<'_>, passport: &Passport<'_>) -> Result<(), Reason> {
    let Some(actual) = request.media_keys else { return Ok(()) };
    let same = match &passport.claims.mky {
        Some(claimed) => claimed.same_as(actual),
        None => passport.jose.passport_type != Type::Base || actual.is_empty(),
    };
    if same { Ok(()) } else { Err(Reason::MediaKeyMismatch) }
}

/// The chain of a token's certificate. A signature that no certificate could save is bad without
/// one, too.
pub(super) fn credential<'t>(
    trust: &'t Trust,
    request: &VerifyRequest<'_>,
    passport: &Passport<'_>,
) -> Result<&'t Arc<VerifiedChain>, Reason> {
    trust.chain(&passport.jose.x5u, request.now_unix).map_err(|reason| match reason {
        Reason::CertificateUnavailable if passport.signature.is_none() => Reason::SignatureForm,
        reason => reason,
    })
}

/// Whether the certificate may sign these claims, and did.
pub(super) fn check_credential(
    chain: &Arc<VerifiedChain>,
    passport: &Passport<'_>,
) -> Result<(), Reason> {
    let claims = &passport.claims;
    // A div token is signed for the number that diverts, any other for the calling number
    // (RFC 8946 3; ST-41). Who vouches for a priority need not own the number (RFC 8443 3).
    let signer = claims.div.as_ref().unwrap_or(&claims.orig);
    if passport.jose.passport_type != Type::Rph {
        check_scope(chain, signer)?;
    }
    if let Some(constraints) = chain.claim_constraints()
        && !passport.payload().is_some_and(|payload| constraints.allow(payload))
    {
        return Err(Reason::ClaimConstraint);
    }
    let signature = passport.signature.as_ref().ok_or(Reason::SignatureForm)?;
    check_signature(chain, passport.signed, signature)
}

/// Which numbers belong to a service provider code is not known here, so a code covers all.
fn check_scope(chain: &VerifiedChain, party: &Party) -> Result<(), Reason> {
    let list = chain.tn_auth_list();
    let covered = match party {
        Party::Tn(tn) => list.covers(tn) != Coverage::No,
        Party::Uri(_) => list.spc().is_some(),
    };
    if covered { Ok(()) } else { Err(Reason::TnAuthListScope) }
}

fn check_signature(
    chain: &VerifiedChain,
    signed: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), Reason> {
    chain.key().verify_sig(signed, signature).map_err(|_| Reason::Signature)
}

/// Rebuilds the token from the request (RFC 8225 7) and verifies the signature over it. Each party
/// may have been signed as a number or as a URI: at most four spellings.
fn judge_compact(
    trust: &Trust,
    request: &VerifyRequest<'_>,
    x5u: &str,
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), Reason> {
    // `iat` of a compact form is the Date header.
    let iat = request.date.ok_or(Reason::CompactMismatch)?;
    check_fresh(request, iat, request.profile.window_past_s)?;
    if request.orig.is_empty() {
        return Err(Reason::OrigAnonymous);
    }
    let chain = trust.chain(x5u, request.now_unix)?;
    let none = MediaKeys::default();
    let keys = request.media_keys.unwrap_or(&none);
    let mut jose = Vec::new();
    write::push_jose(Type::Base, x5u, &mut jose);
    for orig in request.orig.iter().take(2) {
        for dest in request.to.iter().take(2) {
            let mut payload = Vec::new();
            write::push_base(orig, std::slice::from_ref(dest), iat, keys, &mut payload);
            let mut signed = Vec::new();
            write::push_encoded(&jose, &mut signed);
            signed.push(b'.');
            write::push_encoded(&payload, &mut signed);
            if check_signature(chain, &signed, signature).is_ok() {
                return check_scope(chain, orig);
            }
        }
    }
    Err(Reason::CompactMismatch)
}
