//! URIs: sip and sips (RFC 3261 19.1) to the letter, tel (RFC 3966) and urn (RFC 8141) as far as
//! calls need, other schemes opaque. IPv6 references as in RFC 5118.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chars::{
    self, HNV, HOST, OPAQUE, PARAM, PASSWORD, USER, all_escaped, run_escaped, span_escaped, split,
};
use super::fields::decimal;
use super::params::NamesSeen;
use crate::limits::{PARAM_MAX_COUNT, URI_MAX_BYTES};

/// Kind of URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// `urn:`
    Urn,
    /// Anything else with the shape of a URI; a Request-URI of this kind is answered 416.
    Other,
}

/// A URI, split and checked. Nothing is unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Kind.
    pub scheme: Scheme,
    /// User part of sip and sips (may hold `;`), number of tel.
    pub user: Option<&'a [u8]>,
    /// Password of sip and sips.
    pub password: Option<&'a [u8]>,
    /// Host of sip and sips, IPv6 with its brackets; else empty.
    pub host: &'a [u8],
    /// Port, if one is written.
    pub port: Option<u16>,
    /// Parameters with the leading `;`, or empty.
    pub params: UriParams<'a>,
    /// Headers of sip and sips without the `?`, or empty.
    pub headers: &'a [u8],
    /// Everything after the scheme and its colon.
    pub opaque: &'a [u8],
}

/// A host as an address or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// Literal address.
    Ip(IpAddr),
    /// Name to be resolved.
    Name(&'a [u8]),
}

/// `;name=value` list of a URI. White space does not occur, values are never quoted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UriParams<'a>(&'a [u8]);

impl<'a> UriParams<'a> {
    /// As on the wire, with the leading `;`.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Name and value, in order, still escaped.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        self.0.split(|&c| c == b';').skip(1).map(|param| {
            match param.iter().position(|&c| c == b'=') {
                Some(at) => {
                    let (name, value) = split(param, at);
                    (name, value.get(1..))
                }
                None => (param, None),
            }
        })
    }

    /// Value of parameter `name`; `Some(None)` when it has none. Escapes in names are understood.
    #[must_use]
    pub fn find(self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        if self.0.is_empty() {
            return None;
        }
        self.iter().find(|(n, _)| eq_unescaped_ignore_case(n, name)).map(|(_, value)| value)
    }

    /// Value of parameter `name`, if it has one.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(name).flatten()
    }

    /// Whether parameter `name` is there.
    #[must_use]
    pub fn has(self, name: &[u8]) -> bool {
        self.find(name).is_some()
    }
}

impl<'a> Uri<'a> {
    /// Parses all of `bytes`. `None`: not a URI, or one that breaks the rules of its scheme, or
    /// longer than [`URI_MAX_BYTES`].
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > URI_MAX_BYTES {
            return None;
        }
        // Nearly all are of this one.
        if let [b's' | b'S', b'i' | b'I', b'p' | b'P', b':', rest @ ..] = bytes {
            return Self::parse_sip(Scheme::Sip, rest);
        }
        let colon = memchr::memchr(b':', bytes)?;
        let (name, rest) = split(bytes, colon);
        let rest = rest.get(1..)?;
        match scheme(name)? {
            scheme @ (Scheme::Sip | Scheme::Sips) => Self::parse_sip(scheme, rest),
            Scheme::Tel => Self::parse_tel(rest),
            scheme @ Scheme::Urn => {
                let (nid, nss) = split(rest, memchr::memchr(b':', rest)?);
                let nid_ok = nid.iter().all(|&c| c.is_ascii_alphanumeric() || c == b'-');
                (!nid.is_empty() && nid_ok && nss.len() > 1 && all_escaped(rest, OPAQUE))
                    .then(|| Self::opaque(scheme, rest))
            }
            scheme @ Scheme::Other => chars::all(rest, OPAQUE).then(|| Self::opaque(scheme, rest)),
        }
    }

    const fn opaque(scheme: Scheme, opaque: &'a [u8]) -> Self {
        Self {
            scheme,
            user: None,
            password: None,
            host: &[],
            port: None,
            params: UriParams(&[]),
            headers: &[],
            opaque,
        }
    }

    fn parse_sip(scheme: Scheme, opaque: &'a [u8]) -> Option<Self> {
        let mut uri = Self::opaque(scheme, opaque);
        let mut rest = opaque;
        let (user, tail) = split(opaque, span_escaped(opaque, USER));
        if let Some(tail) = tail.strip_prefix(b"@") {
            uri.user = Some(user);
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix(b":") {
            // A password, or the port of a URI without user, which fails to end in `@`.
            let (password, tail) = split(tail, run_escaped(tail, PASSWORD));
            if let Some(tail) = tail.strip_prefix(b"@") {
                uri.user = Some(user);
                uri.password = Some(password);
                rest = tail;
            }
        }
        if uri.user.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let (host, mut rest) = split_host(rest)?;
        uri.host = host;
        if let Some(tail) = rest.strip_prefix(b":") {
            let (port, tail) = split_port(tail)?;
            uri.port = Some(port);
            rest = tail;
        }
        (uri.params, rest) = split_params(rest)?;
        if rest.is_empty() {
            return Some(uri);
        }
        uri.headers = rest.strip_prefix(b"?")?;
        for header in uri.headers.split(|&c| c == b'&') {
            let (name, value) = split(header, run_escaped(header, HNV));
            if name.is_empty() || !all_escaped(value.strip_prefix(b"=")?, HNV) {
                return None;
            }
        }
        Some(uri)
    }

    fn parse_tel(opaque: &'a [u8]) -> Option<Self> {
        let mut uri = Self::opaque(Scheme::Tel, opaque);
        let end = memchr::memchr(b';', opaque).unwrap_or(opaque.len());
        let (number, params) = split(opaque, end);
        // A global number has digits only, a local one also what a telephone can send (RFC 3966 3).
        let global = number.first() == Some(&b'+');
        let digits = number.strip_prefix(b"+").unwrap_or(number);
        let visual = |c: &u8| matches!(c, b'-' | b'.' | b'(' | b')');
        let local = |c: &u8| c.is_ascii_hexdigit() || matches!(c, b'*' | b'#');
        let digit = |c: &u8| c.is_ascii_digit() || !global && local(c);
        if !digits.iter().all(|c| visual(c) || digit(c)) || !digits.iter().any(digit) {
            return None;
        }
        uri.user = Some(number);
        let rest;
        (uri.params, rest) = split_params(params)?;
        rest.is_empty().then_some(uri)
    }

    /// The host as an address or a name. `None` for schemes without host.
    #[must_use]
    pub fn host(&self) -> Option<Host<'a>> {
        parse_host(self.host)
    }

    /// The host as a literal address.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        match self.host()? {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }

    /// The number or user: `user` of sip and sips without parameters inside it, digits of tel.
    /// Still escaped.
    #[must_use]
    pub fn user_number(&self) -> Option<&'a [u8]> {
        self.user.map(|user| split(user, memchr::memchr(b';', user).unwrap_or(user.len())).0)
    }
}

