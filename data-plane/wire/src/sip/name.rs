//! Header names and methods.

use std::fmt;

use wide::u8x16;

/// Declares the known headers: variant, name as written, compact form or 0.
macro_rules! headers {
    ($( $variant:ident = $text:literal $(/ $compact:literal)?; )+) => {
        /// A known header, whatever its case or form on the wire, or `Other`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)] // the names are the documentation
        pub enum HeaderName { $( $variant, )+ #[default] Other }

        const NAMES: &[(&str, HeaderName)] = &[
            $( ($text, HeaderName::$variant), )+
            $( $( ($compact, HeaderName::$variant), )? )+
        ];

        impl HeaderName {
            /// Every known header.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The full name as it is written; empty for `Other`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ Self::Other => "" }
            }
        }
    };
}

headers! {
    Accept = "Accept";
    AcceptContact = "Accept-Contact" / "a";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AlertInfo = "Alert-Info";
    Allow = "Allow";
    AllowEvents = "Allow-Events" / "u";
    AuthenticationInfo = "Authentication-Info";
    Authorization = "Authorization";
    CallId = "Call-ID" / "i";
    CallInfo = "Call-Info";
    Contact = "Contact" / "m";
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding" / "e";
    ContentId = "Content-ID";
    ContentLanguage = "Content-Language";
    ContentLength = "Content-Length" / "l";
    ContentType = "Content-Type" / "c";
    CSeq = "CSeq";
    Date = "Date";
    Diversion = "Diversion";
    ErrorInfo = "Error-Info";
    Event = "Event" / "o";
    Expires = "Expires";
    From = "From" / "f";
    Geolocation = "Geolocation";
    GeolocationError = "Geolocation-Error";
    GeolocationRouting = "Geolocation-Routing";
    HistoryInfo = "History-Info";
    Identity = "Identity" / "y";
    IdentityInfo = "Identity-Info" / "n";
    InReplyTo = "In-Reply-To";
    Join = "Join";
    MaxForwards = "Max-Forwards";
    MimeVersion = "MIME-Version";
    MinExpires = "Min-Expires";
    MinSe = "Min-SE";
    Organization = "Organization";
    PAccessNetworkInfo = "P-Access-Network-Info";
    PAssertedIdentity = "P-Asserted-Identity";
    Path = "Path";
    PChargingVector = "P-Charging-Vector";
    PEarlyMedia = "P-Early-Media";
    PPreferredIdentity = "P-Preferred-Identity";
    Priority = "Priority";
    Privacy = "Privacy";
    ProxyAuthenticate = "Proxy-Authenticate";
    ProxyAuthorization = "Proxy-Authorization";
    ProxyRequire = "Proxy-Require";
    RAck = "RAck";
    Reason = "Reason";
    RecordRoute = "Record-Route";
    ReferSub = "Refer-Sub";
    ReferTo = "Refer-To" / "r";
    ReferredBy = "Referred-By" / "b";
    RejectContact = "Reject-Contact" / "j";
    Replaces = "Replaces";
    ReplyTo = "Reply-To";
    RequestDisposition = "Request-Disposition" / "d";
    Require = "Require";
    ResourcePriority = "Resource-Priority";
    RetryAfter = "Retry-After";
    Route = "Route";
    RSeq = "RSeq";
    Server = "Server";
    ServiceRoute = "Service-Route";
    SessionExpires = "Session-Expires" / "x";
    SessionId = "Session-ID";
    Subject = "Subject" / "s";
    SubscriptionState = "Subscription-State";
    Supported = "Supported" / "k";
    Timestamp = "Timestamp";
    To = "To" / "t";
    Unsupported = "Unsupported";
    UserAgent = "User-Agent";
    UserToUser = "User-to-User";
    Via = "Via" / "v";
    Warning = "Warning";
    WwwAuthenticate = "WWW-Authenticate";
}

/// Longest known name, and room to read it in whole blocks.
const NAME_ROOM: usize = 32;

/// [`NAMES`] in lower case, filled up with zeros.
const LOWER: [[u8; NAME_ROOM]; NAMES.len()] = lower();

#[allow(clippy::indexing_slicing)] // runs in the compiler
const fn lower() -> [[u8; NAME_ROOM]; NAMES.len()] {
    let mut table = [[0; NAME_ROOM]; NAMES.len()];
    let mut at = 0;
    while at < NAMES.len() {
        let name = NAMES[at].0.as_bytes();
        let mut i = 0;
        while i < name.len() {
            // What `at_start` relies on: in these, one bit is all that case can change.
            assert!(name[i].is_ascii_alphabetic() || name[i] == b'-');
            table[at][i] = name[i].to_ascii_lowercase();
            i += 1;
        }
        at += 1;
    }
    table
}

/// Open-addressed table over [`NAMES`], built by the compiler.
const SLOTS: usize = 512;
const TABLE: [u8; SLOTS] = build();

#[allow(clippy::indexing_slicing)] // half of a length that is not zero is below it
const fn hash(name: &[u8]) -> usize {
    // Length, both ends and the middle tell the known names apart well enough.
    let n = name.len();
    let ([first, ..], [.., last]) = (name, name) else { return 0 };
    let first = (*first | 0x20) as usize;
    let last = (*last | 0x20) as usize;
    let middle = (name[n / 2] | 0x20) as usize;
    (first * 7 + last * 31 + middle * 113 + n * 59) % SLOTS
}

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // runs in the compiler
const fn build() -> [u8; SLOTS] {
    let mut table = [u8::MAX; SLOTS];
    let mut i = 0;
    while i < NAMES.len() {
        let mut slot = hash(NAMES[i].0.as_bytes());
        while table[slot] != u8::MAX {
            slot = (slot + 1) % SLOTS;
        }
        assert!(i < u8::MAX as usize);
        table[slot] = i as u8;
        i += 1;
    }
    table
}

