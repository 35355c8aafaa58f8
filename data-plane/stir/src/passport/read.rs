//! The reader: `header.payload.signature` in base64url, JSON with typed claims. What is signed is
//! the received text, never something rebuilt from it (ST-27). `alg` is judged before anything else
//! is even read (ST-7).

use smallvec::SmallVec;

use crate::base64;
use crate::json::{self, Value};
use crate::limits::{DEST_VALUES_MAX, JOSE_BYTES_MAX, PAYLOAD_BYTES_MAX, URI_BYTES_MAX};
use crate::outcome::Reason;
use crate::passport::media_keys::MediaKeys;
use crate::sign::Attest;
use crate::tn::{Party, Tn, UserIsTn, canonicalise, parties};

/// Octets of an ES256 signature: r and s (ST-7).
pub const SIGNATURE_BYTES: usize = 64;

/// The PASSporT type (`ppt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// No `ppt`: RFC 8225.
    Base,
    /// RFC 8588.
    Shaken,
    /// RFC 8946.
    Div,
    /// RFC 8946 5: the inner token is in `opt`.
    DivO,
    /// RFC 8443, RFC 9027.
    Rph,
    /// RFC 9795.
    Rcd,
}

impl Type {
    /// The type of a `ppt` value. None: not supported here.
    #[must_use]
    pub fn of_ppt(ppt: &[u8]) -> Option<Self> {
        match ppt {
            b"shaken" => Some(Self::Shaken),
            b"div" => Some(Self::Div),
            b"div-o" => Some(Self::DivO),
            b"rph" => Some(Self::Rph),
            b"rcd" => Some(Self::Rcd),
            _ => None,
        }
    }

    /// The `ppt` value.
    #[must_use]
    pub const fn ppt(self) -> Option<&'static str> {
        match self {
            Self::Base => None,
            Self::Shaken => Some("shaken"),
            Self::Div => Some("div"),
            Self::DivO => Some("div-o"),
            Self::Rph => Some("rph"),
            Self::Rcd => Some("rcd"),
        }
    }
}

/// The JOSE header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jose {
    pub passport_type: Type,
    pub x5u: Box<str>,
}

/// The claims that decide (RFC 8225 5, RFC 8588 4, 5, RFC 8946 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub orig: Party,
    pub dest: SmallVec<[Party; 2]>,
    /// Seconds since 1970-01-01.
    pub iat: u64,
    /// `shaken` only.
    pub attest: Option<Attest>,
    /// `shaken` only.
    pub origid: Option<Box<str>>,
    /// `div` and `div-o` only.
    pub div: Option<Party>,
    /// `div-o` only: the inner token.
    pub opt: Option<Box<str>>,
    /// Fingerprints of the offer (ST-73).
    pub mky: Option<MediaKeys>,
    /// A number was not in canonical form (ST-15).
    pub not_canonical: bool,
}

/// A token in full form whose syntax and claims are sound. The signature is not verified yet.
#[derive(Clone, Debug)]
pub struct Passport<'a> {
    pub jose: Jose,
    pub claims: Claims,
    /// The octets that the signature covers.
    pub signed: &'a [u8],
    /// None: not 64 octets, so it is by no P-256 key.
    pub signature: Option<[u8; SIGNATURE_BYTES]>,
    payload: Vec<u8>,
}

impl<'a> Passport<'a> {
    /// Reads the JOSE header of a token, and nothing behind it.
    ///
    /// # Errors
    /// `Ok(None)` of the inner option means an unsupported `ppt`.
    pub fn jose(token: &[u8], strict: bool) -> Result<Option<Jose>, Reason> {
        let (header, _, _) = split(token)?;
        read_jose(header, strict)
    }

