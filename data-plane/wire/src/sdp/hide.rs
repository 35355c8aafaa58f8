//! What must not be read on the other side: hosts of the peer, and addresses that are not ours.

use std::net::IpAddr;

use super::{Description, line::Lines};
use crate::sip::uri::parse_ipv4;

/// Names that are looked for in one description: those of its message (24), of o= and c=, and of each
/// m-line (16). Of a description with more, which has several c= lines in one place, the rest is not.
const NAMES_MAX: usize = 48;

/// The hosts that must not be read on the other side.
pub(super) struct Names<'n> {
    names: [&'n [u8]; NAMES_MAX],
    count: usize,
}

impl<'n> Names<'n> {
    pub(super) fn of(description: &Description<'n>, inside: &[&'n [u8]]) -> Self {
        let mut all = Self { names: [&[]; NAMES_MAX], count: 0 };
        inside.iter().for_each(|name| all.add(name));
        if description.has_one_connection_each() {
            all.add(description.origin().address);
            all.add(description.connection().map_or(&[], |connection| connection.text));
            for media in description.medias() {
                all.add(media.connection().map_or(&[], |connection| connection.text));
            }
            return all;
        }
        let medias = description.medias().iter().map(|media| media.section);
        for section in std::iter::once(description.session).chain(medias) {
            for line in Lines::new(section) {
                // Of o=: user, id, version, net, family, address; of c=: net, family, address.
                let place = match line.kind {
                    b'o' => 5,
                    b'c' => 2,
                    _ => continue,
                };
                let word = line.value.split(|&b| b == b' ').filter(|w| !w.is_empty()).nth(place);
                let host = word.and_then(|word| word.split(|&b| b == b'/').next());
                all.add(host.unwrap_or_default());
            }
        }
        all
    }

    /// Single words without a dot or colon are too likely to mean something else.
    fn add(&mut self, name: &'n [u8]) {
        let held = matches!(name, b"0.0.0.0" | b"::");
        let host = name.iter().any(|b| matches!(b, b'.' | b':'));
        if held || !host || self.all().contains(&name) {
            return;
        }
        if let Some(slot) = self.names.get_mut(self.count) {
            *slot = name;
            self.count += 1;
        }
    }

    pub(super) fn all(&self) -> &[&'n [u8]] {
        self.names.get(..self.count).unwrap_or_default()
    }
}

/// Whether `text` holds a literal address other than `ours`. The unspecified ones are nobody's.
pub(super) fn holds_foreign_address(text: &[u8], ours: IpAddr) -> bool {
    let foreign = |ip: IpAddr| ip != ours && !ip.is_unspecified();
    let part = |c: &u8| c.is_ascii_hexdigit() || matches!(c, b'.' | b':');
    // A word can be an address only with three dots, or with two colons.
    text.split(|c| !part(c)).filter(|word| word.len() > 2).any(|word| {
        let count = |mark: u8| word.iter().filter(|c| **c == mark).count();
        if count(b':') >= 2 {
            // Dots stand in front of an address of IPv6 or behind it, or in one that ends as IPv4.
            let parts = || word.split(|c| *c == b'.').find_map(v6);
            if v6(word).or_else(parts).is_some_and(foreign) {
                return true;
            }
        }
        count(b'.') >= 3
            && word
                .split(|c| !c.is_ascii_digit() && *c != b'.')
                .map(|quad| quad.strip_suffix(b".").unwrap_or(quad))
                .filter_map(parse_ipv4)
                .any(|ip| foreign(IpAddr::V4(ip)))
    })
}

/// An IPv6 address, which may stand behind a colon that is not its own.
fn v6(word: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(word).ok()?;
    let text = text.trim_end_matches('.');
    let front = text.strip_prefix(':');
    let back = text.strip_suffix(':');
    let both = front.and_then(|text| text.strip_suffix(':'));
    let spellings = [Some(text), front, back, both];
    spellings.into_iter().flatten().find_map(|text| text.parse().ok()).map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_and_numbers_are_not() {
        let ours: IpAddr = "198.51.100.7".parse().unwrap();
        for text in [
            "a=alt:1 1 : 5p3Yz 8E+1 10.1.1.9 5000",
            "a=x-host:2001:db8::1",
            "a=x:[2001:db8::1]:5000",
            "a=x:::1",
            "a=x...:db8::2",
            "a=x:2001:db8::2..1",
            "a=x-nat:10.0.0.1.",
            "a=x:(10.0.0.1)",
            "a=path:msrp://192.0.2.4:2855/s1;tcp",
            "i=::ffff:10.0.0.1",
        ] {
            assert!(holds_foreign_address(text.as_bytes(), ours), "{text}");
        }
        for text in [
            "a=x-from:198.51.100.7:99",
            "a=tool:pbx 1.2.3",
            "a=x:0.0.0.0",
            "a=x:::",
            "a=ssrc:1 cname:user",
            "a=fingerprint:sha-1 19:E2:1C:3B:4A:AD:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99",
            "a=x-time:12:30:45",
            "a=x-version:1.2.3.456",
            "a=x-version:1.2.3.4.5",
            "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        ] {
            assert!(!holds_foreign_address(text.as_bytes(), ours), "{text}");
        }
    }
}
