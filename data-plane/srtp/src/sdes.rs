//! Keys in SDP: the `a=crypto` attribute of RFC 4568, read, written and negotiated.
//!
//! Of the session parameters, UNENCRYPTED_SRTCP is supported, WSH, KDR=0 and FEC_ORDER=FEC_SRTP (the
//! defaults) are taken and change nothing, and those with a leading dash may be ignored. Any other
//! makes the line one that we do not accept, with its name in the [`Refused`].

use smallvec::SmallVec;
use zeroize::Zeroize;

use crate::{
    base64,
    keys::{Keying, Keys, Master, MasterKey, Mki},
    limits::{
        CRYPTO_LINES_MAX, CRYPTO_VALUE_MAX_BYTES, MASTER_KEYS_MAX, MKI_MAX_BYTES, RTP_LIFETIME,
    },
    suite::Suite,
};

/// One `a=crypto` attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crypto {
    /// 0 to 999,999,999; names the line in the answer.
    pub tag: u32,
    pub keys: Keys,
}

/// Why a line cannot be accepted (RFC 4568 6.1, 6.3: it counts as invalid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Breaks the grammar of RFC 4568 9.1, or is longer than a line may be.
    Syntax,
    /// A suite that is not one of ours, or not allowed here.
    Suite,
    /// A key method other than `inline`.
    Method,
    /// The key is not base64, or not as long as the suite's.
    Key,
    /// Zero, more than 2^48, or not a number.
    Lifetime,
    /// Length outside 1 to 128, a value that does not fit, or two keys that cannot be told apart.
    Mki,
    /// More master keys than [`MASTER_KEYS_MAX`].
    Keys,
    /// `UNENCRYPTED_SRTP`: media in the clear is RTP/AVP.
    UnencryptedSrtp,
    /// `UNAUTHENTICATED_SRTP`: anybody could inject (RFC 4568 6.3.3).
    UnauthenticatedSrtp,
    /// `KDR` above zero.
    Kdr,
    /// `FEC_ORDER=SRTP_FEC` or `FEC_KEY`.
    Fec,
    /// A parameter that we do not know and may not ignore (RFC 4568 6.3.7).
    Parameter,
    /// The answer's tag is that of no line offered, or its suite or parameters are not that line's.
    NotOffered,
    /// The answer repeats a key of the offer (RFC 4568 7.1.2).
    KeyRepeated,
    /// There is no line at all.
    Absent,
}

impl Refused {
    /// For logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Suite => "suite",
            Self::Method => "method",
            Self::Key => "key",
            Self::Lifetime => "lifetime",
            Self::Mki => "mki",
            Self::Keys => "keys",
            Self::UnencryptedSrtp => "UNENCRYPTED_SRTP",
            Self::UnauthenticatedSrtp => "UNAUTHENTICATED_SRTP",
            Self::Kdr => "KDR",
            Self::Fec => "FEC",
            Self::Parameter => "parameter",
            Self::NotOffered => "not_offered",
            Self::KeyRepeated => "key_repeated",
            Self::Absent => "absent",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a=crypto refused: {}", self.label())
    }
}

impl std::error::Error for Refused {}

