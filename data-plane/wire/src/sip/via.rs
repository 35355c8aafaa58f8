//! Via (RFC 3261 20.42, RFC 3581, RFC 5118).

use std::net::{IpAddr, SocketAddr};

use super::chars::{self, TOKEN, split, trim, trim_start};
use super::fields::{decimal, push_decimal, push_ip};
use super::params::Params;
use super::uri::{Host, parse_host, parse_ipv4, parse_ipv6, split_host, split_port};

/// Transport named in a Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport<'a> {
    /// UDP
    Udp,
    /// TCP
    Tcp,
    /// TLS
    Tls,
    /// SCTP
    Sctp,
    /// WS or WSS (RFC 7118)
    Ws,
    /// Any other token.
    Other(&'a [u8]),
}

/// The magic cookie of RFC 3261 8.1.1.7.
pub(crate) const COOKIE: &[u8] = b"z9hG4bK";

/// One Via value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// SIP version, `2.0`; another only in what [`crate::sip::salvage`] finds.
    pub version: &'a [u8],
    /// Transport of the hop.
    pub transport: Transport<'a>,
    /// Host of sent-by, IPv6 with its brackets.
    pub host: &'a [u8],
    /// Port of sent-by, if one is written.
    pub port: Option<u16>,
    /// Transaction identifier; `None` from an RFC 2543 element.
    pub branch: Option<&'a [u8]>,
    /// RFC 3581: `Some(None)` asks for it, `Some(Some(port))` is the answer.
    pub rport: Option<Option<u16>>,
    /// Where the request came from, as the element after this one saw it.
    pub received: Option<IpAddr>,
    /// All parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Parses one whole value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parsed = Self::EMPTY;
        Self::parse_to(value, &mut parsed)?;
        Some(parsed)
    }

    /// Not parsed yet.
    pub(crate) const EMPTY: Self = Self {
        version: &[],
        transport: Transport::Udp,
        host: &[],
        port: None,
        branch: None,
        rport: None,
        received: None,
        params: Params::unchecked(&[]),
    };

    /// As [`Via::parse`], written where it is to stay. `None` leaves `slot` in either state.
    pub(crate) fn parse_to(value: &'a [u8], slot: &mut Self) -> Option<()> {
        Self::parse_any_version(value, slot).filter(|version| *version == b"2.0").map(|_| ())
    }

    /// As [`Via::parse_to`], for the answer that says that the version is not spoken. Gives the
    /// version.
    pub(crate) fn parse_any_version(value: &'a [u8], slot: &mut Self) -> Option<&'a [u8]> {
        let value = trim(value);
        let (version, rest) = match value.split_at_checked(8) {
            Some((b"SIP/2.0/", rest)) => (&b"2.0"[..], rest),
            _ => protocol(value)?,
        };
        let rest = trim_start(rest);
        let (transport, rest) = split(rest, chars::run(rest, TOKEN));
        let transport = match transport {
            b"UDP" => Transport::Udp,
            b"" => return None,
            other => Transport::of(other),
        };
        // At least one white space between transport and sent-by.
        if !rest.first().is_some_and(|&c| chars::is_lws(c)) {
            return None;
        }
        let rest = trim_start(rest);
        let (host, rest) = split_host(rest)?;
        let rest = trim_start(rest);
        // White space may stand on either side of the colon.
        let (port, rest) = match rest.strip_prefix(b":") {
            Some(rest) => {
                let (port, rest) = split_port(trim_start(rest))?;
                (Some(port), rest)
            }
            None => (None, rest),
        };
        let rest = trim_start(rest);
        *slot = Self { version, transport, host, port, ..Self::EMPTY };
        slot.params = Params::parse_each(rest, |name, value| slot.take_param(name, value))?;
        Some(version)
    }

    /// `None`: a parameter that decides where answers go is wrong.
    fn take_param(&mut self, name: &'a [u8], value: Option<&'a [u8]>) -> Option<()> {
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"branch") => {
                // A branch is a token; quotes would be compared as part of it. A value without them
                // is of the class of such values already.
                self.branch = Some(value.filter(|v| v.first() != Some(&b'"'))?);
            }
            5 if name.eq_ignore_ascii_case(b"rport") => {
                self.rport = Some(match value {
                    Some(port) => Some(u16::try_from(decimal(port)?).ok()?),
                    None => None,
                });
            }
            8 if name.eq_ignore_ascii_case(b"received") => {
                self.received = Some(parse_received(value?)?);
            }
            5 if name.eq_ignore_ascii_case(b"maddr") => {
                parse_host(value?)?;
            }
            3 if name.eq_ignore_ascii_case(b"ttl") => {
                u8::try_from(decimal(value?)?).ok()?;
            }
            _ => {}
        }
        Some(())
    }

    /// Whether the branch is an RFC 3261 one, unique for the transaction.
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        self.branch.is_some_and(starts_with_cookie)
    }

    /// The host of sent-by as an address or a name.
    #[must_use]
    pub fn host(&self) -> Option<Host<'a>> {
        parse_host(self.host)
    }

    /// Value of parameter `name`, if it has one.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params.get(name)
    }
}

