//! From a leaf certificate to a trust anchor (RFC 5280 6 as far as STI certificates need it; ST-41
//! to ST-44). Lint-grade defects are not fatal: the list of fatal ones is the `bad-cred` reasons.

use std::sync::Arc;

use super::certificate::{Certificate, Extension, KeyType};
use super::claim_constraints::ClaimConstraints;
use super::tn_auth_list::TnAuthList;
use crate::limits::{CHAIN_CERTIFICATES_MAX, PATH_CERTIFICATES_MAX};
use crate::outcome::Reason;

/// A validated path, leaf first, trust anchor last. What can change with time or with a revocation
/// list is checked again by whoever uses it.
#[derive(Clone, Debug)]
pub struct VerifiedChain {
    path: Vec<Arc<Certificate>>,
    /// The leaf's P-256 key, ready for use.
    key: aws_lc_rs::signature::ParsedPublicKey,
    tn_auth_list: TnAuthList,
    claim_constraints: Option<ClaimConstraints>,
    /// The whole path's validity: the latest start and the earliest end.
    not_before: i64,
    not_after: i64,
    pub(crate) revoked: bool,
}

impl VerifiedChain {
    /// Leaf first, trust anchor last.
    #[must_use]
    pub fn path(&self) -> &[Arc<Certificate>] {
        &self.path
    }

    #[must_use]
    pub const fn tn_auth_list(&self) -> &TnAuthList {
        &self.tn_auth_list
    }

    pub(crate) const fn key(&self) -> &aws_lc_rs::signature::ParsedPublicKey {
        &self.key
    }

    pub(crate) const fn claim_constraints(&self) -> Option<&ClaimConstraints> {
        self.claim_constraints.as_ref()
    }

    /// Whether every certificate of the path is valid at `now` (ST-43).
    ///
    /// # Errors
    /// What is wrong with the first one that is not.
    pub fn check_time(&self, now: i64) -> Result<(), Reason> {
        if (self.not_before..=self.not_after).contains(&now) {
            return Ok(());
        }
        self.path.iter().try_for_each(|certificate| certificate.check_time(now))
    }
}

/// Reads the body of an x5u URL, leaf first.
///
/// # Errors
/// If it is no PEM or DER, has no certificate or too many, or one does not parse.
pub fn read_chain(body: &[u8]) -> Result<Vec<Arc<Certificate>>, Reason> {
    let ders = super::pem::certificates(body).ok_or(Reason::CertificateMalformed)?;
    if ders.is_empty() || ders.len() > CHAIN_CERTIFICATES_MAX {
        return Err(Reason::CertificateMalformed);
    }
    ders.iter().map(|der| Certificate::from_der(der).map(Arc::new)).collect()
}

/// What a certificate must be to sign tokens, whoever issued it (ST-12, ST-38, ST-42).
///
/// # Errors
/// The first thing that it is not.
pub fn check_leaf(leaf: &Certificate) -> Result<(), Reason> {
    if leaf.unknown_critical {
        return Err(Reason::CriticalExtension);
    }
    if leaf.public_key.key_type != KeyType::P256 {
        return Err(Reason::KeyType);
    }
    if leaf.ca {
        return Err(Reason::BasicConstraints);
    }
    if leaf.key_usage.is_some_and(|usage| !usage.digital_signature || usage.key_cert_sign) {
        return Err(Reason::KeyUsage);
    }
    match leaf.tn_auth_list {
        Extension::Absent => return Err(Reason::TnAuthListMissing),
        Extension::Malformed => return Err(Reason::TnAuthListMalformed),
        Extension::Present(_) => {}
    }
    if leaf.claim_constraints == Extension::Malformed {
        return Err(Reason::ClaimConstraintsMalformed);
    }
    Ok(())
}

/// Finds a path from the first certificate of `body` to one of `anchors`. Certificates of the body
/// are never anchors themselves, self-signed or not. A path that is valid at `now` is preferred,
/// but time alone does not refuse one: [`VerifiedChain::check_time`] does.
///
/// # Errors
/// Why there is no path.
pub fn validate(
    body: &[Arc<Certificate>],
    anchors: &[Arc<Certificate>],
    now: i64,
) -> Result<VerifiedChain, Reason> {
    let leaf = body.first().ok_or(Reason::CertificateMalformed)?;
    check_leaf(leaf)?;
    let search = |time| {
        let mut search = Search { body, anchors, time, worst: None, path: vec![Arc::clone(leaf)] };
        if search.extend() { Ok(search.path) } else { Err(search.worst) }
    };
    let path = search(Some(now))
        .or_else(|_| search(None))
        .map_err(|worst| worst.unwrap_or(Reason::CertificateUntrusted))?;
    let (Extension::Present(tn_auth_list), constraints) =
        (leaf.tn_auth_list.clone(), leaf.claim_constraints.present().cloned())
    else {
        return Err(Reason::TnAuthListMalformed);
    };
    let key = aws_lc_rs::signature::ParsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
        &leaf.public_key.bits,
    )
    .map_err(|_| Reason::KeyType)?;
    Ok(VerifiedChain {
        not_before: path.iter().map(|one| one.not_before).max().unwrap_or(i64::MAX),
        not_after: path.iter().map(|one| one.not_after).min().unwrap_or(i64::MIN),
        path,
        key,
        tn_auth_list,
        claim_constraints: constraints,
        revoked: false,
    })
}