    /// Reads a token in full form whose JOSE header has been read by [`Self::jose`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(token: &'a [u8], jose: Jose) -> Result<Self, Reason> {
        let (header, payload_text, signature_text) = split(token)?;
        let signed = token.get(..=header.len() + payload_text.len()).ok_or(Reason::Base64)?;
        let signature = match read_signature(signature_text) {
            Ok(signature) => Some(signature),
            // The key of the certificate may be to blame, which is for the certificate to say.
            Err(Reason::SignatureForm) => None,
            Err(reason) => return Err(reason),
        };
        let payload = decode(payload_text, PAYLOAD_BYTES_MAX, Reason::PayloadTooLong)?;
        let claims = read_claims(&payload, jose.passport_type)?;
        Ok(Self { jose, claims, signed, signature, payload })
    }

    /// The payload as checked JSON.
    pub(crate) fn payload(&self) -> Option<Value<'_>> {
        json::check(&self.payload)
    }
}

/// Header, payload and signature, still encoded.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Three parts between two dots.
fn split(token: &[u8]) -> Result<Parts<'_>, Reason> {
    let mut parts = token.split(|octet| *octet == b'.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None)
            if !header.is_empty() && !payload.is_empty() =>
        {
            Ok((header, payload, signature))
        }
        (Some(b""), Some(b""), Some(_), None) => Err(Reason::CompactForm),
        _ => Err(Reason::IdentitySyntax),
    }
}

