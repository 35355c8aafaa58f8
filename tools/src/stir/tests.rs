//! The commands on files, from the making of a certificate to the verdict on a signed call.

use std::{fs, path::PathBuf};

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    stir: StirArgs,
}

/// A folder of its own for one test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ravelin-stir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Runs `ravelin stir` with `@` in the arguments as this folder; 2 is what cannot run.
    fn stir(&self, arguments: &str) -> u8 {
        let folder = self.0.to_str().unwrap();
        let words = arguments.split_whitespace().map(|word| word.replace('@', folder));
        let line = match Line::try_parse_from(["stir".to_owned()].into_iter().chain(words)) {
            Ok(line) => line,
            Err(error) => panic!("{error}"),
        };
        match run(&line.stir) {
            Ok(Outcome::Passed) => 0,
            Ok(Outcome::NotPassed) => 1,
            Err(_) => 2,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const X5U: &str = "https://cr.example.com/sp.pem";
/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600;

/// An INVITE with this Identity header, if any.
fn invite(from: &str, identity: Option<&str>) -> String {
    let identity = identity.map_or_else(String::new, |value| format!("Identity: {value}\r\n"));
    format!(
        "INVITE sip:+12125550100@carrier.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
         From: <sip:{from}@pbx.example>;tag=1\r\nTo: <sip:+12125550100@carrier.example>\r\n\
         Call-ID: a@b\r\nCSeq: 1 INVITE\r\nContact: <sip:192.0.2.1>\r\n{identity}\
         Content-Length: 0\r\n\r\n"
    )
}

/// A header value made with the files of `cert new`.
fn identity(folder: &Folder) -> String {
    let read = |name: &str| fs::read(folder.0.join(name)).unwrap();
    let signer =
        ravelin_stir::sign::Signer::load(&read("sp.pem"), &read("sp.key"), X5U, NOW).unwrap();
    let tn = |digits: &[u8]| ravelin_stir::tn::Tn::exact(digits).unwrap().into();
    let request = ravelin_stir::sign::SignRequest {
        attest: ravelin_stir::sign::Attest::A,
        orig: tn(b"13135551000"),
        dest: [tn(b"12125550100")].into_iter().collect(),
        iat: NOW,
        origid: [7; 16],
    };
    let mut value = Vec::new();
    signer.sign(&request, &mut value).unwrap();
    String::from_utf8(value).unwrap()
}

fn certificates(folder: &Folder) {
    let made = folder.stir(&format!("cert new --out @ --spc 1234 --from {}", NOW - 86_400));
    assert_eq!(made, 0);
}

#[test]
fn from_certificate_to_verdict() {
    let folder = Folder::new("verdict");
    certificates(&folder);
    let value = identity(&folder);
    folder.write("good.sip", &invite("+13135551000", Some(&value)));
    folder.write("other.sip", &invite("+13135551001", Some(&value)));
    folder.write("none.sip", &invite("+13135551000", None));
    folder.write("capture.sip", &invite("+13135551000", Some(&value)).replace("\r\n", "\n"));
    folder.write("national.sip", &invite("3135551000", Some(&value)));
    folder.write("noise.sip", "hello");
    let verify = |rest: &str| folder.stir(&format!("verify --at {NOW} {rest}"));
    let trusted = format!("--ca @/sti-ca.pem --cert {X5U}=@/sp.pem");
    assert_eq!(verify(&format!("{trusted} @/good.sip")), 0);
    assert_eq!(verify(&format!("{trusted} --json @/good.sip @/capture.sip")), 0);
    assert_eq!(verify("--ca @/sti-ca.pem --cert @/sp.pem @/good.sip"), 0);
    for refused in ["@/other.sip", "@/none.sip", "@/good.sip @/other.sip"] {
        assert_eq!(verify(&format!("{trusted} {refused}")), 1, "{refused}");
    }
    // ST-14: a number without + is of the trunk's plan.
    assert_eq!(verify(&format!("{trusted} @/national.sip")), 0);
    assert_eq!(verify(&format!("{trusted} --plan e164 @/national.sip")), 1);
    // Nothing is trusted, nothing is fetched, and time passes.
    assert_eq!(verify("--cert @/sp.pem @/good.sip"), 1);
    assert_eq!(verify("--ca @/sti-ca.pem @/good.sip"), 1);
    assert_eq!(folder.stir(&format!("verify --at 2026-01-01T00:01:01Z {trusted} @/good.sip")), 1);
    assert_eq!(folder.stir(&format!("verify --at 2026-01-01T00:01:00Z {trusted} @/good.sip")), 0);
    assert_eq!(verify(&format!("{trusted} @/noise.sip")), 2);
    assert_eq!(verify(&format!("{trusted} @/missing.sip")), 2);
    assert_eq!(verify("--ca @/good.sip @/good.sip"), 2);
}

/// Several files without URL: the signer's certificate may be in any, its issuer in another.
#[test]
fn a_chain_may_be_in_several_files() {
    let folder = Folder::new("several");
    let other = Folder::new("several-other");
    certificates(&folder);
    certificates(&other);
    folder.write("good.sip", &invite("+13135551000", Some(&identity(&folder))));
    let chain = fs::read_to_string(folder.0.join("sp.pem")).unwrap();
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    folder.write("leaf.pem", leaf);
    folder.write("other.pem", &fs::read_to_string(other.0.join("sp.pem")).unwrap());
    let verify = |certs: &str| {
        folder.stir(&format!("verify --at {NOW} --ca @/sti-ca.pem {certs} @/good.sip"))
    };
    assert_eq!(verify("--cert @/leaf.pem --cert @/other.pem"), 0);
    assert_eq!(verify("--cert @/other.pem --cert @/leaf.pem"), 0);
    assert_eq!(verify("--cert @/sti-ca.pem --cert @/leaf.pem"), 0);
    assert_eq!(verify("--cert @/other.pem --cert @/sti-ca.pem"), 1);
}

/// A revocation list of the authority itself needs no anchor of its own.
#[test]
fn a_list_of_the_authority_revokes() {
    use ravelin_stir::cert::{Certificate, pem};
    use rcgen::{
        CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
        SerialNumber, date_time_ymd,
    };
    let folder = Folder::new("revoked");
    certificates(&folder);
    folder.write("good.sip", &invite("+13135551000", Some(&identity(&folder))));
    let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap();
    let leaf = pem::certificates(read("sp.pem").as_bytes()).unwrap().remove(0);
    let serial = Certificate::from_der(&leaf).unwrap().serial;
    let key = KeyPair::from_pem(&read("sti-ca.key")).unwrap();
    let authority = Issuer::from_ca_cert_pem(&read("sti-ca.pem"), key).unwrap();
    for (name, revoked) in [("revoked.pem", serial.to_vec()), ("other.pem", vec![7])] {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 12, 31),
            next_update: date_time_ymd(2026, 1, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(revoked),
                revocation_time: date_time_ymd(2025, 12, 31),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        folder.write(name, &list.signed_by(&authority).unwrap().pem().unwrap());
    }
    let verify = |lists: &str| {
        let trusted = "--ca @/sti-ca.pem --cert @/sp.pem";
        folder.stir(&format!("verify --at {NOW} {trusted} {lists} @/good.sip"))
    };
    assert_eq!(verify("--crl @/revoked.pem"), 1);
    assert_eq!(verify("--crl @/revoked.pem --crl-anchor @/sti-ca.pem"), 1);
    assert_eq!(verify("--crl @/other.pem --crl-hard"), 0);
    // An anchor of its own is the only one; a list of somebody else is not used.
    assert_eq!(folder.stir(&format!("cert new --out @/pa --spc 1 --from {}", NOW - 86_400)), 0);
    assert_eq!(verify("--crl @/revoked.pem --crl-anchor @/pa/sti-ca.pem"), 0);
    assert_eq!(verify("--crl @/revoked.pem --crl-anchor @/pa/sti-ca.pem --crl-hard"), 1);
}

#[test]
fn certificates_are_checked_and_renewed() {
    let folder = Folder::new("renewed");
    certificates(&folder);
    let check = |rest: &str| folder.stir(&format!("cert check {rest}"));
    let at = format!("--at {NOW} --ca @/sti-ca.pem");
    assert_eq!(check(&format!("{at} --key @/sp.key --url {X5U} @/sp.pem")), 0);
    assert_eq!(check(&format!("{at} --key @/sti-ca.key @/sp.pem")), 1);
    assert_eq!(check(&format!("{at} --url http://cr.example.com/a @/sp.pem")), 1);
    assert_eq!(check(&format!("--at {NOW} @/sp.pem")), 1);
    assert_eq!(check("--at 2030-01-01T00:00:00Z --ca @/sti-ca.pem @/sp.pem"), 1);
    assert_eq!(check(&format!("{at} @/sti-ca.pem")), 1);
    // 365 days from a day before.
    for (days, code) in [(0, 0), (364, 0), (365, 1), (1_000, 1)] {
        assert_eq!(check(&format!("{at} --days {days} @/sp.pem")), code, "{days}");
    }
    // What is there is not overwritten by accident.
    assert_eq!(folder.stir("cert new --out @ --spc 1234"), 2);
    let read = |name: &str| fs::read(folder.0.join(name)).unwrap();
    let (old, old_key) = (read("sp.pem"), read("sp.key"));
    assert_eq!(folder.stir("cert renew --out @"), 0);
    assert_eq!(read("sp.pem.old"), old);
    assert_ne!(read("sp.pem"), old);
    assert_ne!(read("sp.key"), old_key);
    let now = time::now_unix();
    let renewed = format!("--at {now} --ca @/sti-ca.pem --key @/sp.key @/sp.pem");
    assert_eq!(check(&renewed), 0);
    use std::os::unix::fs::PermissionsExt as _;
    for secret in ["sp.key", "sp.key.old", "sti-ca.key"] {
        let mode = fs::metadata(folder.0.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[test]
fn signing_refuses_what_it_must() {
    let folder = Folder::new("signing");
    let from = NOW - 86_400;
    assert_eq!(folder.stir(&format!("cert new --out @ --tn 13135551000 --from {from}")), 0);
    let sign = |rest: &str| {
        let call = "--dest 12125550100 --attest A";
        folder.stir(&format!("sign --key @/sp.key {call} {rest}"))
    };
    let good = format!("--cert @/sp.pem --x5u {X5U} --iat {NOW}");
    assert_eq!(sign(&format!("{good} --orig +1-313-555-1000")), 0);
    // Another number than the certificate's; a time before it; a URL that no verifier fetches;
    // another key.
    assert_eq!(sign(&format!("{good} --orig 13135551001")), 2);
    assert_eq!(sign(&format!("--cert @/sp.pem --x5u {X5U} --iat 1 --orig 13135551000")), 2);
    assert_eq!(sign("--cert @/sp.pem --x5u http://a.example/b --orig 13135551000"), 2);
    assert_eq!(sign(&format!("--cert @/sti-ca.pem --x5u {X5U} --iat {NOW} --orig 1")), 2);
    assert_eq!(sign(&format!("--x5u {X5U} --iat 1 --orig 13135551001")), 0);
}
