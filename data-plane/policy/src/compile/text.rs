//! Names, addresses and URIs as users write them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ravelin_contract::config::Transport;

use super::Faults;
use crate::lpm::AddressRange;

const NAME_MAX: usize = 63;

pub(super) fn check_node(node: &str, faults: &mut Faults) {
    if node.is_empty() {
        faults.error("node", "is empty; give this node a name");
    } else {
        check_id("node", node, faults);
    }
}

/// Ids appear in metrics, paths and records: no spaces, no quoting.
pub(super) fn check_id(path: &str, id: &str, faults: &mut Faults) {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > NAME_MAX || !id.bytes().all(valid) {
        let reason = format!("`{id}` is not a name: 1-{NAME_MAX} of a-z A-Z 0-9 - _ .");
        faults.error(path, reason);
    }
}

/// An address to bind or send to: literal, and one that belongs to one host.
pub(super) fn host_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        format!("`{text}` is not a literal IPv4 or IPv6 address; names are not looked up")
    })?;
    check_host(address)?;
    Ok(address)
}

/// `ADDRESS:PORT` with the same rules.
pub(super) fn host_socket(text: &str) -> Result<SocketAddr, String> {
    let socket: SocketAddr = text.parse().map_err(|_| {
        format!(
            "`{text}` is not ADDRESS:PORT with a literal address ([ADDRESS]:PORT for IPv6); names \
             are not looked up"
        )
    })?;
    check_socket(socket)?;
    Ok(socket)
}

fn check_socket(socket: SocketAddr) -> Result<(), String> {
    if let SocketAddr::V6(v6) = socket
        && (v6.scope_id() != 0 || v6.ip().to_ipv4_mapped().is_some())
    {
        return Err(format!("`{socket}` has a zone or is an IPv4 address in IPv6 form"));
    }
    if socket.port() == 0 {
        return Err(format!("`{socket}` has no port"));
    }
    check_host(socket.ip())
}

fn check_host(address: IpAddr) -> Result<(), String> {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() {
        Err(format!("`{address}` is a wildcard; name the address itself"))
    } else if address.is_multicast() {
        Err(format!("`{address}` is a multicast address"))
    } else if mapped {
        Err(format!("`{address}` is an IPv4 address in IPv6 form; write it as IPv4"))
    } else {
        Ok(())
    }
}

/// A prefix and optionally a port: `192.0.2.0/24`, `192.0.2.7:5060`, `[2001:db8::1]:5060`,
/// `[2001:db8::]/32:5060`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) range: AddressRange,
    pub(super) port: Option<u16>,
}

pub(super) fn source(text: &str) -> Result<Source, String> {
    let complaint = || {
        format!(
            "`{text}` is not an address or prefix, optionally with :PORT ([ADDRESS]:PORT for IPv6)"
        )
    };
    if let Ok(net) = prefix(text) {
        return net.map(|range| Source { range, port: None });
    }
    let (network, port) = text.rsplit_once(':').ok_or_else(complaint)?;
    let port: u16 = port.parse().map_err(|_| complaint())?;
    if port == 0 {
        return Err(format!("`{text}`: port 0 sends nothing"));
    }
    let network = match network.strip_prefix('[') {
        Some(rest) => rest.replacen(']', "", 1),
        None if network.contains(':') => return Err(complaint()),
        None => network.to_owned(),
    };
    let range = prefix(&network).map_err(|()| complaint())??;
    Ok(Source { range, port: Some(port) })
}

/// `ADDRESS` or `ADDRESS/LENGTH` without host bits. Outer error: not of this form at all.
#[allow(clippy::result_large_err)]
fn prefix(text: &str) -> Result<Result<AddressRange, String>, ()> {
    let net: ipnet::IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| ())?,
    };
    let trunc = net.trunc();
    if trunc.addr() != net.addr() {
        return Ok(Err(format!("`{text}` has host bits set; write `{trunc}`")));
    }
    Ok(range_of(net).map_err(str::to_owned))
}

fn range_of(net: ipnet::IpNet) -> Result<AddressRange, &'static str> {
    if let ipnet::IpNet::V6(v6) = net {
        let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some();
        if mapped(v6.network()) != mapped(v6.broadcast()) {
            return Err("covers IPv4 addresses in IPv6 form only in part; split it");
        }
    }
    AddressRange::new(net.network(), net.broadcast())
}

/// `PREFIX` or `START-END`.
pub(super) fn site_range(text: &str) -> Result<AddressRange, String> {
    let text = text.trim();
    if let Ok(range) = prefix(text) {
        return range;
    }
    let (start, end) = text.split_once('-').ok_or_else(|| {
        format!("`{text}` is neither a prefix such as 192.0.2.0/24 nor START-END")
    })?;
    AddressRange::new(site_address(start)?, site_address(end)?)
        .map_err(|reason| format!("`{text}`: {reason}"))
}

pub(super) fn site_address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("`{text}` is not a literal IPv4 or IPv6 address"))
}

