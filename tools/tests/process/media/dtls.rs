//! DTLS-SRTP (RFC 5763, RFC 5764) through the binary. The peer is the `openssl` program: it shakes
//! hands with Ravelin over the party's own media socket, and media goes under the keys that it says it
//! exported, encrypted and decrypted by webrtc-srtp.

use std::{
    io::{BufRead, BufReader, Read},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use webrtc_srtp::{context::Context, protection_profile::ProtectionProfile};

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, drained, rtp, socket},
};
use crate::support::{PATIENCE, Scratch};

const PORT: u16 = 40_000;
/// Far more than a handshake takes.
const HANDSHAKE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(300);

/// Which end of the handshake the party takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// OpenSSL's name, and the profile behind it.
type Profile = (&'static str, ProtectionProfile);

/// How the leg with DTLS came to it.
#[derive(Clone, Copy, Debug)]
struct Case {
    place: u8,
    /// The party with DTLS called; else it was called.
    calls: bool,
    /// What it says of itself.
    setup: &'static str,
    end: End,
    profile: Profile,
}

fn openssl(args: &[&str]) -> Option<String> {
    let output = Command::new("openssl").args(args).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// A key, a certificate, and the fingerprint that `openssl` computes of it.
pub(super) struct Certificate {
    key: PathBuf,
    certificate: PathBuf,
    pub(super) fingerprint: String,
}

/// `None`: there is no `openssl`.
pub(super) fn certificate(folder: &Path) -> Option<Certificate> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let [key_name, name] = [&key, &certificate].map(|path| path.to_str().expect("a name"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=peer",
        "-days",
        "2",
        "-keyout",
        key_name,
        "-out",
        name,
    ])?;
    let text = openssl(&["x509", "-in", name, "-noout", "-fingerprint", "-sha256"])?;
    let octets = text.trim().rsplit('=').next().expect("octets").to_owned();
    Some(Certificate { key, certificate, fingerprint: octets })
}

/// The program, the lines that it prints, and the way from the party's socket to it.
pub(super) struct Openssl {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
    /// Talks with the program.
    inner: UdpSocket,
    /// Where the program is, once that is known.
    at: Option<SocketAddr>,
    /// Datagrams of the program.
    sent: usize,
    /// What came for the party and is not DTLS.
    media: Vec<Vec<u8>>,
}

impl Drop for Openssl {
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

impl Openssl {
    pub(super) fn start(ip: IpAddr, end: End, certificate: &Certificate, profile: Profile) -> Self {
        let inner = socket(ip, 0);
        let mut command = Command::new("openssl");
        let at = match end {
            End::Client => {
                let to = inner.local_addr().expect("an address").to_string();
                command.args(["s_client", "-connect", &to]);
                None
            }
            End::Server => {
                // A port that is free now; the program takes it next.
                let at = socket(ip, 0).local_addr().expect("an address");
                command.args(["s_server", "-accept", &at.to_string(), "-Verify", "1"]);
                Some(at)
            }
        };
        let (name, profile) = profile;
        let length = 2 * (profile.key_len() + profile.salt_len());
        let mut child = command
            .args(["-dtls1_2", "-use_srtp", name, "-keymatexport", "EXTRACTOR-dtls_srtp"])
            .args(["-keymatexportlen", &length.to_string(), "-cert"])
            .arg(&certificate.certificate)
            .arg("-key")
            .arg(&certificate.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        let (sender, lines) = mpsc::channel();
        lines_of(child.stdout.take().expect("a pipe"), sender.clone());
        lines_of(child.stderr.take().expect("a pipe"), sender);
        let mut started =
            Self { child, lines, seen: String::new(), inner, at, sent: 0, media: Vec::new() };
        if end == End::Server {
            let end = Instant::now() + PATIENCE;
            while !started.seen.contains("ACCEPT") {
                assert!(Instant::now() < end, "openssl does not start: {}", started.seen);
                started.read();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        started
    }

    fn read(&mut self) {
        for line in self.lines.try_iter() {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
    }

    /// Carries what waits between the party's socket and the program (RFC 7983: the first octet
    /// tells).
    pub(super) fn carry(&mut self, voice: &Voice) {
        for packet in drained(&voice.rtp) {
            match (packet.first(), self.at) {
                (Some(20..=63), Some(at)) => drop(self.inner.send_to(&packet, at)),
                (Some(20..=63), None) => {}
                _ => self.media.push(packet),
            }
        }
        let mut buffer = [0; 4_096];
        while let Ok((length, from)) = self.inner.recv_from(&mut buffer) {
            self.at = Some(from);
            self.sent += 1;
            let _ = voice.rtp.send_to(&buffer[..length], voice.to);
        }
        self.read();
    }

    /// Until it says what it exported: key of the client, of the server, salt of the client, of the
    /// server.
    #[track_caller]
    fn exported(&mut self, voice: &Voice) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.carry(voice);
            let line = self.seen.lines().find_map(|line| line.split_once("Keying material: "));
            if let Some((_, digits)) = line {
                let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
                return (0..digits.trim().len()).step_by(2).map(octet).collect();
            }
            assert!(Instant::now() < end, "no handshake: {}", self.seen);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Contexts for what the party sends and for what it receives.
fn contexts(profile: ProtectionProfile, keys: &[u8], end: End) -> [Context; 2] {
    let (key, salt) = (profile.key_len(), profile.salt_len());
    let of = |number: usize| {
        let salts = 2 * key;
        let (own, salted) = (&keys[number * key..][..key], &keys[salts + number * salt..][..salt]);
        Context::new(own, salted, profile, None, None).expect("a context")
    };
    match end {
        End::Client => [of(0), of(1)],
        End::Server => [of(1), of(0)],
    }
}

/// A call with one leg of DTLS that is up but for the handshake: the call, the party with DTLS, the
/// plain one.
fn up(edge: &mut Edge, case: &Case, fingerprint: &str) -> (Call, Voice, Voice) {
    let parties = edge.net.parties();
    let (own, other) = if case.calls { (parties[0], parties[1]) } else { (parties[1], parties[0]) };
    let (mut secret, mut plain) = (Voice::new(own, PORT, 0xd0), Voice::new(other, PORT, 0xe0));
    let lines = format!(
        "m=audio {PORT} UDP/TLS/RTP/SAVP 0\na=rtcp-mux\na=setup:{}\na=fingerprint:sha-256 {fingerprint}\n",
        case.setup
    );
    let secure = description(own, 1, &lines);
    let clear = description(other, 1, &format!("m=audio {PORT} RTP/AVP 0\n"));
    let call = if case.calls {
        let call = Call::up(edge, 1, &secure, &clear);
        (secret.to, plain.to) = (media_of(&call.answer, 0), media_of(&call.invite, 0));
        call
    } else {
        let call = Call::up(edge, 1, &clear, &secure);
        (secret.to, plain.to) = (media_of(&call.invite, 0), media_of(&call.answer, 0));
        call
    };
    (call, secret, plain)
}

fn setup_of(case: &Case) -> Setup<'static> {
    let media = if case.calls {
        ["{ srtp: dtls }", "{ srtp: off }"]
    } else {
        ["{ srtp: off }", "{ srtp: dtls }"]
    };
    Setup { media, ..Setup::default() }
}

fn converse(case: &Case) {
    let mut edge = Edge::start(Net::loopback(case.place), &setup_of(case));
    let folder = Scratch::new();
    let certificate = certificate(folder.path()).expect("openssl");
    let own = edge.net.parties()[usize::from(!case.calls)];
    let mut program = (case.end == End::Server)
        .then(|| Openssl::start(own, case.end, &certificate, case.profile));
    let (call, voice, plain) = up(&mut edge, case, &certificate.fingerprint);
    let told = if case.calls { &call.answer } else { &call.invite };
    assert!(told.contains("a=fingerprint:sha-256 "), "{told}");
    let ours = match (case.calls, case.end) {
        (false, _) => "a=setup:actpass\r",
        (true, End::Client) => "a=setup:passive\r",
        (true, End::Server) => "a=setup:active\r",
    };
    assert!(told.contains(ours), "{ours}: {told}");
    let program =
        program.get_or_insert_with(|| Openssl::start(own, case.end, &certificate, case.profile));
    let keys = program.exported(&voice);
    let [mut seal, mut open] = contexts(case.profile.1, &keys, case.end);
    // The last flight may be under way: speech goes on until it is heard, and then what is still on its
    // way is waited for.
    let end = Instant::now() + PATIENCE;
    let (mut sequence, mut heard) = (64_000_u16, Vec::new());
    while heard.get(2..4) != Some(&sequence.to_be_bytes()[..]) {
        if heard.is_empty() {
            sequence += 1;
            let said = rtp(0, sequence, 0xd0, b"from the party with DTLS");
            let secret = seal.encrypt_rtp(&said).expect("encrypted");
            voice.rtp.send_to(&secret, voice.to).expect("sent");
        }
        std::thread::sleep(Duration::from_millis(20));
        program.carry(&voice);
        heard = drained(&plain.rtp).pop().unwrap_or(heard);
        assert!(Instant::now() < end && sequence < 65_535, "not heard in the clear");
    }
    assert!(heard.ends_with(b"from the party with DTLS"), "{heard:x?}");
    for number in [65_534, 65_535, 0, 1_u16] {
        let said = rtp(0, number, 0xe0, b"from the party without");
        plain.rtp.send_to(&said, plain.to).expect("sent");
        let end = Instant::now() + PATIENCE;
        while program.media.is_empty() {
            program.carry(&voice);
            assert!(Instant::now() < end, "nothing is heard");
            std::thread::sleep(Duration::from_millis(1));
        }
        let arrived = program.media.remove(0);
        assert_ne!(arrived, said);
        assert_eq!(open.decrypt_rtp(&arrived).expect("under the exported key"), said);
    }
    // Not under the keys, though from the right address.
    let forged = rtp(0, 7, 0xd0, b"forged, in the clear, and long enough to be SRTP");
    voice.rtp.send_to(&forged, voice.to).expect("sent");
    std::thread::sleep(SILENCE);
    assert_eq!(drained(&plain.rtp), Vec::<Vec<u8>>::new());
    call.end(&mut edge);
    let records = edge.stop();
    let party = &records[0].streams[usize::from(!case.calls)];
    assert_eq!(party.drops.get("srtp_auth"), Some(&1), "{party:?}");
}

const CM: Profile = ("SRTP_AES128_CM_SHA1_80", ProtectionProfile::Aes128CmHmacSha1_80);
pub(super) const GCM_128: Profile = ("SRTP_AEAD_AES_128_GCM", ProtectionProfile::AeadAes128Gcm);
const GCM_256: Profile = ("SRTP_AEAD_AES_256_GCM", ProtectionProfile::AeadAes256Gcm);

/// Whether there is an `openssl`; says so if not.
pub(super) fn equipped(test: &str) -> bool {
    let found = openssl(&["version"]).is_some();
    if !found {
        println!("skipped: {test}: openssl is not installed");
    }
    found
}

#[test]
fn openssl_shakes_hands_in_every_role_and_media_is_under_its_keys() {
    if !equipped("openssl_shakes_hands_in_every_role_and_media_is_under_its_keys") {
        return;
    }
    for (calls, setup, end, profile) in [
        (true, "actpass", End::Client, CM),
        (true, "active", End::Client, GCM_256),
        (true, "passive", End::Server, CM),
        (false, "active", End::Client, GCM_128),
        (false, "passive", End::Server, GCM_256),
    ] {
        converse(&Case { place: 10, calls, setup, end, profile });
    }
}

/// A certificate that is not the one of the description: no keys, and nothing passes in either
/// direction.
#[test]
fn a_certificate_of_somebody_else_is_refused_in_either_role() {
    if !equipped("a_certificate_of_somebody_else_is_refused_in_either_role") {
        return;
    }
    for (setup, end) in [("active", End::Client), ("passive", End::Server)] {
        let case = Case { place: 11, calls: false, setup, end, profile: GCM_128 };
        let mut edge = Edge::start(Net::loopback(case.place), &setup_of(&case));
        let folder = Scratch::new();
        let certificate = certificate(folder.path()).expect("openssl");
        let mut program = Openssl::start(edge.net.callee, end, &certificate, case.profile);
        let (_call, voice, plain) = up(&mut edge, &case, &vec!["AB"; 32].join(":"));
        // The certificates of both have been sent by then, and the program got no further.
        let end = Instant::now() + PATIENCE;
        let mut began = None;
        while began.is_none_or(|began: Instant| began.elapsed() < HANDSHAKE) {
            program.carry(&voice);
            if program.at.is_some() && program.sent > 0 {
                began = began.or_else(|| Some(Instant::now()));
            }
            assert!(Instant::now() < end, "no handshake: {}", program.seen);
            std::thread::sleep(Duration::from_millis(2));
        }
        for number in 1..10 {
            let said = rtp(0, number, 0xe0, b"for nobody to hear who is not who he says");
            plain.rtp.send_to(&said, plain.to).expect("sent");
            voice.rtp.send_to(&said, voice.to).expect("sent");
        }
        std::thread::sleep(SILENCE);
        program.carry(&voice);
        assert_eq!(drained(&plain.rtp), Vec::<Vec<u8>>::new(), "{setup}");
        assert_eq!(program.media, Vec::<Vec<u8>>::new(), "{setup}");
        let records = edge.stop();
        let forwarded = records[0].media_callee.as_ref().map_or(0, |count| count.packets);
        assert_eq!(forwarded, 0, "{records:?}");
    }
}
