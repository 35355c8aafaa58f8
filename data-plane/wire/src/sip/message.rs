//! One whole message.

use super::addr::NameAddr;
use super::chars::{self, split};
use super::content::ContentType;
use super::date::parse_date;
use super::error::{ErrorKind, ParseError};
use super::fields::{CSeq, RAck, decimal, method};
use super::lines::{self, Index};
use super::name::{HeaderName, Method};
use super::uri::Uri;
use super::values::{Values, elements, split_commas};
use super::via::{COOKIE, Via};
use crate::limits::{
    ID_MAX_BYTES, LIST_MAX_COUNT, MESSAGE_MAX_BYTES, METHOD_MAX_BYTES, URI_MAX_BYTES, VIA_MAX_COUNT,
};

/// How the octets were delimited before they came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One UDP datagram: Content-Length may be missing, octets after the body are ignored
    /// (RFC 3261 18.3).
    Datagram,
    /// One frame of a stream, as [`crate::sip::StreamFramer`] cuts it: Content-Length is there and
    /// exact.
    Stream,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// Of a request.
    Request {
        /// Method.
        method: Method<'a>,
        /// Request-URI; passes [`Uri::parse`].
        uri: &'a [u8],
    },
    /// Of a response.
    Response {
        /// Status code, 100 to 699.
        code: u16,
        /// Reason phrase; may be empty.
        reason: &'a [u8],
    },
}

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which header it is.
    pub name: HeaderName,
    /// Its name as written.
    pub raw_name: &'a [u8],
    /// Its value, trimmed; folds may still be in it.
    pub value: &'a [u8],
}

/// A parsed and checked message. Borrows the datagram; parsing takes nothing from the heap.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    raw: &'a [u8],
    start: StartLine<'a>,
    target: Option<Uri<'a>>,
    body: &'a [u8],
    call_id: &'a [u8],
    cseq: CSeq<'a>,
    from: NameAddr<'a>,
    to: NameAddr<'a>,
    via: Via<'a>,
    via_count: usize,
    max_forwards: Option<u8>,
    contact: Option<NameAddr<'a>>,
    content: Option<ContentType<'a>>,
    index: Index,
}

/// A message that is not read yet. Not a function: what that returns would have to be moved.
macro_rules! unread {
    () => {
        Message {
            raw: &[],
            start: StartLine::Response { code: 0, reason: &[] },
            target: None,
            body: &[],
            call_id: &[],
            cseq: CSeq { number: 0, method: Method::Invite },
            from: NameAddr::EMPTY,
            to: NameAddr::EMPTY,
            via: Via::EMPTY,
            via_count: 0,
            max_forwards: None,
            contact: None,
            content: None,
            index: Index::EMPTY,
        }
    };
}

impl<'a> Message<'a> {
    /// Parses one message. Total: any octets give a message or an error.
    ///
    /// # Errors
    /// What is not a SIP message, and what the next parser could read in another way: see
    /// [`ErrorKind`].
    pub fn parse(bytes: &'a [u8], framing: Framing) -> Result<Self, ParseError> {
        let bytes = skip_line_ends(bytes);
        if bytes.is_empty() {
            return Err(ParseError::new(ErrorKind::Empty, false));
        }
        // Made and filled where the caller wants it: moving it costs as much as reading a small one.
        let mut parsed = Ok(unread!());
        if let Ok(message) = &mut parsed
            && let Err(kind) = message.read(bytes, framing)
        {
            parsed = Err(ParseError::new(kind, looks_like_request(bytes)));
        }
        parsed
    }

    /// Not read yet.
    pub(crate) const fn unread() -> Self {
        unread!()
    }