pub(crate) fn starts_with_cookie(branch: &[u8]) -> bool {
    branch.get(..COOKIE.len()).is_some_and(|head| head.eq_ignore_ascii_case(COOKIE))
}

impl<'a> Transport<'a> {
    /// The transport that `token` names, any case.
    #[must_use]
    pub fn of(token: &'a [u8]) -> Self {
        let is = |name: &[u8]| token.eq_ignore_ascii_case(name);
        match token.len() {
            3 if is(b"UDP") => Self::Udp,
            3 if is(b"TCP") => Self::Tcp,
            3 if is(b"TLS") => Self::Tls,
            4 if is(b"SCTP") => Self::Sctp,
            2 if is(b"WS") => Self::Ws,
            3 if is(b"WSS") => Self::Ws,
            _ => Self::Other(token),
        }
    }

    /// As written in a Via.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Udp => b"UDP",
            Self::Tcp => b"TCP",
            Self::Tls => b"TLS",
            Self::Sctp => b"SCTP",
            Self::Ws => b"WS",
            Self::Other(token) => token,
        }
    }
}

/// `SIP / 2.0 /` with white space anywhere between, the slow form of the prefix.
fn protocol(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split(value, chars::run(value, TOKEN));
    let rest = trim_start(trim_start(rest).strip_prefix(b"/")?);
    let (version, rest) = split(rest, chars::run(rest, TOKEN));
    let rest = trim_start(rest).strip_prefix(b"/")?;
    (name.eq_ignore_ascii_case(b"SIP") && !version.is_empty()).then_some((version, rest))
}

/// IPv4, IPv6, or IPv6 in brackets, which the grammar forbids and peers send (RFC 5118 4.5).
fn parse_received(value: &[u8]) -> Option<IpAddr> {
    let bare = value.strip_prefix(b"[").and_then(|v| v.strip_suffix(b"]"));
    match bare {
        Some(inner) => parse_ipv6(inner).map(IpAddr::V6),
        None => parse_ipv4(value).map(IpAddr::V4).or_else(|| parse_ipv6(value).map(IpAddr::V6)),
    }
}

/// Appends the top Via value of a request as its answer must carry it: `received` set to the packet
/// source when it differs from sent-by or `rport` was asked for, `rport` filled in (RFC 3261
/// 18.2.1, RFC 3581 4). Parameters of these names that the sender put there are replaced. Folds
/// become SP.
pub fn write_via_with_source(via: &Via<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/");
    out.extend_from_slice(via.version);
    out.push(b'/');
    out.extend_from_slice(via.transport.as_bytes());
    out.push(b' ');
    out.extend_from_slice(via.host);
    if let Some(port) = via.port {
        out.push(b':');
        push_decimal(out, u64::from(port));
    }
    for (name, value) in via.params.iter() {
        if name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(name);
        if let Some(value) = value {
            out.push(b'=');
            out.extend(value.iter().map(|&c| if matches!(c, b'\r' | b'\n') { b' ' } else { c }));
        }
    }
    let source_ip = source.ip().to_canonical();
    let sent_by = via.host().and_then(|host| match host {
        Host::Ip(ip) => Some(ip.to_canonical()),
        Host::Name(_) => None,
    });
    if via.rport.is_some() || sent_by != Some(source_ip) {
        out.extend_from_slice(b";received=");
        push_ip(out, source_ip);
    }
    if via.rport.is_some() {
        out.extend_from_slice(b";rport=");
        push_decimal(out, u64::from(source.port()));
    }
}