struct Search<'a> {
    body: &'a [Arc<Certificate>],
    anchors: &'a [Arc<Certificate>],
    /// When to be valid; None: whenever.
    time: Option<i64>,
    /// The most telling reason of all dead ends.
    worst: Option<Reason>,
    path: Vec<Arc<Certificate>>,
}

impl Search<'_> {
    /// Extends the path to an anchor. Bounded: a path has at most four certificates, a body eight.
    fn extend(&mut self) -> bool {
        let Some(last) = self.path.last().cloned() else { return false };
        if let Some(time) = self.time
            && let Err(reason) = last.check_time(time)
        {
            self.dead_end(reason);
            return false;
        }
        // A certificate of the body that is itself an anchor ends the path.
        if self.path.len() > 1 && self.anchors.iter().any(|anchor| anchor.der == last.der) {
            return true;
        }
        let (body, anchors) = (self.body, self.anchors);
        let mut issuers = 0;
        for (candidates, anchored) in [(anchors, true), (body, false)] {
            for issuer in candidates {
                let in_path = self.path.iter().any(|known| known.der == issuer.der);
                if in_path || !last.may_be_issued_by(issuer) {
                    continue;
                }
                issuers += 1;
                if let Err(reason) = self.check_link(&last, issuer) {
                    self.dead_end(reason);
                    continue;
                }
                self.path.push(Arc::clone(issuer));
                let complete = if anchored { self.anchor_is_valid(issuer) } else { self.extend() };
                if complete {
                    return true;
                }
                self.path.pop();
            }
        }
        if issuers == 0 {
            self.dead_end(if last.is_self_issued() || self.path.len() > 1 {
                Reason::CertificateUntrusted
            } else {
                Reason::IntermediateMissing
            });
        }
        false
    }

    fn anchor_is_valid(&mut self, anchor: &Certificate) -> bool {
        match self.time.map_or(Ok(()), |time| anchor.check_time(time)) {
            Ok(()) => true,
            Err(reason) => {
                self.dead_end(reason);
                false
            }
        }
    }

    /// Whether `issuer` may have issued `child` and did.
    fn check_link(&self, child: &Certificate, issuer: &Certificate) -> Result<(), Reason> {
        if self.path.len() >= PATH_CERTIFICATES_MAX {
            return Err(Reason::PathTooLong);
        }
        if issuer.unknown_critical {
            return Err(Reason::CriticalExtension);
        }
        if !issuer.ca {
            return Err(Reason::BasicConstraints);
        }
        if issuer.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
            return Err(Reason::KeyUsage);
        }
        // Certificates between this issuer and the leaf that are not self-issued.
        let between = self.path.iter().skip(1).filter(|one| !one.is_self_issued()).count();
        if issuer.path_length.is_some_and(|most| between > usize::try_from(most).unwrap_or(0)) {
            return Err(Reason::PathTooLong);
        }
        child.check_signature(&issuer.public_key)?;
        // RFC 9060 4: a parent with a TNAuthList delegates no more than it has.
        match (&issuer.tn_auth_list, &child.tn_auth_list) {
            (Extension::Absent, _) => Ok(()),
            (Extension::Malformed, _) => Err(Reason::TnAuthListMalformed),
            (Extension::Present(own), Extension::Present(child)) if own.encompasses(child) => {
                Ok(())
            }
            (Extension::Present(_), _) => Err(Reason::TnAuthListScope),
        }
    }

    /// Keeps the reason that says most: something wrong on a path before no path at all.
    fn dead_end(&mut self, reason: Reason) {
        let rank = |reason: Reason| match reason {
            Reason::IntermediateMissing => 0,
            Reason::CertificateUntrusted => 1,
            Reason::CertificateExpired | Reason::CertificateNotYetValid => 2,
            _ => 3,
        };
        if self.worst.is_none_or(|worst| rank(reason) > rank(worst)) {
            self.worst = Some(reason);
        }
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