    fn read(&mut self, bytes: &'a [u8], framing: Framing) -> Result<(), ErrorKind> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(ErrorKind::TooLarge);
        }
        let (line, headers_at) = lines::start_line(bytes)?;
        self.take_start(line)?;
        let body_at = lines::scan(bytes, headers_at, &mut self.index)?;
        let mut seen = Seen::default();
        let mut at = 0;
        while let Some(entry) = self.index.entry(at) {
            self.take(entry.name, entry.value(bytes), &mut seen)?;
            at += 1;
        }
        let rest = split(bytes, body_at).1;
        self.body = match (seen.content_length, framing) {
            (None, Framing::Datagram) => rest,
            (None, Framing::Stream) => return Err(ErrorKind::ContentLengthMissing),
            (Some(length), _) => {
                let body = usize::try_from(length).ok().and_then(|n| rest.get(..n));
                let body = body.ok_or(ErrorKind::BodyTruncated)?;
                if framing == Framing::Stream && body.len() < rest.len() {
                    return Err(ErrorKind::BodyOverrun);
                }
                body
            }
        };
        self.raw = split(bytes, body_at + self.body.len()).0;
        self.check(&seen)
    }

    /// The first line.
    #[must_use]
    #[inline]
    pub const fn start(&self) -> StartLine<'a> {
        self.start
    }

    /// Method of a request.
    #[must_use]
    #[inline]
    pub const fn method(&self) -> Option<Method<'a>> {
        match self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// Request-URI of a request.
    #[must_use]
    #[inline]
    pub const fn request_uri(&self) -> Option<&'a [u8]> {
        match self.start {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    /// Request-URI of a request, split.
    #[must_use]
    #[inline]
    pub const fn target(&self) -> Option<&Uri<'a>> {
        self.target.as_ref()
    }

    /// Status code of a response.
    #[must_use]
    #[inline]
    pub const fn code(&self) -> Option<u16> {
        match self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { code, .. } => Some(code),
        }
    }

    /// Every header line, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + '_ {
        self.index.entries().iter().map(|entry| Header {
            name: entry.name,
            raw_name: entry.raw_name(self.raw),
            value: entry.value(self.raw),
        })
    }

    /// Value of the first line of header `name`, whole.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&'a [u8]> {
        let entry = self.index.entries().iter().find(|entry| entry.name == name)?;
        Some(entry.value(self.raw))
    }

    /// Every value of header `name` over all its lines, split at commas where a comma separates.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.index
            .entries()
            .iter()
            .filter(move |entry| entry.name == name)
            .flat_map(move |entry| Values::new(entry.value(self.raw), name.is_list()))
    }

    /// Whether the list header `name` holds `token` (any case): option tags, methods.
    #[must_use]
    pub fn lists(&self, name: HeaderName, token: &[u8]) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// Call-ID.
    #[must_use]
    #[inline]
    pub const fn call_id(&self) -> &'a [u8] {
        self.call_id
    }

    /// CSeq; its method is that of the request line in a request.
    #[must_use]
    #[inline]
    pub const fn cseq(&self) -> CSeq<'a> {
        self.cseq
    }

    /// From.
    #[must_use]
    #[inline]
    pub const fn from(&self) -> NameAddr<'a> {
        self.from
    }

    /// To.
    #[must_use]
    #[inline]
    pub const fn to(&self) -> NameAddr<'a> {
        self.to
    }

    /// The first Contact that is an address; `None` if there is none, or `*` alone.
    #[must_use]
    #[inline]
    pub const fn contact(&self) -> Option<NameAddr<'a>> {
        self.contact
    }

    /// The topmost Via.
    #[must_use]
    #[inline]
    pub const fn top_via(&self) -> Via<'a> {
        self.via
    }

    /// Number of Via values.
    #[must_use]
    #[inline]
    pub const fn via_count(&self) -> usize {
        self.via_count
    }

    /// Max-Forwards; an RFC 2543 element sends none.
    #[must_use]
    #[inline]
    pub const fn max_forwards(&self) -> Option<u8> {
        self.max_forwards
    }

    /// The body, octet-exact.
    #[must_use]
    #[inline]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Value of Content-Type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.header(HeaderName::ContentType)
    }

    /// Content-Type, split.
    #[must_use]
    #[inline]
    pub const fn content(&self) -> Option<ContentType<'a>> {
        self.content
    }

    /// The message from start line to last body octet, without what stood around it.
    #[must_use]
    #[inline]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// What is known of the header lines while they are gathered, besides what the message keeps.