impl HeaderName {
    /// The header that `name` (full or compact, any case) stands for.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let mut slot = hash(name);
        // Ends at the first free slot; the table is never full.
        while let Some(&index) = TABLE.get(slot) {
            let Some((text, header)) = NAMES.get(usize::from(index)) else { break };
            if text.as_bytes() == name || text.as_bytes().eq_ignore_ascii_case(name) {
                return *header;
            }
            slot = (slot + 1) % SLOTS;
        }
        Self::Other
    }

    /// The known header whose name (full or compact, any case) the first `len` octets of `text` are.
    /// They hold no control character.
    #[inline]
    pub(crate) fn at_start(text: &[u8], len: usize) -> Option<Self> {
        let name = text.get(..len)?;
        let (first, second) = match text.first_chunk::<NAME_ROOM>() {
            Some(room) if len <= NAME_ROOM => room.split_at(NAME_ROOM / 2),
            _ => return Some(Self::of(name)).filter(|name| *name != Self::Other),
        };
        let (first, second) = (first.first_chunk::<16>()?, second.first_chunk::<16>()?);
        let mut slot = hash(name);
        while let Some(&index) = TABLE.get(slot) {
            let index = usize::from(index);
            let Some((text, header)) = NAMES.get(index) else { break };
            if text.len() == len {
                let (low, high) = LOWER.get(index)?.split_at(NAME_ROOM / 2);
                let same = |octets: &[u8; 16], lower: &[u8], len: usize| {
                    let lower = lower.first_chunk::<16>().copied().unwrap_or_default();
                    // Among visible ASCII nothing but the two cases of a letter, and the hyphen,
                    // becomes what the table holds.
                    let folded = u8x16::new(*octets) | u8x16::splat(0x20);
                    let equal = folded.simd_eq(u8x16::new(lower)).to_bitmask();
                    equal.trailing_ones() as usize >= len
                };
                if same(first, low, len.min(16)) && same(second, high, len.saturating_sub(16)) {
                    return Some(*header);
                }
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// Whether a message may carry this header only once, and only one value in it. Headers whose
    /// repetition could only confuse a display (User-Agent, Subject ...) are not in the list.
    #[must_use]
    pub const fn is_singleton(self) -> bool {
        matches!(
            self,
            Self::CallId
                | Self::ContentDisposition
                | Self::ContentId
                | Self::ContentLength
                | Self::ContentType
                | Self::CSeq
                | Self::Date
                | Self::Event
                | Self::Expires
                | Self::From
                | Self::GeolocationRouting
                | Self::Join
                | Self::MaxForwards
                | Self::MinExpires
                | Self::MinSe
                | Self::PChargingVector
                | Self::Priority
                | Self::Privacy
                | Self::RAck
                | Self::ReferSub
                | Self::ReferTo
                | Self::ReferredBy
                | Self::Replaces
                | Self::ReplyTo
                | Self::RetryAfter
                | Self::RSeq
                | Self::SessionExpires
                | Self::SessionId
                | Self::SubscriptionState
                | Self::To
        )
    }

    /// Whether a comma in the value separates values (RFC 3261 7.3.1). Not so for singletons, free
    /// text and the credentials headers, where a comma is part of the value.
    #[must_use]
    pub const fn is_list(self) -> bool {
        !self.is_singleton()
            && !matches!(
                self,
                Self::AuthenticationInfo
                    | Self::Authorization
                    | Self::MimeVersion
                    | Self::Organization
                    | Self::ProxyAuthenticate
                    | Self::ProxyAuthorization
                    | Self::Server
                    | Self::Subject
                    | Self::Timestamp
                    | Self::UserAgent
                    | Self::WwwAuthenticate
                    | Self::Other
            )
    }

    /// Whether the value is a name-addr, or a list of them, that parsing checks.
    pub(crate) const fn is_address(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::Contact
                | Self::Route
                | Self::RecordRoute
                | Self::PAssertedIdentity
                | Self::PPreferredIdentity
                | Self::ReferTo
        )
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares the known methods.
macro_rules! methods {
    ($( $variant:ident = $text:literal; )+) => {
        /// A request method. Case counts (RFC 3261 7.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the names are the documentation
        pub enum Method<'a> { $( $variant, )+ Other(&'a [u8]) }

        impl<'a> Method<'a> {
            /// The known methods.
            pub const KNOWN: &'static [Method<'static>] = &[$(Method::$variant,)+];

            /// The method that `token` names. Does not check that it is a token.
            #[must_use]
            #[inline]
            pub fn of(token: &'a [u8]) -> Self {
                $( if token == $text.as_bytes() { return Self::$variant; } )+
                Self::Other(token)
            }

            /// As on the wire.
            #[must_use]
            pub const fn as_bytes(self) -> &'a [u8] {
                match self { $(Self::$variant => $text.as_bytes(),)+ Self::Other(token) => token }
            }
        }
    };
}

methods! {
    Invite = "INVITE";
    Ack = "ACK";
    Bye = "BYE";
    Cancel = "CANCEL";
    Options = "OPTIONS";
    Register = "REGISTER";
    Prack = "PRACK";
    Update = "UPDATE";
    Info = "INFO";
    Message = "MESSAGE";
    Refer = "REFER";
    Subscribe = "SUBSCRIBE";
    Notify = "NOTIFY";
    Publish = "PUBLISH";
}

impl Method<'_> {
    /// Whether this is none of the known methods.
    #[must_use]
    pub const fn is_other(self) -> bool {
        matches!(self, Self::Other(_))
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token, so ASCII.
        self.as_bytes().iter().try_for_each(|&c| fmt::Write::write_char(f, char::from(c)))
    }
}