/// The 64 octets of r and s. DER, or anything else, is refused (ST-7).
///
/// # Errors
/// `Base64` or `SignatureForm`.
pub(crate) fn read_signature(text: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Reason> {
    let octets = decode(text, 2 * SIGNATURE_BYTES, Reason::SignatureForm)?;
    <[u8; SIGNATURE_BYTES]>::try_from(octets.as_slice()).map_err(|_| Reason::SignatureForm)
}

fn decode(text: &[u8], most: usize, too_long: Reason) -> Result<Vec<u8>, Reason> {
    if text.len().div_ceil(4) * 3 > most + 3 {
        return Err(too_long);
    }
    let mut octets = Vec::with_capacity(text.len());
    base64::decode_url(text, &mut octets).ok_or(Reason::Base64)?;
    if octets.len() > most { Err(too_long) } else { Ok(octets) }
}

fn read_jose(header: &[u8], strict: bool) -> Result<Option<Jose>, Reason> {
    let octets = decode(header, JOSE_BYTES_MAX, Reason::JoseSyntax)?;
    let value = json::check(&octets).ok_or(Reason::JoseSyntax)?;
    let members = value.members().ok_or(Reason::JoseSyntax)?;
    if value.member("alg").and_then(Value::string).as_deref() != Some("ES256") {
        return Err(Reason::AlgUnsupported);
    }
    let (mut passport_type, mut x5u, mut typ) = (Some(Type::Base), None, None);
    for (name, value) in members {
        match name.as_ref() {
            "alg" => {}
            "typ" => typ = value.string(),
            "ppt" => {
                let ppt = value.string().ok_or(Reason::JoseSyntax)?;
                passport_type = Type::of_ppt(ppt.as_bytes());
            }
            "x5u" => x5u = Some(value.string().ok_or(Reason::X5uMissing)?),
            "crit" => return Err(Reason::JoseCritical),
            _ if strict => return Err(Reason::JoseMember),
            _ => {}
        }
    }
    if typ.as_deref() != Some("passport") {
        return Err(Reason::TypNotPassport);
    }
    let Some(passport_type) = passport_type else { return Ok(None) };
    let x5u = x5u.ok_or(Reason::X5uMissing)?;
    Ok(Some(Jose { passport_type, x5u: x5u.into() }))
}

fn read_claims(octets: &[u8], passport_type: Type) -> Result<Claims, Reason> {
    let value = json::check(octets).ok_or(Reason::PayloadSyntax)?;
    let members = value.members().ok_or(Reason::PayloadSyntax)?;
    let (mut orig, mut dest, mut iat) = (None, None, None);
    let (mut attest, mut origid, mut div, mut opt) = (None, None, None, None);
    let mut mky = None;
    let mut not_canonical = false;
    for (name, value) in members {
        match name.as_ref() {
            "orig" => orig = one_party(value, &mut not_canonical),
            "dest" => dest = many_parties(value, &mut not_canonical),
            "iat" => iat = value.unsigned(),
            "attest" => attest = value.string().and_then(|text| Attest::from_text(&text)),
            "origid" => origid = value.string(),
            "div" => div = one_party(value, &mut not_canonical),
            "opt" => opt = Some(value.string().ok_or(Reason::ClaimOpt)?),
            "mky" => mky = Some(MediaKeys::of_claim(value).ok_or(Reason::ClaimMky)?),
            _ => {}
        }
    }
    let shaken = passport_type == Type::Shaken;
    let diverted = matches!(passport_type, Type::Div | Type::DivO);
    // An inner token may be nowhere but in div-o (RFC 8946 3, 6).
    if (passport_type == Type::DivO) != opt.is_some() && (diverted || opt.is_none()) {
        return Err(Reason::ClaimOpt);
    }
    Ok(Claims {
        orig: orig.ok_or(Reason::ClaimOrig)?,
        dest: dest.ok_or(Reason::ClaimDest)?,
        iat: iat.ok_or(Reason::ClaimIat)?,
        attest: if shaken { Some(attest.ok_or(Reason::ClaimAttest)?) } else { None },
        origid: if shaken { Some(origid.ok_or(Reason::ClaimOrigid)?.into()) } else { None },
        div: if diverted { Some(div.ok_or(Reason::ClaimDiv)?) } else { None },
        opt: opt.filter(|_| diverted).map(Into::into),
        mky,
        not_canonical,
    })
}

/// `{"tn":"..."}` or `{"uri":"..."}`, of these exactly one. Other members, such as `hi` in `div`,
/// are passed over.
fn one_party(value: Value<'_>, not_canonical: &mut bool) -> Option<Party> {
    let mut found = None;
    for (name, value) in value.members()? {
        let party = match name.as_ref() {
            "tn" => tn_claim(&value.string()?, not_canonical)?,
            "uri" => uri_claim(&value.string()?)?,
            _ => continue,
        };
        if found.replace(party).is_some() {
            return None;
        }
    }
    found
}

/// `{"tn":["..."],"uri":["..."]}` with at least one value.
fn many_parties(value: Value<'_>, not_canonical: &mut bool) -> Option<SmallVec<[Party; 2]>> {
    let mut found = SmallVec::new();
    for (name, value) in value.members()? {
        let is_tn = match name.as_ref() {
            "tn" => true,
            "uri" => false,
            _ => continue,
        };
        let before = found.len();
        for element in value.elements()? {
            let text = element.string()?;
            (found.len() < DEST_VALUES_MAX).then_some(())?;
            found.push(if is_tn { tn_claim(&text, not_canonical)? } else { uri_claim(&text)? });
        }
        (found.len() > before).then_some(())?;
    }
    (!found.is_empty()).then_some(found)
}

/// A number in a claim. Signers that leave `+` or separators in are understood and counted (ST-15).
fn tn_claim(text: &str, not_canonical: &mut bool) -> Option<Party> {
    if let Ok(tn) = Tn::exact(text.as_bytes()) {
        return Some(Party::Tn(tn));
    }
    (!text.contains([';', '%'])).then_some(())?;
    let tn = canonicalise(text.as_bytes()).ok()?;
    *not_canonical = true;
    Some(Party::Tn(tn))
}

/// A URI in a claim, in the form that it is compared in. One that has no such form stays as it is:
/// nothing will be equal to it.
fn uri_claim(text: &str) -> Option<Party> {
    (!text.is_empty() && text.len() <= URI_BYTES_MAX).then_some(())?;
    let normal = parties(text.as_bytes(), UserIsTn::WithUserPhone)
        .into_iter()
        .find(|party| matches!(party, Party::Uri(_)));
    Some(normal.unwrap_or_else(|| Party::Uri(text.into())))
}
