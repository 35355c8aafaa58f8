//! What kind of call a Request-URI asks for (EM-9..EM-16).
//!
//! Exact: a number is an emergency number or it is not; no suffix, prefix or substring counts
//! (EM-10). Total on arbitrary bytes, allocation-free, linear in the length of the user part and
//! bounded by [`NUMBER_MAX`] for numbers (EM-16).

mod country;
#[cfg(test)]
mod tests;

pub(crate) use country::Country;

/// Kind of call. Decided once, at ingress, before any limit, ban or route (EM-66).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes to a PSAP.
    Emergency(Service),
    /// 933: reads back the registered address, never reaches a PSAP.
    TestAddress,
    /// `urn:service:test.sos*` (RFC 6881 section 15).
    TestSos,
    /// 988 and the like: an ordinary call that no policy blocks.
    Crisis,
    /// Everything else.
    None,
}

/// Emergency service asked for (RFC 5031 and its registry). An unknown label counts as its nearest
/// known ancestor, at worst `Sos` (EM-12); the URI that is forwarded stays unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Sos,
    Ambulance,
    AnimalControl,
    Fire,
    Gas,
    Marine,
    Mountain,
    Physician,
    Poison,
    Police,
    CountrySpecific,
    EcallManual,
    EcallAutomatic,
}

impl Class {
    /// The name that `explain`, CDRs and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emergency(_) => "emergency",
            Self::TestAddress => "test_address",
            Self::TestSos => "test_sos",
            Self::Crisis => "crisis",
            Self::None => "none",
        }
    }
}

/// Longest dial string that can be an emergency number, outside prefix included, in digits.
pub(crate) const NUMBER_MAX: usize = 12;

/// Digits of an outside prefix.
pub(crate) const OUTSIDE_PREFIX_MAX: usize = 4;

/// What counts as an emergency number in one realm.
#[derive(Clone, Debug)]
pub(crate) struct ClassTable {
    country: &'static Country,
    /// Numbers that the document adds to those of the country.
    extra: Box<[Box<[u8]>]>,
    outside_prefix: Box<[u8]>,
}

impl ClassTable {
    /// `extra` and `outside_prefix` hold digits only.
    pub(crate) fn new(country: &'static Country, extra: &[String], outside_prefix: &str) -> Self {
        Self {
            country,
            extra: extra.iter().map(|n| n.as_bytes().into()).collect(),
            outside_prefix: outside_prefix.as_bytes().into(),
        }
    }

    /// Every emergency number, without outside prefix.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = &[u8]> {
        let country = self.country.emergency.iter().map(|(number, _)| number.as_bytes());
        country.chain(self.extra.iter().map(|number| &**number))
    }

    /// Every dial string of class emergency, with and without outside prefix.
    pub(crate) fn dial_strings(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.numbers().flat_map(|number| {
            let with_prefix =
                (!self.outside_prefix.is_empty()).then(|| [&*self.outside_prefix, number].concat());
            [Some(number.to_vec()), with_prefix].into_iter().flatten()
        })
    }

    pub(crate) fn classify(&self, uri: &[u8]) -> Class {
        match Scheme::split(uri) {
            (Some(Scheme::Urn), rest) => classify_urn(rest),
            (Some(scheme), rest) => match scheme.user(rest).map(Digits::of_user) {
                Some(Some(digits)) => self.classify_number(digits.as_slice()),
                Some(None) | None => Class::None,
            },
            (None, _) => Class::None,
        }
    }

    fn classify_number(&self, digits: &[u8]) -> Class {
        if let Some(service) = self.emergency_service(digits) {
            return Class::Emergency(service);
        }
        // The outside prefix counts only if exactly an emergency number is left.
        if !self.outside_prefix.is_empty()
            && let Some(rest) = digits.strip_prefix(&*self.outside_prefix)
            && let Some(service) = self.emergency_service(rest)
        {
            return Class::Emergency(service);
        }
        if self.country.address_test.is_some_and(|number| number.as_bytes() == digits) {
            return Class::TestAddress;
        }
        if self.country.crisis.is_some_and(|number| number.as_bytes() == digits) {
            return Class::Crisis;
        }
        Class::None
    }

    fn emergency_service(&self, digits: &[u8]) -> Option<Service> {
        let of_country = |(number, _): &&(&str, Service)| number.as_bytes() == digits;
        if let Some((_, service)) = self.country.emergency.iter().find(of_country) {
            return Some(*service);
        }
        self.extra.iter().any(|number| **number == *digits).then_some(Service::Sos)
    }
}

/// URI schemes that can carry an emergency call.
#[derive(Clone, Copy)]
enum Scheme {
    Sip,
    Tel,
    Urn,
}

impl Scheme {
    /// The scheme, if it is one of ours, and what follows the colon.
    fn split(uri: &[u8]) -> (Option<Self>, &[u8]) {
        let Some(colon) = uri.iter().position(|&byte| byte == b':') else {
            return (None, uri);
        };
        let (name, rest) = uri.split_at(colon);
        let rest = rest.get(1..).unwrap_or_default();
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let scheme = if is(b"sip") || is(b"sips") {
            Some(Self::Sip)
        } else if is(b"tel") {
            Some(Self::Tel)
        } else if is(b"urn") {
            Some(Self::Urn)
        } else {
            None
        };
        (scheme, rest)
    }

