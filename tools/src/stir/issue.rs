//! A certification authority for tests and trials: what an STI-CA would issue, without the STI-PA
//! behind it. Real service providers get their certificate from an approved STI-CA.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use ravelin_stir::cert::{Certificate, TnAuthList, pem, tn_auth_list};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use crate::exit::Failure;

/// A certificate, or chain, with its key, both in PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Validity, seconds since 1970-01-01.
#[derive(Clone, Copy)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) to: u64,
}

fn failed(what: &str) -> impl FnOnce(rcgen::Error) -> Failure {
    move |error| Failure::cannot_run(format!("{what}: {error}"))
}

fn params(name: &str, organisation: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let at = |unix| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
    params.not_before = at(validity.from);
    params.not_after = at(validity.to);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "US");
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// A self-signed authority.
pub(super) fn authority(validity: Validity) -> Result<Issued, Failure> {
    let mut params = params("Test STI-CA (not for production)", "Ravelin test", validity);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("key"))?;
    let key_pem = key.serialize_pem();
    let made = CertifiedIssuer::self_signed(params, key).map_err(failed("certificate"))?;
    Ok(Issued { certificate: made.pem(), key: key_pem })
}

/// A leaf with a TNAuthList, and the authority behind it: the body of an x5u URL.
pub(super) fn leaf(
    authority: &Issued,
    name: &str,
    numbers: &TnAuthList,
    validity: Validity,
    key: Option<&str>,
) -> Result<Issued, Failure> {
    let issuer_key = KeyPair::from_pem(&authority.key).map_err(failed("key of the authority"))?;
    check_pair(&authority.certificate, &issuer_key)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, issuer_key)
        .map_err(failed("certificate of the authority"))?;
    let mut params = params(name, "Ravelin test", validity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(tn_auth_list::OID, numbers.to_der())];
    let key = match key {
        Some(pem) => KeyPair::from_pem(pem).map_err(failed("key"))?,
        None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("key"))?,
    };
    let made = params.signed_by(&key, &issuer).map_err(failed("certificate"))?;
    let certificate = format!("{}{}", made.pem(), authority.certificate);
    Ok(Issued { certificate, key: key.serialize_pem() })
}

/// An authority's key that is not its certificate's would issue certificates that nobody accepts.
fn check_pair(certificate: &str, key: &KeyPair) -> Result<(), Failure> {
    use rcgen::PublicKeyData as _;
    let same = pem::certificates(certificate.as_bytes())
        .and_then(|ders| Certificate::from_der(ders.first()?).ok())
        .is_some_and(|found| found.public_key.spki.as_ref() == key.subject_public_key_info());
    if same {
        Ok(())
    } else {
        Err(Failure::cannot_run("the key of the authority is not the key of its certificate"))
    }
}

/// Writes a file whole or not at all; keys are for their owner only.
pub(super) fn write(path: &Path, text: &str, secret: bool) -> Result<(), Failure> {
    let explain =
        |error| Failure::cannot_run(format!("{} cannot be written: {error}", path.display()));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mode = if secret { 0o600 } else { 0o644 };
    let _ = fs::remove_file(&temporary);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(explain)
}
