//! Which media port has an address: a table by port number for each of the few local addresses, so
//! that a packet costs a comparison and an index.

use ravelin_engine::port::MediaPortId;
use std::net::{IpAddr, SocketAddr};

/// No port of this shard: more than any shard may have.
const NONE: u32 = u32::MAX;

/// The open media ports of one shard.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    addresses: Vec<Address>,
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    first: u16,
    ids: Vec<u32>,
}

impl Ports {
    pub(crate) fn open(&mut self, id: MediaPortId, at: SocketAddr) {
        let (ip, port) = (at.ip(), at.port());
        let place = match self.addresses.iter().position(|address| address.ip == ip) {
            Some(place) => place,
            None => {
                self.addresses.push(Address { ip, first: port, ids: Vec::new() });
                self.addresses.len() - 1
            }
        };
        let Some(address) = self.addresses.get_mut(place) else { return };
        if port < address.first {
            let before = usize::from(address.first - port);
            address.ids.splice(0..0, std::iter::repeat_n(NONE, before));
            address.first = port;
        }
        let index = usize::from(port - address.first);
        if address.ids.len() <= index {
            address.ids.resize(index + 1, NONE);
        }
        if let Some(found) = address.ids.get_mut(index) {
            *found = id.0;
        }
    }

    pub(crate) fn find(&self, at: SocketAddr) -> Option<MediaPortId> {
        let address = self.addresses.iter().find(|address| address.ip == at.ip())?;
        let index = usize::from(at.port().checked_sub(address.first)?);
        let id = *address.ids.get(index)?;
        (id != NONE).then_some(MediaPortId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ports_are_found_and_no_others() {
        let mut ports = Ports::default();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let open =
            ["10.0.0.1:20010", "10.0.0.1:20000", "10.0.0.2:20010", "[fd00::1]:65535", "[::1]:1"];
        for (id, text) in (0..).zip(open) {
            ports.open(MediaPortId(id), at(text));
        }
        for (id, text) in (0..).zip(open) {
            assert_eq!(ports.find(at(text)), Some(MediaPortId(id)), "{text}");
        }
        for text in ["10.0.0.1:20001", "10.0.0.1:19999", "10.0.0.1:20011", "10.0.0.3:20010"] {
            assert_eq!(ports.find(at(text)), None, "{text}");
        }
        assert_eq!(ports.find(at("[fd00::1]:1")), None);
    }
}