    /// The user part: the number with its parameters, without password.
    fn user(self, rest: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Tel => Some(rest),
            Self::Sip => {
                let at = rest.iter().position(|&byte| byte == b'@')?;
                let userinfo = rest.get(..at)?;
                userinfo.split(|&byte| byte == b':').next()
            }
            Self::Urn => None,
        }
    }
}

/// The user part as EM-10 wants it: percent-decoded once, without what follows a semicolon, without
/// visual separators.
pub(crate) fn normalised(user: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = user;
    let decoded = std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if first == b'%'
            && let Some((digits, behind)) = after.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (hex(digits[0]), hex(digits[1]))
        {
            rest = behind;
            return Some(high << 4 | low);
        }
        rest = after;
        Some(first)
    });
    decoded
        .take_while(|&byte| byte != b';')
        .filter(|byte| !matches!(byte, b'-' | b'.' | b'(' | b')' | b' '))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A dial string of digits only, short enough to be an emergency number.
struct Digits {
    digits: [u8; NUMBER_MAX],
    len: usize,
}

impl Digits {
    /// `None` if anything but digits is left, or too many of them.
    fn of_user(user: &[u8]) -> Option<Self> {
        let mut number = Self { digits: [0; NUMBER_MAX], len: 0 };
        let mut plus_allowed = true;
        for byte in normalised(user) {
            match byte {
                b'+' if plus_allowed => {}
                b'0'..=b'9' => {
                    *number.digits.get_mut(number.len)? = byte;
                    number.len += 1;
                }
                _ => return None,
            }
            plus_allowed = false;
        }
        Some(number)
    }

    fn as_slice(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }
}

/// `rest` is what follows `urn:`. Compared without case (RFC 5031 section 4.2).
fn classify_urn(rest: &[u8]) -> Class {
    const NAMESPACE: &[u8] = b"service:";
    let Some((namespace, service)) = rest.split_at_checked(NAMESPACE.len()) else {
        return Class::None;
    };
    if !namespace.eq_ignore_ascii_case(NAMESPACE) {
        return Class::None;
    }
    // r-, q- and f-components (RFC 8141) are not part of the name.
    let name = service.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let mut labels = name.split(|&byte| byte == b'.');
    let is = |label: Option<&[u8]>, known: &[u8]| {
        label.is_some_and(|label| label.eq_ignore_ascii_case(known))
    };
    let top = labels.next();
    if is(top, b"sos") {
        Class::Emergency(sos_service(labels.next(), labels.next()))
    } else if is(top, b"test") && is(labels.next(), b"sos") {
        Class::TestSos
    } else if is(top, b"counseling") && is(labels.next(), b"suicide") {
        Class::Crisis
    } else {
        Class::None
    }
}

/// The service of `sos.SECOND.THIRD`; unknown labels fall away from the right (EM-12).
fn sos_service(second: Option<&[u8]>, third: Option<&[u8]>) -> Service {
    const SERVICES: [(&[u8], Service); 10] = [
        (b"ambulance", Service::Ambulance),
        (b"animal-control", Service::AnimalControl),
        (b"fire", Service::Fire),
        (b"gas", Service::Gas),
        (b"marine", Service::Marine),
        (b"mountain", Service::Mountain),
        (b"physician", Service::Physician),
        (b"poison", Service::Poison),
        (b"police", Service::Police),
        (b"country-specific", Service::CountrySpecific),
    ];
    let Some(second) = second else { return Service::Sos };
    if second.eq_ignore_ascii_case(b"ecall") {
        return match third {
            Some(third) if third.eq_ignore_ascii_case(b"manual") => Service::EcallManual,
            Some(third) if third.eq_ignore_ascii_case(b"automatic") => Service::EcallAutomatic,
            _ => Service::Sos,
        };
    }
    let known = SERVICES.iter().find(|(label, _)| second.eq_ignore_ascii_case(label));
    known.map_or(Service::Sos, |(_, service)| *service)
}

/// True for everything that might mean an emergency call: the superset that the test guard blocks
/// in test mode (E6, E7). Takes a URI or a bare number, from the Request-URI or from To. Never used
/// in production, neither for routing nor for alarms.
#[must_use]
pub fn guard_matches(uri: &[u8]) -> bool {
    let uri = uri.trim_ascii();
    let (scheme, rest) = Scheme::split(uri);
    match scheme {
        Some(Scheme::Urn) => matches!(classify_urn(rest), Class::Emergency(_)),
        Some(scheme) => {
            // `sip:911` has a host and no user; in a test it may as well be blocked.
            let user = scheme.user(rest).unwrap_or(rest);
            guard_matches_number(user)
        }
        None => guard_matches_number(uri),
    }
}

/// Anything dialable that ends in 911, and the emergency numbers of every country that ships.
fn guard_matches_number(user: &[u8]) -> bool {
    let mut tail = [0_u8; 3];
    let mut plus_allowed = true;
    for byte in normalised(user).filter(|byte| !byte.is_ascii_whitespace()) {
        match byte {
            b'+' if plus_allowed => {}
            b'0'..=b'9' | b'*' | b'#' => tail = [tail[1], tail[2], byte],
            _ => return false,
        }
        plus_allowed = false;
    }
    if tail == *b"911" {
        return true;
    }
    let Some(digits) = Digits::of_user(user) else { return false };
    country::ALL
        .iter()
        .flat_map(|country| country.emergency)
        .any(|(number, _)| number.as_bytes() == digits.as_slice())
}