#[derive(Default)]
pub(crate) struct Seen {
    /// Singletons that were there: one bit for each name.
    names: u128,
    contacts: usize,
    /// One of them is `*`.
    any_contact: bool,
    content_length: Option<u64>,
}

impl Seen {
    const fn has(&self, name: HeaderName) -> bool {
        self.names & bit(name) != 0
    }
}

const fn bit(name: HeaderName) -> u128 {
    1 << (name as u8)
}

// One bit for each name.
const _: () = assert!(HeaderName::ALL.len() < 128);

impl<'a> Message<'a> {
    /// Takes the first line.
    pub(crate) fn take_start(&mut self, line: &'a [u8]) -> Result<(), ErrorKind> {
        self.start = parse_start(line, &mut self.target)?;
        Ok(())
    }

    /// Takes a header line; an error leaves what it said half taken.
    pub(crate) fn take(
        &mut self,
        name: HeaderName,
        value: &'a [u8],
        seen: &mut Seen,
    ) -> Result<(), ErrorKind> {
        if name.is_singleton() {
            if seen.has(name) {
                return Err(ErrorKind::DuplicateHeader);
            }
            seen.names |= bit(name);
        }
        match name {
            HeaderName::Via => self.take_via(value)?,
            HeaderName::From => {
                NameAddr::parse_to(value, &mut self.from).ok_or(ErrorKind::From)?;
                check_party(&self.from, ErrorKind::From)?;
            }
            HeaderName::To => {
                NameAddr::parse_to(value, &mut self.to).ok_or(ErrorKind::To)?;
                check_party(&self.to, ErrorKind::To)?;
            }
            HeaderName::CallId => self.call_id = check_call_id(value)?,
            HeaderName::CSeq => self.cseq = CSeq::parse(value).ok_or(ErrorKind::CSeq)?,
            HeaderName::MaxForwards => {
                let hops = decimal(value).and_then(|n| u8::try_from(n).ok());
                self.max_forwards = Some(hops.ok_or(ErrorKind::MaxForwards)?);
            }
            HeaderName::ContentLength => {
                seen.content_length = Some(decimal(value).ok_or(ErrorKind::ContentLength)?);
            }
            HeaderName::ContentType => {
                self.content = Some(ContentType::parse(value).ok_or(ErrorKind::ContentType)?);
            }
            HeaderName::Contact => self.take_contact(value, seen)?,
            HeaderName::Route => check_addresses(value, ErrorKind::Route)?,
            HeaderName::RecordRoute => check_addresses(value, ErrorKind::RecordRoute)?,
            HeaderName::PAssertedIdentity | HeaderName::PPreferredIdentity => {
                check_addresses(value, ErrorKind::AssertedIdentity)?;
            }
            HeaderName::ReferTo => {
                NameAddr::parse(value).ok_or(ErrorKind::ReferTo)?;
            }
            HeaderName::RSeq => {
                let number = decimal(value).and_then(|n| u32::try_from(n).ok());
                number.filter(|&n| n > 0).ok_or(ErrorKind::RSeq)?;
            }
            HeaderName::RAck => {
                RAck::parse(value).ok_or(ErrorKind::RAck)?;
            }
            HeaderName::Date => {
                parse_date(value).ok_or(ErrorKind::Date)?;
            }
            HeaderName::Require | HeaderName::ProxyRequire => check_tokens(value)?,
            _ => {}
        }
        Ok(())
    }

