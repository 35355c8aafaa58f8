//! What the verification service trusts: anchors, validated certificate chains by URL, revocation.
//! Built off the call path, then immutable: a shard reads it through its snapshot, without a lock,
//! a fetch or any X.509 (ST-81).

use std::collections::HashMap;
use std::sync::Arc;

use crate::cert::certificate::Certificate;
use crate::cert::crl::{CrlError, RevocationList};
use crate::cert::path::{VerifiedChain, read_chain, validate};
use crate::cert::pem;
use crate::limits::CRL_SOFT_GRACE_S;
use crate::outcome::Reason;

/// What a URL leads to: a validated chain, or why its body is not one.
type Entry = Result<Arc<VerifiedChain>, Reason>;

/// The certificates of an x5u body, or why it is none.
type Body = Result<Vec<Arc<Certificate>>, Reason>;

/// An immutable table of validated chains. An empty one trusts nothing: every token ends in
/// `none-fetch`.
#[derive(Debug, Default)]
pub struct Trust {
    chains: HashMap<Box<str>, Entry>,
    /// For every URL that is not in `chains`: only offline tools set it.
    any_url: Option<Entry>,
    anchors: usize,
    /// When the revocation lists go stale. None: there are none, or they never do.
    crl_next_update: Option<i64>,
    crl_hard: bool,
}

impl Trust {
    /// The chain that tokens with this x5u are verified with, valid at `now_unix`.
    ///
    /// # Errors
    /// `CertificateUnavailable` if there is none, else why it is not acceptable.
    pub fn chain(&self, x5u: &str, now_unix: u64) -> Result<&Arc<VerifiedChain>, Reason> {
        let entry = self.chains.get(x5u).or(self.any_url.as_ref());
        let chain = entry.ok_or(Reason::CertificateUnavailable)?.as_ref().map_err(|why| *why)?;
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        chain.check_time(now)?;
        if chain.revoked {
            return Err(Reason::CertificateRevoked);
        }
        let grace = if self.crl_hard { 0 } else { i64::try_from(CRL_SOFT_GRACE_S).unwrap_or(0) };
        if self.crl_next_update.is_some_and(|end| now > end.saturating_add(grace)) {
            return Err(Reason::RevocationUnknown);
        }
        Ok(chain)
    }

    /// Number of trust anchors and of URLs.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.anchors, self.chains.len())
    }
}

/// Collects anchors, chains and revocation lists, then validates all of them at once.
#[derive(Debug, Default)]
pub struct TrustBuilder {
    anchors: Vec<Arc<Certificate>>,
    crl_anchors: Vec<Arc<Certificate>>,
    crls: Vec<Vec<u8>>,
    /// By URL; no URL is any URL.
    chains: Vec<(Option<Box<str>>, Body)>,
    crl_hard: bool,
}

impl TrustBuilder {
    /// Adds every certificate of a PEM text as a trust anchor (the STI-PA's list of STI-CAs, never
    /// the operating system's store; ST-43). Returns how many there were.
    ///
    /// # Errors
    /// `CertificateMalformed` if there is none, or one does not parse.
    pub fn anchors_pem(&mut self, text: &[u8]) -> Result<usize, Reason> {
        read_anchors(text, &mut self.anchors)
    }

    /// Adds every certificate of a PEM text as an anchor of revocation lists (ST-45).
    ///
    /// # Errors
    /// `CertificateMalformed` if there is none, or one does not parse.
    pub fn crl_anchors_pem(&mut self, text: &[u8]) -> Result<usize, Reason> {
        read_anchors(text, &mut self.crl_anchors)
    }

    /// Adds the body of an x5u URL: a chain, leaf first. A body that is none is remembered as such:
    /// tokens with that URL end in `bad-cred`.
    pub fn chain_pem(&mut self, url: &str, body: &[u8]) {
        self.chains.push((Some(url.into()), read_chain(body)));
    }

    /// Adds a chain for every URL that has none of its own. For offline tools.
    pub fn chain_for_any_url(&mut self, body: &[u8]) {
        self.chains.push((None, read_chain(body)));
    }

    /// Adds the revocation lists of a text, PEM or DER.
    ///
    /// # Errors
    /// `Malformed` if there is none.
    pub fn crl(&mut self, text: &[u8]) -> Result<(), CrlError> {
        let mut lists = pem::revocation_lists(text).ok_or(CrlError::Malformed)?;
        if lists.is_empty() {
            return Err(CrlError::Malformed);
        }
        self.crls.append(&mut lists);
        Ok(())
    }

    /// Refuses certificates when there is no usable revocation list, and as soon as the lists are
    /// stale instead of seven days later (ST-46).
    pub const fn crl_hard(&mut self, hard: bool) {
        self.crl_hard = hard;
    }

    /// Validates everything at `now_unix` seconds. Revocation lists that cannot be used are left
    /// out and returned as errors, for an alarm.
    #[must_use]
    pub fn build(self, now_unix: u64) -> (Trust, Vec<CrlError>) {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let mut refused = Vec::new();
        let mut lists = Vec::new();
        for der in &self.crls {
            match RevocationList::from_der(der, &self.crl_anchors, now) {
                Ok(list) => lists.push(list),
                Err(error) => refused.push(error),
            }
        }
        let next_update = lists.iter().filter_map(|list| list.next_update).min();
        let mut trust = Trust {
            anchors: self.anchors.len(),
            // Without any usable list the hard profile accepts nothing (ST-46).
            crl_next_update: if self.crl_hard && lists.is_empty() {
                Some(i64::MIN)
            } else {
                next_update
            },
            crl_hard: self.crl_hard,
            ..Trust::default()
        };
        for (url, body) in self.chains {
            let entry = body.and_then(|body| {
                let mut chain = validate(&body, &self.anchors, now)?;
                // The anchor itself is removed by configuration, not by a list.
                let (_, issued) = chain.path().split_last().ok_or(Reason::CertificateUntrusted)?;
                let revoked = issued.iter().any(|one| lists.iter().any(|list| list.revokes(one)));
                chain.revoked = revoked;
                Ok(Arc::new(chain))
            });
            match url {
                Some(url) => drop(trust.chains.insert(url, entry)),
                None => trust.any_url = Some(entry),
            }
        }
        (trust, refused)
    }
}

fn read_anchors(text: &[u8], into: &mut Vec<Arc<Certificate>>) -> Result<usize, Reason> {
    let ders = pem::certificates(text).ok_or(Reason::CertificateMalformed)?;
    if ders.is_empty() {
        return Err(Reason::CertificateMalformed);
    }
    for der in &ders {
        into.push(Arc::new(Certificate::from_der(der)?));
    }
    Ok(ders.len())
}
