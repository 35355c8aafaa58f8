//! What the verification service trusts: anchors, validated certificate chains by URL, revocation.
//! Built off the call path, then immutable.

use crate::outcome::Reason;

/// An immutable table of validated chains. An empty one trusts nothing: every token ends in
/// `none-fetch`.
#[derive(Debug, Default)]
pub struct Trust {}

/// Collects anchors, chains and revocation lists, then validates all of them.
#[derive(Debug, Default)]
pub struct TrustBuilder {}

impl TrustBuilder {
    /// Adds every certificate of a PEM text as a trust anchor (the STI-PA's list of STI-CAs, never
    /// the operating system's store; ST-43). Returns how many.
    ///
    /// # Errors
    /// If there is none, or one does not parse.
    pub fn anchors_pem(&mut self, pem: &[u8]) -> Result<usize, Reason> {
        let _ = pem;
        Err(Reason::CertificateMalformed)
    }

    /// Adds the body of an x5u URL: a chain, leaf first.
    pub fn chain_pem(&mut self, url: &str, pem: &[u8]) {
        let _ = (url, pem);
    }

    /// Validates what was added, at `now_unix` seconds.
    #[must_use]
    pub fn build(self, now_unix: u64) -> Trust {
        let _ = now_unix;
        Trust {}
    }
}