impl Crypto {
    /// Reads what stands behind `a=crypto:`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn parse(value: &[u8]) -> Result<Self, Refused> {
        if value.len() > CRYPTO_VALUE_MAX_BYTES {
            return Err(Refused::Syntax);
        }
        let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
        let mut words = value.split(blank).filter(|word| !word.is_empty());
        let starts = value.first().is_some_and(u8::is_ascii_digit);
        let tag = words.next().filter(|_| starts).ok_or(Refused::Syntax)?;
        let tag = number(tag, 9).and_then(|tag| u32::try_from(tag).ok()).ok_or(Refused::Syntax)?;
        let name = words.next().ok_or(Refused::Syntax)?;
        if !name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'_') {
            return Err(Refused::Syntax);
        }
        let parameters = words.next().ok_or(Refused::Syntax)?;
        let suite = Suite::from_name(name).ok_or(Refused::Suite)?;
        let mut masters: SmallVec<[Master; 1]> = SmallVec::new();
        for parameter in parameters.split(|octet| *octet == b';') {
            if masters.len() == MASTER_KEYS_MAX {
                return Err(Refused::Keys);
            }
            masters.push(key_parameter(suite, parameter)?);
        }
        let mut keys = Keys::several(masters).ok_or(Refused::Mki)?;
        for parameter in words {
            session_parameter(parameter, &mut keys)?;
        }
        Ok(Self { tag, keys })
    }

    /// Appends what stands behind `a=crypto:`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{} {} ", self.tag, self.keys.suite()).as_bytes());
        for (at, master) in self.keys.masters().iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"inline:" } else { b";inline:" });
            base64::encode(master.key.key_and_salt(), out);
            match master.lifetime {
                Some(lifetime) if lifetime.is_power_of_two() => {
                    out.extend_from_slice(format!("|2^{}", lifetime.trailing_zeros()).as_bytes());
                }
                Some(lifetime) => out.extend_from_slice(format!("|{lifetime}").as_bytes()),
                None => {}
            }
            if let Some(mki) = master.mki {
                out.extend_from_slice(format!("|{}:{}", mki.value(), mki.bytes()).as_bytes());
            }
        }
        if self.keys.unencrypted_rtcp {
            out.extend_from_slice(b" UNENCRYPTED_SRTCP");
        }
    }
}

/// The lines of an offer of ours: one for each suite in its order, each with a key of its own, tags
/// from 1.
#[must_use]
pub fn offer(suites: &[Suite], random: &mut dyn FnMut(&mut [u8])) -> SmallVec<[Crypto; 4]> {
    (1..)
        .zip(suites)
        .map(|(tag, suite)| Crypto { tag, keys: Keys::single(MasterKey::draw(*suite, random)) })
        .collect()
}

/// The line of an offer that we accept: the first in the offerer's order of preference (RFC 4568 5.1.2)
/// whose suite is in `allowed`. Later lines than [`CRYPTO_LINES_MAX`] are passed over.
///
/// # Errors
/// Why the first line was refused, or the first of an allowed suite; [`Refused::Absent`] without any.
pub fn choose<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    allowed: &[Suite],
) -> Result<Crypto, Refused> {
    let mut why = Refused::Absent;
    for value in values.take(CRYPTO_LINES_MAX) {
        match Crypto::parse(value) {
            Ok(crypto) if allowed.contains(&crypto.keys.suite()) => return Ok(crypto),
            Ok(_) if why == Refused::Absent => why = Refused::Suite,
            Err(refused) if matches!(why, Refused::Absent | Refused::Suite) => why = refused,
            Ok(_) | Err(_) => {}
        }
    }
    Err(why)
}

/// Our answer to a line that was chosen: the same tag, suite and negotiated parameters, a key of our
/// own, and an MKI if the offer has one (RFC 4568 7.1.2).
#[must_use]
pub fn answer(chosen: &Crypto, random: &mut dyn FnMut(&mut [u8])) -> Crypto {
    let suite = chosen.keys.suite();
    let key = MasterKey::draw(suite, random);
    let theirs = chosen.keys.masters().first().and_then(|master| master.mki);
    let mki = theirs.and_then(|mki| Mki::new(1, mki.bytes()));
    let master = Master { key, mki, lifetime: None };
    let mut keys = Keys::several([master.clone()]).unwrap_or_else(|| Keys::single(master.key));
    keys.unencrypted_rtcp = chosen.keys.unencrypted_rtcp;
    Crypto { tag: chosen.tag, keys }
}

/// The keys of both directions from the lines that we offered and the line of the answer.
///
/// # Errors
/// [`Refused`]: the stream has no security then, and is to be refused (RFC 4568 7.1.3).
pub fn accept(offered: &[Crypto], answer: &[u8]) -> Result<Keying, Refused> {
    let answer = Crypto::parse(answer)?;
    let line = offered.iter().find(|line| line.tag == answer.tag).ok_or(Refused::NotOffered)?;
    if line.keys.suite() != answer.keys.suite()
        || line.keys.unencrypted_rtcp != answer.keys.unencrypted_rtcp
    {
        return Err(Refused::NotOffered);
    }
    let repeats = |key: &MasterKey| {
        offered.iter().flat_map(|line| line.keys.masters()).any(|master| master.key == *key)
    };
    if answer.keys.masters().iter().any(|master| repeats(&master.key)) {
        return Err(Refused::KeyRepeated);
    }
    Ok(Keying { ours: line.keys.clone(), theirs: answer.keys })
}

