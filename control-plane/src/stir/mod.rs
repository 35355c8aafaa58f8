//! The authentication and verification service behind the API (ATIS-1000082; ST-76 to ST-80), with
//! the code and the certificates of the data plane. It fetches nothing: a certificate that is not
//! in the data folder cannot be judged, and the answer says so.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use ravelin_policy::Stir;
use ravelin_stir::{
    outcome::Outcome,
    sign::{Attest, CredentialError, Signer},
    tn::Party,
    trust::{Trust, TrustBuilder},
    verify::{Verdict, VerifyRequest, verify},
};

/// What one state of the files gives.
#[derive(Debug)]
pub struct Credentials {
    /// Who signs, or why nobody does.
    pub signer: Result<Signer, String>,
    /// What is trusted, or why nothing can be verified.
    pub trust: Result<Trust, String>,
}

/// The credentials in use: read again when the config or one of the files changes.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Option<(Stamp, Arc<Credentials>)>>);

/// What tells one state of config and files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    activation: u64,
    files: Vec<Option<(SystemTime, u64)>>,
}

impl Cache {
    /// The credentials that `stir` names under `data`, at `now_unix`. Reads files: not for a thread
    /// that must not block.
    #[must_use]
    pub fn get(
        &self,
        activation: u64,
        stir: &Stir,
        data: &Path,
        now_unix: u64,
    ) -> Arc<Credentials> {
        let paths = [&stir.certificate_path, &stir.private_key_path, &stir.ca_cert_path];
        let files = paths.iter().map(|path| changed(data, path.as_deref())).collect();
        let stamp = Stamp { activation, files };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            // A failed load is tried again: time alone can heal it (a certificate's begin).
            Some((known, credentials))
                if *known == stamp && (credentials.signer.is_ok() || !stir.signing) =>
            {
                Arc::clone(credentials)
            }
            _ => {
                let credentials = Arc::new(load(stir, data, now_unix));
                *kept = Some((stamp, Arc::clone(&credentials)));
                credentials
            }
        }
    }
}

fn changed(data: &Path, path: Option<&str>) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(data.join(path?)).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn load(stir: &Stir, data: &Path, now_unix: u64) -> Credentials {
    let read = |key: &str, path: &Option<String>| -> Result<Vec<u8>, String> {
        let path: PathBuf =
            data.join(path.as_deref().ok_or_else(|| format!("stir_shaken.{key} is not set"))?);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let chain = read("certificate_path", &stir.certificate_path);
    let signer =
        signer(stir, &chain, || read("private_key_path", &stir.private_key_path), now_unix);
    let trust = trust(stir, &chain, || read("ca_cert_path", &stir.ca_cert_path), now_unix);
    Credentials { signer, trust }
}

fn signer(
    stir: &Stir,
    chain: &Result<Vec<u8>, String>,
    key: impl FnOnce() -> Result<Vec<u8>, String>,
    now_unix: u64,
) -> Result<Signer, String> {
    if !stir.signing {
        return Err("signing is not enabled (features.stir_shaken)".to_owned());
    }
    let url = stir.certificate_url.as_deref().ok_or("stir_shaken.certificate_url is not set")?;
    Signer::load(chain.as_ref().map_err(Clone::clone)?, &key()?, url, now_unix)
        .map_err(|error: CredentialError| error.to_string())
}

fn trust(
    stir: &Stir,
    chain: &Result<Vec<u8>, String>,
    anchors: impl FnOnce() -> Result<Vec<u8>, String>,
    now_unix: u64,
) -> Result<Trust, String> {
    if !stir.verification {
        return Err("verification is not enabled (features.stir_shaken)".to_owned());
    }
    let mut builder = TrustBuilder::default();
    builder
        .anchors_pem(&anchors()?)
        .map_err(|reason| format!("ca_cert_path: {}", reason.label()))?;
    if let (Some(url), Ok(chain)) = (stir.certificate_url.as_deref(), chain) {
        builder.chain_pem(url, chain);
    }
    // No revocation list was given, so none can be unusable.
    Ok(builder.build(now_unix).0)
}

/// Judges one Identity header value of a call from `from` to any of `to`.
#[must_use]
pub fn judge(trust: &Trust, from: &Party, to: &[Party], identity: &str, now_unix: u64) -> Verdict {
    let identities = [identity.as_bytes()];
    let identities = if identity.is_empty() { &[][..] } else { &identities[..] };
    let orig = std::slice::from_ref(from);
    verify(trust, &VerifyRequest { identities, orig, to, now_unix, ..VerifyRequest::default() })
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attested {
    attest: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// What the two routes count (T19).
#[derive(Debug, Default)]
pub struct Meters {
    signed: Family<Attested, Counter>,
    verified: Family<Ended, Counter>,
}

impl Meters {
    pub fn signed(&self, attest: Attest) {
        self.signed.get_or_create(&Attested { attest: attest.as_str() }).inc();
    }

    pub fn verified(&self, outcome: Outcome) {
        self.verified.get_or_create(&Ended { outcome: outcome.label() }).inc();
    }

    pub fn register(&self, registry: &mut Registry) {
        let help = "Identity headers signed through the API, by attestation level";
        registry.register("control_stir_signed", help, self.signed.clone());
        let help = "Identity headers judged through the API, by outcome";
        registry.register("control_stir_verified", help, self.verified.clone());
    }
}
