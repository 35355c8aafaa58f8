//! Which URLs a certificate may be fetched from, decided before any name is resolved (ST-49).

use std::fmt;

use crate::limits::X5U_BYTES_MAX;

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    TooLong,
    /// A blank, control, non-ASCII or other octet that no URL has, or a backslash.
    Character,
    /// Not `https:`.
    Scheme,
    Userinfo,
    Query,
    Fragment,
    /// Not a DNS name with a dot, or an IP address in any notation.
    Host,
    /// Neither absent nor 443 nor 8443.
    Port,
    EmptyPath,
}

impl UrlError {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "the URL is longer than 1024 octets",
            Self::Character => "the URL has a character that no URL has",
            Self::Scheme => "the URL is not https",
            Self::Userinfo => "the URL has a user part",
            Self::Query => "the URL has a query",
            Self::Fragment => "the URL has a fragment",
            Self::Host => "the host of the URL is not a DNS name with a dot",
            Self::Port => "the port of the URL is neither 443 nor 8443",
            Self::EmptyPath => "the URL has no path",
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for UrlError {}

/// Checks an x5u or info URL against the policy.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_url(url: &[u8]) -> Result<(), UrlError> {
    if url.len() > X5U_BYTES_MAX {
        return Err(UrlError::TooLong);
    }
    let odd = |octet: &u8| !octet.is_ascii_graphic() || b"\\<>\"{}|^`".contains(octet);
    if url.iter().any(odd) {
        return Err(UrlError::Character);
    }
    let (scheme, rest) = url.split_at_checked(8).ok_or(UrlError::Scheme)?;
    if !scheme.eq_ignore_ascii_case(b"https://") {
        return Err(UrlError::Scheme);
    }
    if rest.contains(&b'?') {
        return Err(UrlError::Query);
    }
    if rest.contains(&b'#') {
        return Err(UrlError::Fragment);
    }
    let slash = rest.iter().position(|octet| *octet == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(slash).ok_or(UrlError::EmptyPath)?;
    if authority.contains(&b'@') {
        return Err(UrlError::Userinfo);
    }
    let (host, port) = match authority.iter().position(|octet| *octet == b':') {
        Some(at) => (authority.get(..at), authority.get(at + 1..)),
        None => (Some(authority), None),
    };
    check_host(host.unwrap_or_default())?;
    if !matches!(port, None | Some(b"443" | b"8443")) {
        return Err(UrlError::Port);
    }
    if path.len() < 2 {
        return Err(UrlError::EmptyPath);
    }
    Ok(())
}

fn check_host(host: &[u8]) -> Result<(), UrlError> {
    let label_is_fine = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label
                .iter()
                .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let labels = || host.split(|octet| *octet == b'.');
    let last = labels().next_back().unwrap_or_default();
    // An address in dotted, octal or hexadecimal notation ends in a label that starts with a digit;
    // no top level domain does. IPv6 literals fail on their brackets.
    let name = host.len() <= 253
        && labels().count() >= 2
        && labels().all(label_is_fine)
        && last.first().is_some_and(u8::is_ascii_alphabetic);
    if name { Ok(()) } else { Err(UrlError::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// ST-49.
    #[test]
    fn policy() {
        for good in [
            "https://cr.example.com/a.pem",
            "https://cr.example.com:443/a.pem",
            "HTTPS://cr.example.com:8443/a/b",
            "https://x-1.y_2.co.uk./c",
            "https://1.example/c",
        ] {
            assert_eq!(check_url(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", UrlError::Scheme),
            ("http://cr.example.com/a", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("https:/cr.example.com/a", UrlError::Scheme),
            ("https://u@cr.example.com/a", UrlError::Userinfo),
            ("https://u:p@cr.example.com/a", UrlError::Userinfo),
            ("https://cr.example.com/a?", UrlError::Query),
            ("https://cr.example.com/a#", UrlError::Fragment),
            ("https://cr.example.com", UrlError::EmptyPath),
            ("https://cr.example.com/", UrlError::EmptyPath),
            ("https://cr.example.com:80/a", UrlError::Port),
            ("https://cr.example.com:/a", UrlError::Port),
            ("https://cr.example.com:0443/a", UrlError::Port),
            ("https://localhost/a", UrlError::Host),
            ("https:///a", UrlError::Host),
            ("https://127.0.0.1/a", UrlError::Host),
            ("https://127.1/a", UrlError::Host),
            ("https://2130706433/a", UrlError::Host),
            ("https://0x7f.1/a", UrlError::Host),
            ("https://0177.0.0.0x1/a", UrlError::Host),
            ("https://[::1]/a", UrlError::Host),
            ("https://[::ffff:127.0.0.1]/a", UrlError::Host),
            ("https://127.0.0.1./a", UrlError::Host),
            ("https://a..b/a", UrlError::Host),
            ("https://-a.example/a", UrlError::Host),
            ("https://a.example\\@b.example/a", UrlError::Character),
            ("https://a.example/a b", UrlError::Character),
            ("https://a.example/\r\na", UrlError::Character),
            ("https://é.example/a", UrlError::Character),
        ] {
            assert_eq!(check_url(bad.as_bytes()), Err(why), "{bad}");
        }
        let long = format!("https://a.example/{}", "a".repeat(X5U_BYTES_MAX));
        assert_eq!(check_url(long.as_bytes()), Err(UrlError::TooLong));
    }

    proptest! {
        #[test]
        fn total(url in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = check_url(&url);
        }
    }
}