/// `inline:key||salt|lifetime|mki:length`.
fn key_parameter(suite: Suite, parameter: &[u8]) -> Result<Master, Refused> {
    let colon = parameter.iter().position(|octet| *octet == b':').ok_or(Refused::Syntax)?;
    let (method, info) = parameter.split_at(colon);
    let info = info.get(1..).unwrap_or_default();
    if !method.eq_ignore_ascii_case(b"inline") {
        return Err(Refused::Method);
    }
    let mut fields = info.split(|octet| *octet == b'|');
    let mut octets = [0; 64];
    let text = fields.next().ok_or(Refused::Key)?;
    let key = base64::decode(text, &mut octets)
        .and_then(|length| octets.get(..length))
        .and_then(|key| MasterKey::new(suite, key));
    octets.zeroize();
    let key = key.ok_or(Refused::Key)?;
    let mut field = fields.next();
    let mut lifetime = None;
    if let Some(text) = field.filter(|text| !text.contains(&b':')) {
        lifetime = Some(lifetime_of(text).ok_or(Refused::Lifetime)?);
        field = fields.next();
    }
    let mki = field.map(|text| mki_of(text).ok_or(Refused::Mki)).transpose()?;
    if fields.next().is_some() {
        return Err(Refused::Syntax);
    }
    Ok(Master { key, mki, lifetime })
}

fn session_parameter(parameter: &[u8], keys: &mut Keys) -> Result<(), Refused> {
    if !parameter.iter().all(u8::is_ascii_graphic) {
        return Err(Refused::Syntax);
    }
    match parameter {
        b"UNENCRYPTED_SRTCP" => keys.unencrypted_rtcp = true,
        b"UNENCRYPTED_SRTP" => return Err(Refused::UnencryptedSrtp),
        b"UNAUTHENTICATED_SRTP" => return Err(Refused::UnauthenticatedSrtp),
        b"KDR=0" | b"FEC_ORDER=FEC_SRTP" => {}
        _ if parameter.starts_with(b"KDR=") => return Err(Refused::Kdr),
        _ if parameter.starts_with(b"FEC_ORDER=") || parameter.starts_with(b"FEC_KEY=") => {
            return Err(Refused::Fec);
        }
        // A hint for our window, which may be ignored (RFC 4568 6.3.6).
        _ if parameter.strip_prefix(b"WSH=").is_some_and(|hint| number(hint, 9).is_some()) => {}
        [b'-', _, ..] => {}
        _ => return Err(Refused::Parameter),
    }
    Ok(())
}

/// At most `digits` decimal digits.
fn number(text: &[u8], digits: usize) -> Option<u64> {
    let sound = !text.is_empty() && text.len() <= digits && text.iter().all(u8::is_ascii_digit);
    sound.then(|| text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

/// RFC 4568 6.1: no leading zero.
fn plain_number(text: &[u8], digits: usize) -> Option<u64> {
    number(text, digits).filter(|_| text.first() != Some(&b'0') || text == b"0")
}

/// RFC 4568 6.1: a number or a power of two, at most 2^48. Above 2^31 it cannot be reached by SRTCP.
fn lifetime_of(text: &[u8]) -> Option<u64> {
    let lifetime = match text.strip_prefix(b"2^") {
        Some(power) => 1_u64.checked_shl(u32::try_from(plain_number(power, 2)?).ok()?)?,
        None => plain_number(text, 15)?,
    };
    (1..=RTP_LIFETIME).contains(&lifetime).then_some(lifetime)
}

fn mki_of(text: &[u8]) -> Option<Mki> {
    let colon = text.iter().position(|octet| *octet == b':')?;
    let (value, length) = text.split_at(colon);
    let length = plain_number(length.get(1..)?, 3)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= MKI_MAX_BYTES)?;
    // 19 digits always fit into 64 bits.
    Mki::new(plain_number(value, 19)?, length)
}

#[cfg(test)]
mod tests;
