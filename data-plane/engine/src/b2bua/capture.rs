//! The messages of a call, octet for octet, where the operator asked for them
//! (`edge.limits.capture_bytes`). Emergency calls are left out: their location belongs into the audit
//! store and nowhere else (EM-41). Keys of media are overwritten: who may read a trace may not listen.

use std::net::SocketAddr;

use ravelin_contract::view::LadderPacket;

/// One message.
#[derive(Clone, Debug)]
struct Packet {
    unix_ms: u64,
    from: SocketAddr,
    to: SocketAddr,
    stream: bool,
    bytes: Box<[u8]>,
}

/// A message that is about to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub unix_ms: u64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub stream: bool,
    pub bytes: &'a [u8],
}

/// The messages kept of one call: the first ones, as far as there is room.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    packets: Vec<Packet>,
    bytes: usize,
    omitted: u64,
}

impl Capture {
    /// Keeps a message if the call then holds at most `most` octets; returns how many more it holds.
    pub(crate) fn keep(&mut self, seen: Seen<'_>, most: usize) -> usize {
        if self.bytes.saturating_add(seen.bytes.len()) > most {
            self.omitted = self.omitted.saturating_add(1);
            return 0;
        }
        let Seen { unix_ms, from, to, stream, bytes } = seen;
        self.bytes += bytes.len();
        let mut kept: Box<[u8]> = bytes.into();
        redact(&mut kept);
        self.packets.push(Packet { unix_ms, from, to, stream, bytes: kept });
        bytes.len()
    }

    /// Octets held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// For an operator: the messages, and how many found no room.
    pub(crate) fn render(&self) -> (Vec<LadderPacket>, u64) {
        let packets = self.packets.iter().map(|packet| LadderPacket {
            unix_ms: packet.unix_ms,
            from: packet.from,
            to: packet.to,
            stream: packet.stream,
            hex: packet.bytes.iter().map(|octet| format!("{octet:02x}")).collect(),
        });
        (packets.collect(), self.omitted)
    }
}

/// What stands before a secret in a session description: SDES (RFC 4568), MIKEY (RFC 4567), k= of old
/// (RFC 4566 5.12), ICE (RFC 8839 5.4).
const BEFORE_SECRETS: [&[u8]; 6] =
    [b"inline:", b"mikey ", b"k=base64:", b"k=clear:", b"k=uri:", b"a=ice-pwd:"];

/// Overwrites keys in place, so that every length stays true.
fn redact(message: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = message.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let begins = |mark: &&&[u8]| {
            rest.get(..mark.len()).is_some_and(|head| head.eq_ignore_ascii_case(mark))
        };
        let Some(mark) = BEFORE_SECRETS.iter().find(begins) else {
            at += 1;
            continue;
        };
        at += mark.len();
        let secret = rest.iter_mut().skip(mark.len());
        for octet in secret.take_while(|octet| !matches!(octet, b' ' | b'|' | b';' | b'\r' | b'\n'))
        {
            *octet = b'x';
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_kept() {
        let mut message = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc+/9==|2^20|1:4;INLINE:zz \
            WSH=64\r\na=key-mgmt:mikey AQAF\r\nk=clear:secret\r\na=ice-pwd:pass\r\na=ptime:20\r\n\
            a=crypto:2 X inline:"
            .to_vec();
        let length = message.len();
        redact(&mut message);
        assert_eq!(
            String::from_utf8(message.clone()).unwrap(),
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxxxxxxx|2^20|1:4;INLINE:xx WSH=64\r\n\
             a=key-mgmt:mikey xxxx\r\nk=clear:xxxxxx\r\na=ice-pwd:xxxx\r\na=ptime:20\r\n\
             a=crypto:2 X inline:"
        );
        assert_eq!(message.len(), length);
    }
}