/// A target URI and the transport it names.
pub(super) fn target_uri(text: &str) -> Result<(IpAddr, Option<u16>, Option<Transport>), String> {
    let (scheme, rest) = text
        .split_once(':')
        .ok_or_else(|| format!("`{text}` is not a SIP URI; write `sip:192.0.2.1:5060`"))?;
    if scheme.eq_ignore_ascii_case("sips") {
        return Err(format!("`{text}`: sips needs TLS, which this release does not speak"));
    }
    if !scheme.eq_ignore_ascii_case("sip") {
        return Err(format!("`{text}` is not a SIP URI; write `sip:192.0.2.1:5060`"));
    }
    let mut parts = rest.split(';');
    let host_port = parts.next().unwrap_or_default();
    if host_port.contains('@') {
        return Err(format!("`{text}`: a target has no user part; the dialled number goes there"));
    }
    let mut transport = None;
    for parameter in parts {
        transport = Some(match parameter.to_ascii_lowercase().as_str() {
            "transport=udp" => Transport::Udp,
            "transport=tcp" => Transport::Tcp,
            "transport=tls" => Transport::Tls,
            _ => {
                return Err(format!(
                    "`{text}`: parameter `{parameter}` is not known; only transport=udp or \
                     transport=tcp"
                ));
            }
        });
    }
    let (host, port) = split_host_port(host_port)
        .ok_or_else(|| format!("`{text}`: `{host_port}` is not ADDRESS[:PORT]"))?;
    let address: IpAddr = host.parse().map_err(|_| {
        format!(
            "`{text}`: `{host}` is not a literal address; the data plane asks no DNS, so give the \
             addresses of the host, one target each"
        )
    })?;
    check_host(address).map_err(|reason| format!("`{text}`: {reason}"))?;
    if port == Some(0) {
        return Err(format!("`{text}`: port 0 receives nothing"));
    }
    Ok((address, port, transport))
}

fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some(""))?)
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    match port {
        "" if text.ends_with(':') => None,
        "" => Some((host, None)),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_literal_addresses() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(target_uri("sip:127.0.0.1:5070"), Ok((address("127.0.0.1"), Some(5070), None)));
        assert_eq!(
            target_uri("SIP:[2001:db8::1];transport=TCP"),
            Ok((address("2001:db8::1"), None, Some(Transport::Tcp)))
        );
        for bad in [
            "",
            "127.0.0.1",
            "sips:127.0.0.1",
            "tel:911",
            "sip:",
            "sip:a@127.0.0.1",
            "sip:0.0.0.0",
            "sip:224.0.0.1",
            "sip:127.0.0.1:0",
            "sip:127.0.0.1:",
            "sip:127.0.0.1:99999",
            "sip:127.0.0.1:+5",
            "sip:[::1",
            "sip:[::1]5060",
            "sip:127.0.0.1;lr",
            "sip:127.0.0.1?x=y",
            "sip:[::ffff:127.0.0.1]",
        ] {
            assert!(target_uri(bad).is_err(), "{bad}");
        }
        let reason = target_uri("sip:sbc.example.com:5060").unwrap_err();
        assert!(reason.contains("asks no DNS"), "{reason}");
    }

    #[test]
    fn sources_are_prefixes_with_or_without_port() {
        let v4 = |start: [u8; 4], end: [u8; 4]| AddressRange::V4 {
            start: u32::from_be_bytes(start),
            end: u32::from_be_bytes(end),
        };
        let of = |text: &str| source(text).map(|s| (s.range, s.port));
        assert_eq!(of("10.0.0.0/24"), Ok((v4([10, 0, 0, 0], [10, 0, 0, 255]), None)));
        assert_eq!(of("10.0.0.7"), Ok((v4([10, 0, 0, 7], [10, 0, 0, 7]), None)));
        assert_eq!(of("10.0.0.7:5070"), Ok((v4([10, 0, 0, 7], [10, 0, 0, 7]), Some(5070))));
        assert_eq!(of("10.0.0.0/8:5070").map(|s| s.1), Ok(Some(5070)));
        assert_eq!(of("[2001:db8::1]:5060").map(|s| s.1), Ok(Some(5060)));
        assert_eq!(of("2001:db8::/32").map(|s| s.1), Ok(None));
        assert_eq!(of("::ffff:10.0.0.7"), of("10.0.0.7"));
        assert_eq!(of("::ffff:10.0.0.0/120"), of("10.0.0.0/24"));
        for bad in ["", "x", "10.0.0.1/24", "10.0.0.0/33", "10.0.0.1:0", "10.0.0.1:x", "::/80:x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of("10.0.0.1/24").unwrap_err().contains("write `10.0.0.0/24`"));
    }

    #[test]
    fn site_ranges() {
        assert_eq!(site_range("10.0.0.0/30"), site_range("10.0.0.0-10.0.0.3"));
        assert_eq!(site_range("2001:db8::1 - 2001:db8::2").map(|r| r.prefixes().len()), Ok(2));
        for bad in ["10.0.0.5-10.0.0.1", "10.0.0.1-2001:db8::", "fe80::1%1", "10.0.0.1-", "zz-1"] {
            assert!(site_range(bad).is_err(), "{bad}");
        }
    }
}
