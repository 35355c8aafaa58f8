//! Certificate revocation lists: the STI-PA's indirect one above all (ST-45, ST-46). It is signed
//! by an issuer of its own, so it has anchors of its own, apart from the STI-CAs'.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension};
use x509_parser::x509::X509Name;

use super::certificate::{Certificate, check_signature, name_key, serial_key, signature_type};
use super::der;
use crate::limits::CRL_ENTRIES_MAX;

const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];

/// Why a revocation list is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlError {
    Malformed,
    /// More entries than [`CRL_ENTRIES_MAX`].
    TooLong,
    /// No anchor has the name of its issuer.
    Untrusted,
    Signature,
    /// Its issue is in the future.
    NotYetValid,
    /// A critical extension that is not understood, or an entry for another issuer in a list that
    /// does not say that it is indirect.
    Unsupported,
    /// The issuer's certificate is expired or may not sign revocation lists.
    Issuer,
}

impl CrlError {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "the revocation list does not parse",
            Self::TooLong => "the revocation list has too many entries",
            Self::Untrusted => "no anchor for the issuer of the revocation list",
            Self::Signature => "the signature of the revocation list is bad",
            Self::NotYetValid => "the revocation list is dated in the future",
            Self::Unsupported => "the revocation list has a critical part that is not supported",
            Self::Issuer => "the issuer of the revocation list is expired or not entitled",
        }
    }
}

impl fmt::Display for CrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for CrlError {}

/// Serial numbers by issuer name.
type Revoked = HashMap<Box<[u8]>, HashSet<Box<[u8]>>>;

/// A verified list: which serial numbers of which issuers are revoked.
#[derive(Clone, Debug)]
pub struct RevocationList {
    revoked: Revoked,
    pub this_update: i64,
    /// After this the list is stale (ST-46). None: never.
    pub next_update: Option<i64>,
}

impl RevocationList {
    /// Reads a list in DER and checks it against its own `anchors`.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn from_der(
        octets: &[u8],
        anchors: &[Arc<Certificate>],
        now: i64,
    ) -> Result<Self, CrlError> {
        let (rest, list) =
            CertificateRevocationList::from_der(octets).map_err(|_| CrlError::Malformed)?;
        let tbs = &list.tbs_cert_list;
        if !rest.is_empty()
            || !der::is_signed_frame(octets)
            || list.signature_algorithm != tbs.signature
            || list.signature_value.unused_bits != 0
        {
            return Err(CrlError::Malformed);
        }
        let issuer = name_key(&tbs.issuer);
        let mut failure = CrlError::Untrusted;
        let signed = anchors.iter().filter(|anchor| anchor.subject_key == issuer).any(|anchor| {
            let entitled = anchor.key_usage.is_none_or(|usage| usage.crl_sign);
            if anchor.check_time(now).is_err() || !entitled {
                failure = CrlError::Issuer;
                return false;
            }
            let checked = check_signature(
                signature_type(&list.signature_algorithm),
                &anchor.public_key,
                tbs.as_ref(),
                &list.signature_value.data,
            );
            if checked.is_err() {
                failure = CrlError::Signature;
            }
            checked.is_ok()
        });
        if !signed {
            return Err(failure);
        }
        let this_update = tbs.this_update.timestamp();
        if this_update > now {
            return Err(CrlError::NotYetValid);
        }
        if tbs.revoked_certificates.len() > CRL_ENTRIES_MAX {
            return Err(CrlError::TooLong);
        }
        let indirect = is_indirect(&list)?;
        let revoked = entries(&list, &issuer, indirect)?;
        Ok(Self { revoked, this_update, next_update: tbs.next_update.map(|time| time.timestamp()) })
    }

    /// Whether the list names this certificate: same issuer and same serial number.
    #[must_use]
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        self.revoked
            .get(&certificate.issuer_key)
            .is_some_and(|serials| serials.contains(&certificate.serial))
    }

    /// Number of revoked certificates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoked.values().map(HashSet::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }
}

/// Reads the list's own extensions.
fn is_indirect(list: &CertificateRevocationList<'_>) -> Result<bool, CrlError> {
    let mut indirect = false;
    for extension in list.extensions() {
        match (extension.oid.as_bytes(), extension.parsed_extension()) {
            (ISSUING_DISTRIBUTION_POINT, ParsedExtension::IssuingDistributionPoint(point)) => {
                indirect = point.indirect_crl;
            }
            // A delta adds to the lists before it; its entries are revoked all the same.
            (DELTA_CRL_INDICATOR, _) => {}
            _ if extension.critical => return Err(CrlError::Unsupported),
            _ => {}
        }
    }
    Ok(indirect)
}

/// Issuer and serial of each entry. An entry without a certificate issuer is of the issuer of the
/// entry before it, the first one of the list's own (RFC 5280 5.3.3).
fn entries(
    list: &CertificateRevocationList<'_>,
    list_issuer: &[u8],
    indirect: bool,
) -> Result<Revoked, CrlError> {
    let mut revoked: Revoked = HashMap::new();
    let mut issuer: Box<[u8]> = list_issuer.into();
    for entry in list.iter_revoked_certificates() {
        for extension in entry.extensions() {
            match extension.oid.as_bytes() {
                CERTIFICATE_ISSUER if indirect => {
                    issuer = directory_name(extension.value).ok_or(CrlError::Malformed)?;
                }
                CERTIFICATE_ISSUER => return Err(CrlError::Unsupported),
                _ if extension.critical => return Err(CrlError::Unsupported),
                _ => {}
            }
        }
        revoked.entry(issuer.clone()).or_default().insert(serial_key(entry.raw_serial()));
    }
    Ok(revoked)
}

/// The directory name of a GeneralNames value.
fn directory_name(value: &[u8]) -> Option<Box<[u8]>> {
    let mut names = der::Reader::new(der::single(value, der::SEQUENCE)?);
    while !names.is_empty() {
        let (tag, content) = names.element()?;
        if tag == der::context(4) {
            let (rest, name) = X509Name::from_der(content).ok()?;
            return rest.is_empty().then(|| name_key(&name));
        }
    }
    None
}

#[cfg(test)]
#[path = "crl_tests.rs"]
mod tests;
