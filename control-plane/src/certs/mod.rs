//! Certificates of the link: a private CA made at the first start, the control plane's own
//! certificate, and those of the nodes. Certificates of callers (STIR) are not here.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ravelin_contract::config::{ControlLink, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use time::{Duration, OffsetDateTime};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::{
    datadir::{DataDir, write_private},
    error::ControlError,
    store::OWN_NODE,
};

/// A DNS name that stands in every certificate of the control plane.
pub const CONTROL_NAME: &str = "ravelin-control";
const CA_DAYS: i64 = 3_650;
const LEAF_DAYS: i64 = 825;

/// Certificate, key and the CA that the other side must show.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl LinkIdentity {
    /// The files that `control.link` names, relative to the data directory.
    #[must_use]
    pub fn configured(data: &DataDir, link: &ControlLink) -> Self {
        Self {
            certificate: data.root().join(&link.certificate_path),
            key: data.root().join(&link.private_key_path),
            ca: data.root().join(&link.client_ca_path),
        }
    }
}

/// Makes the private CA if it is missing (`certs/link-ca.pem`, `.key`) and a fresh certificate of the
/// control plane (`certs/link-control.pem`, `.key`) for this machine's name, loopback, and `hosts`:
/// one per start, so that it neither runs out nor misses a new address.
///
/// # Errors
/// Names the file, or says what the certificate library refused.
pub fn ensure(data: &DataDir, hosts: &[String]) -> Result<(), ControlError> {
    let certs = data.certs();
    if !certs.join("link-ca.pem").exists() {
        let key = KeyPair::generate().map_err(refused)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(refused)?;
        name(&mut params, "Ravelin link CA", CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(refused)?;
        write_private(&certs.join("link-ca.key"), key.serialize_pem().as_bytes())?;
        write_private(&certs.join("link-ca.pem"), certificate.pem().as_bytes())?;
    }
    let mut params = leaf(CONTROL_NAME)?;
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let loopback = ["localhost", "127.0.0.1", "::1", machine.trim()];
    for host in loopback.into_iter().chain(hosts.iter().map(String::as_str)) {
        if let Ok(address) = host.parse::<IpAddr>() {
            params.subject_alt_names.push(SanType::IpAddress(address));
        } else if let Ok(name) = host.try_into() {
            params.subject_alt_names.push(SanType::DnsName(name));
        }
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue(&certs, &params, &certs, "link-control")
}

/// Issues what a node on another machine needs to connect, into `to`: `link.pem`, `link.key` and
/// `link-ca.pem`. They go into `certs/` of that machine's data directory. `certs` is that folder of
/// the control plane's own data directory; the control plane may be running.
///
/// # Errors
/// If `node` is not a name for a node, or the folder holds no private CA. Names the file that
/// failed, or says what the certificate library refused.
pub fn issue_node(certs: &Path, node: &str, to: &Path) -> Result<LinkIdentity, ControlError> {
    if !valid_node(node) {
        let text = format!("{node:?} is not a name for a node: 1-63 of a-z A-Z 0-9 - _ .");
        return Err(ControlError::Certificate(text));
    }
    let mut params = leaf(node)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(certs, &params, to, "link")?;
    let own = certs.join("link-ca.pem");
    let ca = fs::read(&own).map_err(|source| ControlError::File { path: own, source })?;
    write_private(&to.join("link-ca.pem"), &ca)?;
    Ok(LinkIdentity {
        certificate: to.join("link.pem"),
        key: to.join("link.key"),
        ca: to.join("link-ca.pem"),
    })
}

/// Whether a node may be called so.
#[must_use]
pub fn valid_node(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name != OWN_NODE
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

fn leaf(common_name: &str) -> Result<CertificateParams, ControlError> {
    let mut params = CertificateParams::new(vec![common_name.to_owned()]).map_err(refused)?;
    name(&mut params, common_name, LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(params: &mut CertificateParams, common_name: &str, days: i64) {
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
}

fn issue(
    certs: &Path,
    params: &CertificateParams,
    to: &Path,
    stem: &str,
) -> Result<(), ControlError> {
    let read = |file: &str| {
        let path = certs.join(file);
        fs::read_to_string(&path).map_err(|source| ControlError::File { path, source })
    };
    let ca_key = KeyPair::from_pem(&read("link-ca.key")?).map_err(refused)?;
    let ca = Issuer::from_ca_cert_pem(&read("link-ca.pem")?, ca_key).map_err(refused)?;
    let key = KeyPair::generate().map_err(refused)?;
    let certificate = params.signed_by(&key, &ca).map_err(refused)?;
    write_private(&to.join(format!("{stem}.key")), key.serialize_pem().as_bytes())?;
    write_private(&to.join(format!("{stem}.pem")), certificate.pem().as_bytes())
}

/// TLS of the link's listener: nodes must show a certificate of the CA.
///
/// # Errors
/// Names the file that cannot be used.
pub fn server_config(identity: &LinkIdentity) -> Result<Arc<ServerConfig>, ControlError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(&identity.ca)? {
        roots.add(certificate).map_err(refused)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(refused)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&identity.certificate)?, private_key(&identity.key)?)
        .map_err(refused)?;
    Ok(Arc::new(config))
}

/// TLS of the REST API.
///
/// # Errors
/// Names the file that cannot be used.
pub fn https_config(data: &DataDir, files: &TlsFiles) -> Result<Arc<ServerConfig>, ControlError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(
            chain(&data.root().join(&files.certificate_path))?,
            private_key(&data.root().join(&files.private_key_path))?,
        )
        .map_err(refused)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ControlError> {
    let fault = |reason: String| ControlError::Certificate(format!("{}: {reason}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| fault(error.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fault(error.to_string()))?;
    if certificates.is_empty() {
        return Err(fault("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ControlError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| ControlError::Certificate(format!("{}: {error}", path.display())))
}

/// The node's name in the certificate that it showed: the first DNS name, else the common name.
#[must_use]
pub fn peer_name(connection: &ServerConnection) -> Option<String> {
    let leaf = connection.peer_certificates()?.first()?;
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(leaf.as_ref()).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let dns = alternative.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
    });
    dns.or_else(|| {
        let common = certificate.subject().iter_common_name().next()?;
        common.as_str().ok().map(str::to_owned)
    })
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn refused(error: impl std::fmt::Display) -> ControlError {
    ControlError::Certificate(error.to_string())
}