    fn take_via(&mut self, value: &'a [u8]) -> Result<(), ErrorKind> {
        for element in elements(value) {
            self.via_count += 1;
            if self.via_count > VIA_MAX_COUNT {
                return Err(ErrorKind::TooManyVias);
            }
            if self.via_count > 1 {
                Via::parse(element).ok_or(ErrorKind::Via)?;
                continue;
            }
            Via::parse_to(element, &mut self.via).ok_or(ErrorKind::Via)?;
            match self.via.branch {
                Some(branch) if branch.len() > ID_MAX_BYTES => return Err(ErrorKind::IdTooLong),
                Some(branch) if branch.eq_ignore_ascii_case(COOKIE) => {
                    return Err(ErrorKind::Branch);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_contact(&mut self, value: &'a [u8], seen: &mut Seen) -> Result<(), ErrorKind> {
        for element in elements(value) {
            seen.contacts += 1;
            if seen.contacts > LIST_MAX_COUNT {
                return Err(ErrorKind::Contact);
            }
            if element == b"*"
                && matches!(self.start, StartLine::Request { method: Method::Register, .. })
            {
                seen.any_contact = true;
                continue;
            }
            let contact = NameAddr::parse(element).ok_or(ErrorKind::Contact)?;
            self.contact.get_or_insert(contact);
        }
        Ok(())
    }

    /// What can be said once every header line has been seen.
    fn check(&self, seen: &Seen) -> Result<(), ErrorKind> {
        if self.via_count == 0 {
            return Err(ErrorKind::MissingVia);
        }
        for (name, missing) in [
            (HeaderName::From, ErrorKind::MissingFrom),
            (HeaderName::To, ErrorKind::MissingTo),
            (HeaderName::CallId, ErrorKind::MissingCallId),
            (HeaderName::CSeq, ErrorKind::MissingCSeq),
        ] {
            if !seen.has(name) {
                return Err(missing);
            }
        }
        if let StartLine::Request { method, .. } = self.start
            && self.cseq.method != method
        {
            let unknown = method.is_other();
            return Err(if unknown { ErrorKind::CSeqMethodUnknown } else { ErrorKind::CSeqMethod });
        }
        if seen.contacts > 1 {
            if is_one_contact(self.start, self.cseq.method) {
                return Err(ErrorKind::ContactCount);
            }
            // `*` stands alone (RFC 3261 25.1, 10.2.2).
            if seen.any_contact {
                return Err(ErrorKind::Contact);
            }
        }
        Ok(())
    }
}

/// Whether Contact is the remote target of a dialog, of which there is one (RFC 3261 8.1.1.8,
/// 12.1.1): dialog requests, their provisional and 2xx responses. 3xx and REGISTER list many.
const fn is_one_contact(start: StartLine<'_>, method: Method<'_>) -> bool {
    let dialog = matches!(
        method,
        Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer
    );
    match start {
        StartLine::Request { .. } => dialog,
        StartLine::Response { code, .. } => dialog && code < 300,
    }
}

/// From or To: an address whose tag is no quoted string and not too long.
fn check_party(party: &NameAddr<'_>, kind: ErrorKind) -> Result<(), ErrorKind> {
    match party.tag() {
        Some(tag) if tag.first() == Some(&b'"') => Err(kind),
        Some(tag) if tag.len() > ID_MAX_BYTES => Err(ErrorKind::IdTooLong),
        _ => Ok(()),
    }
}

/// RFC 3261 `callid`, widened to all printable ASCII that separates nothing.
fn check_call_id(value: &[u8]) -> Result<&[u8], ErrorKind> {
    if value.len() > ID_MAX_BYTES {
        return Err(ErrorKind::IdTooLong);
    }
    let ok = |c: &u8| c.is_ascii_graphic() && !matches!(c, b',' | b';');
    // Nearly all consist of what a parameter value may hold, which is quicker to see.
    let plain = !value.is_empty() && chars::span(value, chars::VALUE) == value.len();
    if !plain && (value.is_empty() || !value.iter().all(ok)) {
        return Err(ErrorKind::CallId);
    }
    Ok(value)
}

fn check_addresses(value: &[u8], kind: ErrorKind) -> Result<(), ErrorKind> {
    for (count, element) in elements(value).enumerate() {
        if count >= LIST_MAX_COUNT || NameAddr::parse(element).is_none() {
            return Err(kind);
        }
    }
    Ok(())
}

/// Option tags that decide whether the request is understood. Empty elements mean nothing.
fn check_tokens(value: &[u8]) -> Result<(), ErrorKind> {
    let ok = split_commas(value).all(|token| chars::all(token, chars::TOKEN));
    if ok { Ok(()) } else { Err(ErrorKind::TokenList) }
}

/// RFC 3261 7.5: line ends before the start line are ignored.
pub(crate) fn skip_line_ends(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes;
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

/// Whether an error may be answered: the first word is a method other than ACK.
pub(crate) fn looks_like_request(bytes: &[u8]) -> bool {
    let (method, rest) = split(bytes, chars::run(bytes, chars::TOKEN));
    !method.is_empty() && rest.first() == Some(&b' ') && method != b"ACK"
}

/// The Request-URI goes to `target`, where it stays.
fn parse_start<'a>(
    line: &'a [u8],
    target: &mut Option<Uri<'a>>,
) -> Result<StartLine<'a>, ErrorKind> {
    match line.first_chunk::<4>() {
        Some(head) if head.eq_ignore_ascii_case(b"SIP/") => parse_status_line(line),
        _ => parse_request_line(line, target),
    }
}

fn parse_status_line(line: &[u8]) -> Result<StartLine<'_>, ErrorKind> {
    let space = chars::find(line, b' ').ok_or(ErrorKind::StartLine)?;
    let (version, rest) = split(line, space);
    check_version(version)?;
    let rest = rest.get(1..).unwrap_or_default();
    // The space after the code may be missing with the phrase; nothing is ambiguous then.
    let end = chars::find(rest, b' ').unwrap_or(rest.len());
    let (digits, reason) = split(rest, end);
    let code = decimal(digits).filter(|_| digits.len() == 3).and_then(|n| u16::try_from(n).ok());
    let code = code.filter(|code| (100..700).contains(code)).ok_or(ErrorKind::StatusCode)?;
    Ok(StartLine::Response { code, reason: reason.get(1..).unwrap_or_default() })
}

fn parse_request_line<'a>(
    line: &'a [u8],
    target: &mut Option<Uri<'a>>,
) -> Result<StartLine<'a>, ErrorKind> {
    let first = chars::find(line, b' ').ok_or(ErrorKind::StartLine)?;
    let last = memchr::memrchr(b' ', line).ok_or(ErrorKind::StartLine)?;
    let name = line.get(..first).unwrap_or_default();
    let uri = line.get(first + 1..last).ok_or(ErrorKind::StartLine)?;
    let version = line.get(last + 1..).unwrap_or_default();
    if name.len() > METHOD_MAX_BYTES {
        return Err(ErrorKind::Method);
    }
    let method = method(name).ok_or(ErrorKind::Method)?;
    check_version(version)?;
    if uri.len() > URI_MAX_BYTES {
        return Err(ErrorKind::RequestUriTooLong);
    }
    *target = Uri::parse(uri);
    let parsed = target.as_ref().ok_or(ErrorKind::RequestUri)?;
    // RFC 3261 19.1.1: headers do not belong here, and must never become real ones.
    if !parsed.headers.is_empty() {
        return Err(ErrorKind::RequestUriHeaders);
    }
    Ok(StartLine::Request { method, uri })
}

/// `SIP/2.0`, any case; another number is 505, another word a broken line.
fn check_version(version: &[u8]) -> Result<(), ErrorKind> {
    if version == b"SIP/2.0" {
        return Ok(());
    }
    let number = match version.split_first_chunk::<4>() {
        Some((name, number)) if name.eq_ignore_ascii_case(b"SIP/") => number,
        _ => return Err(ErrorKind::StartLine),
    };
    if number == b"2.0" {
        return Ok(());
    }
    let mut parts = number.splitn(2, |&c| c == b'.');
    let digits = |part: Option<&[u8]>| {
        part.is_some_and(|p| !p.is_empty() && p.iter().all(u8::is_ascii_digit))
    };
    if digits(parts.next()) && digits(parts.next()) {
        Err(ErrorKind::Version)
    } else {
        Err(ErrorKind::StartLine)
    }
}