fn scheme(name: &[u8]) -> Option<Scheme> {
    if name.eq_ignore_ascii_case(b"sip") {
        return Some(Scheme::Sip);
    }
    if name.eq_ignore_ascii_case(b"sips") {
        return Some(Scheme::Sips);
    }
    if name.eq_ignore_ascii_case(b"tel") {
        return Some(Scheme::Tel);
    }
    if name.eq_ignore_ascii_case(b"urn") {
        return Some(Scheme::Urn);
    }
    let ok = name.first()?.is_ascii_alphabetic()
        && name.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'));
    ok.then_some(Scheme::Other)
}

/// Splits a checked parameter list, which may be empty, off the start of `s`.
fn split_params(s: &[u8]) -> Option<(UriParams<'_>, &[u8])> {
    let mut rest = s;
    let mut count = 0;
    let mut seen = NamesSeen::default();
    while let Some(param) = rest.strip_prefix(b";") {
        let (name, tail) = split(param, run_escaped(param, PARAM));
        count += 1;
        if name.is_empty() || count > PARAM_MAX_COUNT {
            return None;
        }
        // RFC 3261 19.1.1: each name once. Readers differ in which of two they take.
        let names = || {
            let before = UriParams(split(s, s.len() - rest.len()).0);
            before.iter().map(|(name, _)| name)
        };
        if seen.maybe(name, names) && names().any(|other| other.eq_ignore_ascii_case(name)) {
            return None;
        }
        rest = tail;
        if let Some(value) = rest.strip_prefix(b"=") {
            let length = run_escaped(value, PARAM);
            if length == 0 {
                return None;
            }
            rest = split(value, length).1;
        }
    }
    Some((UriParams(split(s, s.len() - rest.len()).0), rest))
}

/// Splits a checked host off the start of `s`.
#[inline]
pub(crate) fn split_host(s: &[u8]) -> Option<(&[u8], &[u8])> {
    match s.first() {
        Some(b'[') => {
            let (host, rest) = split(s, memchr::memchr(b']', s)?.checked_add(1)?);
            check_reference(host)?;
            return Some((host, rest));
        }
        Some(b'0'..=b'9') => {
            if let Some((_, rest)) = ipv4_prefix(s)
                && !rest.first().is_some_and(|&c| chars::is(c, HOST))
            {
                return Some((split(s, s.len() - rest.len()).0, rest));
            }
        }
        _ => {}
    }
    if let Some(len) = chars::plain_host_len(s) {
        return Some(split(s, len));
    }
    let (host, rest) = split(s, chars::run(s, HOST));
    check_name(host)?;
    Some((host, rest))
}

/// Splits a port, 1 to 65535, off the start of `s`.
pub(crate) fn split_port(s: &[u8]) -> Option<(u16, &[u8])> {
    let digits = s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len());
    let (port, rest) = split(s, digits);
    let port = u16::try_from(decimal(port)?).ok().filter(|&port| port != 0)?;
    Some((port, rest))
}

