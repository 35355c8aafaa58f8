//! Handshakes with the `openssl` program over UDP, and the keys that it says it exported.

use std::{
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use ravelin_srtp::{
    Suite,
    dtls::{
        Association, Exported, Failure, Fingerprint, Fingerprints, Hash, Identity, Role, State,
    },
};

const ADDRESS: &str = "127.9.4.1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A key and a certificate that `openssl req` made, and the fingerprint that it computes.
struct Certificate {
    folder: PathBuf,
    fingerprints: Fingerprints,
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn openssl(args: &[&str]) -> Option<String> {
    let output = Command::new("openssl").args(args).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// `None`, and said so: this machine has no `openssl`.
fn certificate(name: &str, curve: &str) -> Option<Certificate> {
    let folder = std::env::temp_dir().join(format!("rvl-dtls-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
    let (key, cert) = (key.to_str().unwrap(), cert.to_str().unwrap());
    let curve = format!("ec_paramgen_curve:{curve}");
    let made = openssl(&[
        "req", "-x509", "-newkey", "ec", "-pkeyopt", &curve, "-nodes", "-subj", "/CN=peer",
        "-days", "2", "-keyout", key, "-out", cert,
    ]);
    if made.is_none() {
        println!("skipped {name}: no openssl program");
        return None;
    }
    let text = openssl(&["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"]).unwrap();
    let mut fingerprints = Fingerprints::default();
    let octets = text.trim().split('=').next_back().unwrap();
    assert!(fingerprints.add(format!("SHA-256 {octets}").as_bytes()));
    Some(Certificate { folder, fingerprints })
}

/// The program, and the lines that it prints.
struct Peer {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stream: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

impl Peer {
    fn start(certificate: &Certificate, profile: Suite, args: &[&str]) -> Self {
        let name = match profile {
            Suite::AesCm128HmacSha1_80 => "SRTP_AES128_CM_SHA1_80",
            Suite::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            _ => "SRTP_AEAD_AES_256_GCM",
        };
        let length = (2 * profile.keying_bytes()).to_string();
        let mut child = Command::new("openssl")
            .args(args)
            .args(["-dtls1_2", "-use_srtp", name])
            .args(["-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen", &length])
            .arg("-cert")
            .arg(certificate.folder.join("cert.pem"))
            .arg("-key")
            .arg(certificate.folder.join("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        lines_of(child.stdout.take().unwrap(), sender.clone());
        lines_of(child.stderr.take().unwrap(), sender);
        Self { child, lines }
    }

    fn wait_for(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(wanted) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("openssl did not say {wanted:?}:\n{seen}");
    }

    /// The exported octets: key of the client, of the server, salt of the client, of the server.
    fn exported(&self) -> Vec<u8> {
        let line = self.wait_for("Keying material: ");
        let digits = line.trim().rsplit(' ').next().unwrap().as_bytes().to_vec();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| octet(pair).unwrap()).collect()
    }
}

/// Runs `association` on a socket until it has keys or has failed.
fn drive(association: &mut Association, socket: &UdpSocket, origin: Instant) -> Option<Exported> {
    let mut buffer = [0; 4_096];
    let mut to = None;
    let begun = Instant::now();
    let nanoseconds = || u64::try_from(origin.elapsed().as_nanos()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    if association.role() == Role::Client {
        association.start(nanoseconds(), &mut |datagram| drop(socket.send(datagram)));
    }
    while begun.elapsed() < PATIENCE {
        if let State::Failed(_) = association.state() {
            return None;
        }
        let mut out = Vec::new();
        let mut send = |datagram: &[u8]| out.push(datagram.to_vec());
        let keys = match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                to = Some(source);
                association.receive(nanoseconds(), &buffer[..length], &mut send).unwrap_or(None)
            }
            Err(_) => association.expire(nanoseconds(), &mut send),
        };
        for datagram in out {
            match (association.role(), to) {
                (Role::Client, _) => drop(socket.send(&datagram)),
                (Role::Server, Some(to)) => drop(socket.send_to(&datagram, to)),
                (Role::Server, None) => {}
            }
        }
        if keys.is_some() {
            return keys;
        }
    }
    None
}

fn assert_same(ours: &Exported, role: Role, theirs: &[u8], suite: Suite) {
    let (client, server) = match role {
        Role::Client => (&ours.local, &ours.remote),
        Role::Server => (&ours.remote, &ours.local),
    };
    assert_eq!((client.suite(), server.suite()), (suite, suite));
    let (key, salt) = (suite.key_bytes(), suite.salt_bytes());
    let salts = 2 * key;
    let joined = |a: &[u8], b: &[u8]| [a, b].concat();
    assert_eq!(client.key_and_salt(), joined(&theirs[..key], &theirs[salts..salts + salt]));
    assert_eq!(server.key_and_salt(), joined(&theirs[key..salts], &theirs[salts + salt..]));
}

const SUITES: [Suite; 3] = [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];

#[test]
fn an_openssl_client_agrees_on_the_same_keys() {
    let Some(theirs) = certificate("client", "P-256") else { return };
    for suite in SUITES {
        let origin = Instant::now();
        let ours = Arc::new(Identity::generate(origin).unwrap());
        let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
        let to = socket.local_addr().unwrap().to_string();
        let peer = Peer::start(&theirs, suite, &["s_client", "-connect", &to]);
        let mut server = Association::new(ours.clone(), Role::Server, theirs.fingerprints.clone());
        let keys = drive(&mut server, &socket, origin).expect("keys");
        assert_same(&keys, Role::Server, &peer.exported(), suite);
    }
}

#[test]
fn an_openssl_server_agrees_on_the_same_keys() {
    // P-384 on their side: another signature, another hash.
    let Some(theirs) = certificate("server", "P-384") else { return };
    for (suite, listen) in SUITES.into_iter().zip([false, true, false]) {
        let origin = Instant::now();
        let ours = Arc::new(Identity::generate(origin).unwrap());
        // A port that is free now; the server takes it next.
        let at = UdpSocket::bind((ADDRESS, 0)).unwrap().local_addr().unwrap().to_string();
        let mut args = vec!["s_server", "-accept", &at, "-Verify", "1"];
        if listen {
            args.push("-listen"); // with the cookie exchange
        }
        let peer = Peer::start(&theirs, suite, &args);
        peer.wait_for("ACCEPT");
        let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
        socket.connect(&at).unwrap();
        let mut client = Association::new(ours.clone(), Role::Client, theirs.fingerprints.clone());
        let keys = drive(&mut client, &socket, origin).expect("keys");
        assert_same(&keys, Role::Client, &peer.exported(), suite);
    }
}

#[test]
fn an_openssl_client_with_another_certificate_is_refused() {
    let Some(theirs) = certificate("stranger", "P-256") else { return };
    let origin = Instant::now();
    let ours = Arc::new(Identity::generate(origin).unwrap());
    let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
    let to = socket.local_addr().unwrap().to_string();
    let _peer = Peer::start(&theirs, Suite::AeadAes128Gcm, &["s_client", "-connect", &to]);
    let mut other = Fingerprints::default();
    let wrong = Fingerprint::of(Hash::Sha256, b"a certificate of somebody else").to_string();
    assert!(other.add(wrong.as_bytes()));
    let mut server = Association::new(ours, Role::Server, other);
    assert_eq!(drive(&mut server, &socket, origin), None);
    assert_eq!(server.state(), State::Failed(Failure::Fingerprint));
}

/// Our certificate is one that another implementation reads.
#[test]
fn openssl_reads_our_certificate() {
    let Some(theirs) = certificate("reader", "P-256") else { return };
    let origin = Instant::now();
    let ours = Arc::new(Identity::generate(origin).unwrap());
    let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
    let to = socket.local_addr().unwrap().to_string();
    let args = ["s_client", "-connect", &to, "-showcerts"];
    let peer = Peer::start(&theirs, Suite::AeadAes128Gcm, &args);
    let mut server = Association::new(ours.clone(), Role::Server, theirs.fingerprints.clone());
    drive(&mut server, &socket, origin).expect("keys");
    let mut pem = String::new();
    peer.wait_for("-----BEGIN CERTIFICATE-----");
    while let Ok(line) = peer.lines.recv_timeout(PATIENCE) {
        if line.contains("-----END") {
            break;
        }
        pem.push_str(&line);
        pem.push('\n');
    }
    let file = theirs.folder.join("ours.pem");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}-----END CERTIFICATE-----\n");
    std::fs::write(&file, pem).unwrap();
    let file = file.to_str().unwrap();
    let text = openssl(&["x509", "-in", file, "-noout", "-fingerprint", "-sha256"]).unwrap();
    let said = ours.fingerprint().unwrap().to_string();
    assert!(text.trim().ends_with(said.strip_prefix("sha-256 ").unwrap()), "{text} {said}");
    let check = openssl(&["verify", "-CAfile", file, "-check_ss_sig", file]).unwrap();
    assert!(check.contains("OK"), "{check}");
}
