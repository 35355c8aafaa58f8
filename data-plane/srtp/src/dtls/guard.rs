//! What of a datagram may reach the DTLS library. Everything here is read in the clear and believed
//! by nobody: it can only be kept out.

use super::{
    Role,
    limits::{HELLOS_MAX, MESSAGE_MAX_BYTES, RECORDS_MAX},
};

const RECORD_HEADER_BYTES: usize = 13;
const HANDSHAKE_HEADER_BYTES: usize = 12;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// Octets of our cookies.
pub(super) const COOKIE_BYTES: usize = 32;

/// Cipher suites of DTLS 1.2 that we take: ECDHE with ECDSA and AES-GCM or ChaCha20-Poly1305.
const CIPHER_SUITES: &[u16] = &[0xc02b, 0xc02c, 0xcca9];
/// SRTP protection profiles that we take (RFC 5764 4.1.2, RFC 7714 14.2).
const PROFILES: &[u16] = &[0x0001, 0x0007, 0x0008];
const EXTENSION_USE_SRTP: u16 = 14;
const EXTENSION_EXTENDED_MASTER_SECRET: u16 = 23;

/// One handshake message in one record of epoch 0. `None`: too long.
fn record(kind: u8, record_sequence: u32, sequence: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len()).ok()?;
    let [0, length @ ..] = length.to_be_bytes() else { return None };
    let whole = u16::try_from(HANDSHAKE_HEADER_BYTES.checked_add(body.len())?).ok()?;
    let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + usize::from(whole));
    // The version before one is agreed on (RFC 6347 4.2.1).
    out.extend_from_slice(&[HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(&record_sequence.to_be_bytes());
    out.extend_from_slice(&whole.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&length);
    out.extend_from_slice(&[0, sequence, 0, 0, 0]);
    out.extend_from_slice(&length);
    out.extend_from_slice(body);
    Some(out)
}

/// A HelloVerifyRequest (RFC 6347 4.2.1): shorter than any hello that it answers.
pub(super) fn hello_verify_request(
    record_sequence: u32,
    sequence: u8,
    cookie: &[u8; COOKIE_BYTES],
) -> Option<Vec<u8>> {
    let mut body = vec![0xfe, 0xff, 0x20];
    body.extend_from_slice(cookie);
    record(HELLO_VERIFY_REQUEST, record_sequence, sequence, &body)
}

impl Offer {
    /// The hello in one record, as if it had not come in fragments.
    pub(super) fn record(&self) -> Option<Vec<u8>> {
        record(CLIENT_HELLO, 0, self.sequence, &self.body)
    }

    /// The hello as it was `sequence` hellos after the first, before it had a cookie.
    pub(super) fn earlier(&self, sequence: u8) -> Option<Vec<u8>> {
        let (head, rest) = self.body.split_at_checked(34)?;
        let (id, rest) = short_vector(rest)?;
        let (_cookie, rest) = short_vector(rest)?;
        let mut body = head.to_vec();
        body.push(u8::try_from(id.len()).ok()?);
        body.extend_from_slice(id);
        body.push(0);
        body.extend_from_slice(rest);
        record(CLIENT_HELLO, 0, sequence, &body)
    }
}

/// Moves the sequence numbers of the records in the clear on by `by`: HelloVerifyRequests that the
/// library knows nothing of have used the first ones.
pub(super) fn renumber(mut datagram: &mut [u8], by: u32) {
    while let Some((header, rest)) = datagram.split_first_chunk_mut::<RECORD_HEADER_BYTES>() {
        let [_, _, _, e0, e1, _, _, s2, s3, s4, s5, l0, l1] = header;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if (*e0, *e1) == (0, 0) {
            let sequence = u32::from_be_bytes([*s2, *s3, *s4, *s5]).saturating_add(by);
            [*s2, *s3, *s4, *s5] = sequence.to_be_bytes();
        }
        let Some((_, tail)) = rest.split_at_mut_checked(length) else { return };
        datagram = tail;
    }
}

/// Why a datagram changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Not whole records of DTLS 1.2, or a message longer than any that is needed.
    Malformed,
    /// An alert in the clear: anybody could have sent it (RFC 6347 4.1.2.7).
    PlainAlert,
    /// A message that a peer in this state does not send.
    Unexpected,
    /// A ClientHello while another one is being answered, or after the handshake
    /// (lessons.md 2.22).
    StrayHello,
    /// A ClientHello that offers no cipher suite, extended master secret or SRTP profile of ours, or a
    /// later one without our cookie.
    UselessHello,
    /// The handshake has failed, or too long ago succeeded, to look at anything.
    Over,
}

impl Rejection {
    /// As a label of the counter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "dtls_malformed",
            Self::PlainAlert => "dtls_plain_alert",
            Self::Unexpected => "dtls_unexpected",
            Self::StrayHello => "dtls_stray_hello",
            Self::UselessHello => "dtls_useless_hello",
            Self::Over => "dtls_over",
        }
    }
}

