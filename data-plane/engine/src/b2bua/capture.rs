//! The messages of a call, octet for octet, where the operator asked for them
//! (`edge.limits.capture_bytes`). Emergency calls are left out: their location belongs into the audit
//! store and nowhere else (EM-41).

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
        self.packets.push(Packet { unix_ms, from, to, stream, bytes: bytes.into() });
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
