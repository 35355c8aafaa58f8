//! Socket addresses in the form of the kernel (`sockaddr_in`, `sockaddr_in6`), written and read
//! byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;

/// Room for either form, aligned as the kernel's structures are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(crate) struct RawAddr {
    bytes: [u8; Self::CAPACITY],
    len: u32,
}

impl RawAddr {
    /// The larger of the two forms.
    pub(crate) const CAPACITY: usize = V6_BYTES;

    pub(crate) fn set(&mut self, addr: SocketAddr) {
        let bytes = &mut self.bytes;
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&family(libc::AF_INET));
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[8..V4_BYTES].fill(0);
                self.len = V4_BYTES as u32;
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&family(libc::AF_INET6));
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                self.len = V6_BYTES as u32;
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The address that the kernel has written here.
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        parse(&self.bytes)
    }
}

fn family(family: libc::c_int) -> [u8; 2] {
    // Address families are small positive numbers.
    (family as u16).to_ne_bytes()
}

/// Reads an address that the kernel wrote. None if it is too short or of another family.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let (found, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    if *found == family(libc::AF_INET) {
        let octets = rest.first_chunk::<4>()?;
        Some(SocketAddrV4::new(Ipv4Addr::from(*octets), port).into())
    } else if *found == family(libc::AF_INET6) {
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (octets, rest) = rest.split_first_chunk::<16>()?;
        let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
        let flow = u32::from_ne_bytes(*flow);
        Some(SocketAddrV6::new(Ipv6Addr::from(*octets), port, flow, scope).into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawAddr {
        let mut raw = RawAddr::default();
        raw.set(text.parse().unwrap());
        raw
    }

    #[test]
    fn both_families_survive_the_kernel_form() {
        for text in ["127.5.1.2:5060", "0.0.0.0:0", "[::1]:65535", "[fe80::1%3]:5060"] {
            let addr: SocketAddr = text.parse().unwrap();
            let raw = raw(text);
            assert_eq!(raw.get(), Some(addr), "{text}");
            // The same bytes as those of an independent encoder.
            let other = socket2::SockAddr::from(addr);
            assert_eq!(raw.len(), other.len(), "{text}");
            assert_eq!(other.as_socket(), raw.get(), "{text}");
        }
    }

    #[test]
    fn a_reused_one_keeps_nothing_of_the_old_address() {
        let mut raw = raw("[2001:db8::ffff]:7");
        raw.set("127.5.0.1:9".parse().unwrap());
        assert_eq!(raw.bytes[8..V4_BYTES], [0; 8]);
        assert_eq!(raw.len(), 16);
    }

    #[test]
    fn short_or_foreign_names_are_refused() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&raw("[::1]:1").bytes[..27]), None);
        assert_eq!(parse(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