/// The random of a ClientHello: tells the client whose hello was accepted from all others, who
/// cannot foresee it.
pub(super) type Random = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A server that has accepted no hello, or a client that has not said its own.
    Opening,
    /// The library answers messages of the peer.
    Going,
    /// Keys are agreed on.
    Done,
}

/// What is to be done with a datagram.
#[derive(Debug)]
pub(super) enum Pass {
    /// The library takes it.
    On,
    /// A ClientHello that a handshake can come of; none was accepted so far.
    Hello(Offer),
    /// Part of one.
    Part,
}

/// A whole ClientHello while none is accepted.
#[derive(Debug)]
pub(super) struct Offer {
    /// `message_seq`: how many hellos this client said before.
    pub(super) sequence: u8,
    pub(super) body: Vec<u8>,
    pub(super) random: Random,
    pub(super) cookie: Option<[u8; COOKIE_BYTES]>,
}

/// The state that decides what may pass.
#[derive(Debug)]
pub(super) struct Guard {
    role: Role,
    phase: Phase,
    /// Of the accepted hello.
    accepted: Option<Random>,
    /// The start of a hello that comes in fragments: its `message_seq`, and what is there.
    partial: Option<(u8, Vec<u8>)>,
}

impl Guard {
    pub(super) fn new(role: Role) -> Self {
        Self { role, phase: Phase::Opening, accepted: None, partial: None }
    }

    /// The client has said its hello, or the server has accepted one.
    pub(super) fn going(&mut self, accepted: Option<Random>) {
        self.phase = Phase::Going;
        self.accepted = accepted;
        self.partial = None;
    }

    /// The handshake is complete.
    pub(super) fn done(&mut self) {
        self.phase = Phase::Done;
    }

    /// Whether a datagram may reach the library. All of its records, or none.
    pub(super) fn pass(&mut self, datagram: &[u8]) -> Result<Pass, Rejection> {
        let mut rest = datagram;
        let mut records = 0;
        let mut pass = Pass::On;
        while !rest.is_empty() {
            let (record, tail) = Record::read(rest).ok_or(Rejection::Malformed)?;
            rest = tail;
            records += 1;
            if records > RECORDS_MAX {
                return Err(Rejection::Malformed);
            }
            if let Some(found) = self.pass_record(&record)? {
                pass = found;
            }
        }
        if records == 0 { Err(Rejection::Malformed) } else { Ok(pass) }
    }

    fn pass_record(&mut self, record: &Record<'_>) -> Result<Option<Pass>, Rejection> {
        match (record.epoch, record.kind) {
            (0, HANDSHAKE) => self.pass_handshake(record.body),
            (0, CHANGE_CIPHER_SPEC) if self.phase != Phase::Opening => Ok(None),
            (0, ALERT) => Err(Rejection::PlainAlert),
            (1, HANDSHAKE | ALERT | APPLICATION_DATA) if self.phase != Phase::Opening => Ok(None),
            (0 | 1, CHANGE_CIPHER_SPEC | HANDSHAKE | ALERT | APPLICATION_DATA) => {
                Err(Rejection::Unexpected)
            }
            _ => Err(Rejection::Malformed),
        }
    }

    /// Handshake messages of one record in the clear.
    fn pass_handshake(&mut self, mut body: &[u8]) -> Result<Option<Pass>, Rejection> {
        if body.is_empty() {
            return Err(Rejection::Malformed);
        }
        let mut pass = None;
        while !body.is_empty() {
            let (fragment, tail) = Fragment::read(body).ok_or(Rejection::Malformed)?;
            body = tail;
            match (self.role, fragment.kind) {
                (Role::Server, CLIENT_HELLO) => pass = self.pass_hello(&fragment)?.or(pass),
                // Certificate, CertificateVerify, ClientKeyExchange.
                (Role::Server, 11 | 15 | 16) if self.phase != Phase::Opening => {}
                // ServerHello, HelloVerifyRequest, Certificate, ServerKeyExchange,
                // CertificateRequest, ServerHelloDone.
                (Role::Client, 2 | 3 | 11 | 12 | 13 | 14) if self.phase == Phase::Going => {}
                (Role::Client, CLIENT_HELLO) => return Err(Rejection::StrayHello),
                _ => return Err(Rejection::Unexpected),
            }
        }
        Ok(pass)
    }

