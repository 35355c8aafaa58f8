//! What stands before the handshake: record layer, fragments of a hello, cookies. An input is a list
//! of datagrams to an association that nobody has begun; no key is made unless a hello has its cookie,
//! which an input can have the rig put in.
//!
//! - Without a cookie nothing begins, and nobody is answered with more octets than came.
//! - A hello is the same in one piece and in fragments.
//! - A client takes nothing before it has spoken.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use ravelin_srtp::dtls::{Association, Fingerprints, Identity, Rejection, Role, State};

const RECORD_HEADER_BYTES: usize = 13;
const MESSAGE_HEADER_BYTES: usize = 12;
/// In a hello without session id: behind version and random.
const COOKIE_AT: usize = 35;
const NOW: u64 = 1_000_000;

fn identity() -> &'static Arc<Identity> {
    static MADE: OnceLock<Arc<Identity>> = OnceLock::new();
    MADE.get_or_init(|| {
        Arc::new(Identity::generate(std::time::Instant::now()).expect("an identity"))
    })
}

struct Rig {
    server: Association,
    /// The cookie of the last answer.
    cookie: Option<Vec<u8>>,
    /// Octets that came, and that they were answered with.
    octets: [usize; 2],
}

impl Rig {
    fn new() -> Self {
        let mut named = Fingerprints::default();
        assert!(named.add(identity().fingerprint().unwrap().to_string().as_bytes()));
        let server = Association::new(identity().clone(), Role::Server, named);
        Self { server, cookie: None, octets: [0; 2] }
    }

    /// A datagram; what came of it, and what it was answered with.
    fn comes(&mut self, datagram: &[u8]) -> (Result<bool, Rejection>, Vec<Vec<u8>>) {
        let mut sent = Vec::new();
        let before = self.server.state();
        let mut send = |answer: &[u8]| sent.push(answer.to_vec());
        let taken = self.server.receive(NOW, datagram, &mut send).map(|keys| keys.is_some());
        assert_ne!(taken, Ok(true), "keys of nothing");
        let [came, went] = &mut self.octets;
        *came += datagram.len();
        *went += sent.iter().map(Vec::len).sum::<usize>();
        match self.server.state() {
            State::Idle => {
                assert!(*went <= *came, "{went} octets for {came}");
                if let Some(answer) = sent.last() {
                    let at = RECORD_HEADER_BYTES + MESSAGE_HEADER_BYTES + 3;
                    self.cookie = answer.get(at..).map(<[u8]>::to_vec);
                    assert!(self.cookie.is_some(), "no HelloVerifyRequest");
                }
            }
            State::Handshake => {
                let proven = self.cookie.as_deref().is_some_and(|cookie| {
                    datagram.windows(cookie.len()).any(|part| part == cookie)
                });
                assert!(before == State::Handshake || proven, "begun without a cookie");
            }
            other => panic!("{other:?} of datagrams in the clear"),
        }
        (taken, sent)
    }
}

/// `body` as a ClientHello in records of `sizes` octets, the rest in the last.
fn records(body: &[u8], sequence: u8, sizes: &[u8]) -> Vec<Vec<u8>> {
    let (mut out, mut at) = (Vec::new(), 0);
    let mut sizes = sizes.iter();
    let whole = u32::try_from(body.len()).unwrap().to_be_bytes();
    loop {
        let left = body.len() - at;
        let take = sizes.next().map_or(left, |size| usize::from(*size).max(1).min(left));
        let mut message = vec![1, whole[1], whole[2], whole[3], 0, sequence];
        message.extend(&u32::try_from(at).unwrap().to_be_bytes()[1..]);
        message.extend(&u32::try_from(take).unwrap().to_be_bytes()[1..]);
        message.extend(&body[at..at + take]);
        let mut record = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, out.len() as u8];
        record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        record.extend(message);
        out.push(record);
        at += take;
        if at == body.len() {
            return out;
        }
    }
}

/// The cookie, where a hello without a session id has its own, if that is empty.
fn with_cookie(body: &[u8], cookie: Option<&[u8]>) -> Vec<u8> {
    let mut body = body.to_vec();
    if let Some(cookie) = cookie
        && body.get(COOKIE_AT - 1..=COOKIE_AT) == Some(&[0, 0])
    {
        body[COOKIE_AT] = cookie.len() as u8;
        body.splice(COOKIE_AT + 1..COOKIE_AT + 1, cookie.iter().copied());
    }
    body
}

fuzz_target!(|data: &[u8]| {
    let mut rig = Rig::new();
    let mut named = Fingerprints::default();
    assert!(named.add(identity().fingerprint().unwrap().to_string().as_bytes()));
    let mut client = Association::new(identity().clone(), Role::Client, named);
    let mut rest = data;
    // A hello that begins a handshake costs a key: one of them is enough.
    while let [selector, l0, l1, tail @ ..] = rest
        && rig.server.state() == State::Idle
    {
        let length = usize::from(u16::from_be_bytes([*l0 & 7, *l1])).min(tail.len());
        let (bytes, tail) = tail.split_at(length);
        rest = tail;
        match selector & 3 {
            0 => {
                let _ = rig.comes(bytes);
                let mut send = |_: &[u8]| panic!("a client speaks when it is spoken to");
                assert!(client.receive(NOW, bytes, &mut send).is_err());
                assert_eq!(client.state(), State::Idle);
            }
            // A hello, and the same one in fragments.
            kind => {
                let sequence = selector >> 2 & 3;
                let cookie = rig.cookie.clone().filter(|_| kind == 2);
                let body = with_cookie(bytes, cookie.as_deref());
                let count = usize::from(selector >> 4).min(rest.len());
                let (sizes, after) = rest.split_at(count);
                rest = after;
                if body.is_empty() {
                    continue;
                }
                let mut other = Rig::new();
                let mut last = (Ok(false), Vec::new());
                for record in records(&body, sequence, sizes) {
                    last = other.comes(&record);
                }
                let one = rig.comes(&records(&body, sequence, &[])[0]);
                // Each association has cookies of its own: they begin together or with none.
                if cookie.is_none() {
                    assert_eq!(last.0, one.0, "in fragments");
                    assert_eq!(last.1.len(), one.1.len(), "in fragments");
                }
            }
        }
    }
});