/// Checks and reads a host: `[IPv6]`, IPv4 or a name. A name whose last label is a number is an
/// address or nothing (RFC 3261 25.1 `toplabel`).
#[must_use]
pub fn parse_host(host: &[u8]) -> Option<Host<'_>> {
    if host.first() == Some(&b'[') {
        return check_reference(host).map(|ip| Host::Ip(IpAddr::V6(ip)));
    }
    if !chars::all(host, HOST) {
        return None;
    }
    let address = check_name(host)?;
    Some(address.map_or(Host::Name(host), |ip| Host::Ip(IpAddr::V4(ip))))
}

/// `[IPv6]`.
fn check_reference(host: &[u8]) -> Option<Ipv6Addr> {
    parse_ipv6(host.strip_prefix(b"[")?.strip_suffix(b"]")?)
}

/// The address that a host of [`HOST`] octets is, `Some(None)` for a name.
#[inline]
fn check_name(host: &[u8]) -> Option<Option<Ipv4Addr>> {
    let mut before = b'.';
    let mut rest = host;
    // Of these octets only the hyphen and the dot are not above `.`: no label is empty, or has a
    // hyphen at its edge.
    while let Some(at) = rest.iter().position(|&c| c <= b'.') {
        let (label, tail) = split(rest, at);
        let (&c, tail) = tail.split_first()?;
        if label.is_empty() && (c == b'.' || before == b'.') {
            return None;
        }
        before = c;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    match rest.last().copied().unwrap_or(before) {
        b'-' => None,
        // The root's dot; or there was nothing.
        b'.' => check_name(host.strip_suffix(b".")?).filter(Option::is_none),
        b'0'..=b'9' if is_last_label_number(host) => parse_ipv4(host).map(Some),
        _ => Some(None),
    }
}

fn is_last_label_number(name: &[u8]) -> bool {
    let label = name.rsplit(|&c| c == b'.').next().unwrap_or_default();
    label.iter().all(u8::is_ascii_digit)
}

/// Dotted quad without leading zeros.
pub(crate) fn parse_ipv4(s: &[u8]) -> Option<Ipv4Addr> {
    ipv4_prefix(s).and_then(|(ip, rest)| rest.is_empty().then_some(ip))
}

/// The dotted quad at the start of `s`, and what follows it.
#[inline]
fn ipv4_prefix(s: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (a, rest) = octet(s)?;
    let (b, rest) = octet(rest.strip_prefix(b".")?)?;
    let (c, rest) = octet(rest.strip_prefix(b".")?)?;
    let (d, rest) = octet(rest.strip_prefix(b".")?)?;
    Some((Ipv4Addr::new(a, b, c, d), rest))
}

/// The number from 0 to 255 at the start of `s`, without leading zeros, and what follows it. Takes
/// every digit that is there.
#[inline]
fn octet(s: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |s: &[u8]| s.first().map(|c| c.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    let first = digit(s)?;
    let rest = s.get(1..)?;
    let Some(second) = digit(rest) else { return Some((first, rest)) };
    let rest = rest.get(1..)?;
    if first == 0 {
        return None;
    }
    let two = first * 10 + second;
    let Some(third) = digit(rest) else { return Some((two, rest)) };
    let rest = rest.get(1..)?;
    let three = u8::try_from(u16::from(two) * 10 + u16::from(third)).ok()?;
    digit(rest).is_none().then_some((three, rest))
}

/// IPv6 text without brackets. Tolerates the third colon that the grammar of RFC 3261 produced
/// before an embedded IPv4 address (RFC 5118 4.10).
#[must_use]
pub fn parse_ipv6(s: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(s).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let (head, tail) = text.split_once(":::")?;
    parse_ipv4(tail.as_bytes())?;
    // 45 octets hold the longest IPv6 text.
    let mut fixed = [0u8; 45];
    let mut len = 0;
    for &c in head.as_bytes().iter().chain(b"::").chain(tail.as_bytes()) {
        *fixed.get_mut(len)? = c;
        len += 1;
    }
    std::str::from_utf8(fixed.get(..len)?).ok()?.parse().ok()
}

/// `s` with `%HH` undone. What does not form an escape is passed on as it stands.
pub fn percent_decode(s: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = s;
    std::iter::from_fn(move || {
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        if c != b'%' {
            return Some(c);
        }
        let escape = tail
            .split_first_chunk::<2>()
            .and_then(|([a, b], after)| Some((hex(*a)? << 4 | hex(*b)?, after)));
        let Some((octet, after)) = escape else { return Some(c) };
        rest = after;
        Some(octet)
    })
}

const fn hex(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

/// Whether `escaped`, its escapes undone, equals `plain`, ASCII case aside.
#[must_use]
pub fn eq_unescaped_ignore_case(escaped: &[u8], plain: &[u8]) -> bool {
    if !escaped.contains(&b'%') {
        return escaped.eq_ignore_ascii_case(plain);
    }
    let lower = |c: u8| c.to_ascii_lowercase();
    percent_decode(escaped).map(lower).eq(plain.iter().copied().map(lower))
}