    fn pass_hello(&mut self, fragment: &Fragment<'_>) -> Result<Option<Pass>, Rejection> {
        match self.phase {
            Phase::Done => return Err(Rejection::StrayHello),
            Phase::Going => {
                // Only the accepted hello again: its flight was lost.
                let random = fragment.body.get(2..34).filter(|_| fragment.offset == 0);
                return match (random, &self.accepted) {
                    (Some(random), Some(accepted)) if random == accepted => Ok(None),
                    _ => Err(Rejection::StrayHello),
                };
            }
            Phase::Opening => {}
        }
        let [0, sequence @ 0..HELLOS_MAX] = fragment.sequence else {
            return Err(Rejection::Unexpected);
        };
        let body = if fragment.body.len() == fragment.length {
            fragment.body.to_vec()
        } else {
            match self.put_together(sequence, fragment)? {
                Some(whole) => whole,
                None => return Ok(Some(Pass::Part)),
            }
        };
        let hello = Hello::read(&body).ok_or(Rejection::Malformed)?;
        if !hello.is_of_use() {
            return Err(Rejection::UselessHello);
        }
        let (random, cookie) = (*hello.random, hello.cookie.try_into().ok());
        Ok(Some(Pass::Hello(Offer { sequence, body, random, cookie })))
    }

    /// Fragments of a hello, in their order; others have to come again. One hello at a time.
    fn put_together(
        &mut self,
        sequence: u8,
        fragment: &Fragment<'_>,
    ) -> Result<Option<Vec<u8>>, Rejection> {
        if fragment.offset == 0 {
            self.partial = Some((sequence, fragment.body.to_vec()));
            return Ok(None);
        }
        match &mut self.partial {
            Some((of, there)) if *of == sequence && there.len() == fragment.offset => {
                there.extend_from_slice(fragment.body);
                if there.len() < fragment.length {
                    return Ok(None);
                }
                Ok(self.partial.take().map(|(_, whole)| whole))
            }
            _ => Err(Rejection::Unexpected),
        }
    }
}

struct Record<'a> {
    kind: u8,
    epoch: u16,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(s: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = s.split_first_chunk::<RECORD_HEADER_BYTES>()?;
        let [kind, v0, v1, e0, e1, _, _, _, _, _, _, l0, l1] = *header;
        // 1.0 in the first hellos and HelloVerifyRequest, 1.2 in all else (RFC 6347 4.2.1).
        if v0 != 0xfe || !matches!(v1, 0xff | 0xfd) {
            return None;
        }
        let (body, tail) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        Some((Self { kind, epoch: u16::from_be_bytes([e0, e1]), body }, tail))
    }
}

struct Fragment<'a> {
    kind: u8,
    sequence: [u8; 2],
    /// Octets of the whole message.
    length: usize,
    offset: usize,
    body: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn read(s: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = s.split_first_chunk::<HANDSHAKE_HEADER_BYTES>()?;
        let [kind, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = *header;
        let number = |a, b, c| usize::try_from(u32::from_be_bytes([0, a, b, c])).ok();
        let (length, offset) = (number(l0, l1, l2)?, number(o0, o1, o2)?);
        let (body, tail) = rest.split_at_checked(number(f0, f1, f2)?)?;
        if length > MESSAGE_MAX_BYTES || offset.checked_add(body.len())? > length {
            return None;
        }
        Some((Self { kind, sequence: [s0, s1], length, offset, body }, tail))
    }
}

/// A whole ClientHello (RFC 6347 4.2.1).
struct Hello<'a> {
    random: &'a Random,
    cookie: &'a [u8],
    version: u16,
    suites: &'a [u8],
    compression: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Hello<'a> {
    fn read(s: &'a [u8]) -> Option<Self> {
        let (version, s) = s.split_first_chunk::<2>()?;
        let (random, s) = s.split_first_chunk::<32>()?;
        let (_id, s) = short_vector(s)?;
        let (cookie, s) = short_vector(s)?;
        let (suites, s) = long_vector(s)?;
        let (compression, s) = short_vector(s)?;
        let extensions = if s.is_empty() {
            s
        } else {
            let (extensions, after) = long_vector(s)?;
            if !after.is_empty() {
                return None;
            }
            extensions
        };
        let version = u16::from_be_bytes(*version);
        Some(Self { random, cookie, version, suites, compression, extensions })
    }

    /// Whether a handshake can come of it.
    fn is_of_use(&self) -> bool {
        let offers = |list: &[u8], wanted: &[u16]| {
            list.as_chunks::<2>().0.iter().any(|item| wanted.contains(&u16::from_be_bytes(*item)))
        };
        // 1.3 says 1.2 here too.
        self.version == 0xfefd
            && self.compression.contains(&0)
            && offers(self.suites, CIPHER_SUITES)
            && self.extension(EXTENSION_EXTENDED_MASTER_SECRET).is_some()
            && self
                .extension(EXTENSION_USE_SRTP)
                .and_then(long_vector)
                .is_some_and(|(profiles, _mki)| offers(profiles, PROFILES))
    }

    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.extensions;
        while let Some((kind, tail)) = rest.split_first_chunk::<2>() {
            let (content, tail) = long_vector(tail)?;
            if u16::from_be_bytes(*kind) == wanted {
                return Some(content);
            }
            rest = tail;
        }
        None
    }
}

fn short_vector(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = s.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn long_vector(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = s.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
