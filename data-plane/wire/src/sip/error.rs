//! Why a message is refused.

/// Declares the reasons once: variant, status, stable text.
macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident => $status:literal, $text:literal; )+) => {
        /// Every reason for which a message is refused. Closed: each is a metric label and a test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $( $(#[$doc])* $variant, )+ }

        impl ErrorKind {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Status code of an answer, where the message is a request and can be answered.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Stable text, fit for a log, a label and a reason phrase.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

kinds! {
    /// No octets, or only line ends.
    Empty => 400, "empty message";
    /// Longer than [`crate::limits::MESSAGE_MAX_BYTES`].
    TooLarge => 513, "message too large";
    /// Not `METHOD SP URI SP SIP/2.0` or `SIP/2.0 SP CODE SP PHRASE` (RFC 3261 7.1, 7.2).
    StartLine => 400, "malformed start line";
    /// A SIP version other than 2.0.
    Version => 505, "unsupported SIP version";
    /// The method is no token, or longer than [`crate::limits::METHOD_MAX_BYTES`].
    Method => 400, "malformed method";
    /// The status code is not three digits from 100 to 699.
    StatusCode => 400, "malformed status code";
    /// The Request-URI breaks its grammar.
    RequestUri => 400, "malformed Request-URI";
    /// The Request-URI is longer than [`crate::limits::URI_MAX_BYTES`].
    RequestUriTooLong => 414, "Request-URI too long";
    /// The Request-URI carries escaped headers (RFC 3261 19.1.1).
    RequestUriHeaders => 400, "headers in Request-URI";
    /// The empty line after the headers is missing.
    HeadersUnterminated => 400, "no empty line after headers";
    /// A CR without LF, or an LF without CR, in the start line or the headers.
    BareLineEnd => 400, "bare CR or LF in headers";
    /// A control character outside an escape in a quoted string.
    ControlCharacter => 400, "control character in headers";
    /// The headers are not UTF-8 (RFC 3629; overlong forms are not).
    NotUtf8 => 400, "headers are not UTF-8";
    /// A header line without a colon, or a name that is no token.
    HeaderName => 400, "malformed header name";
    /// A header name longer than [`crate::limits::HEADER_NAME_MAX_BYTES`].
    HeaderNameTooLong => 400, "header name too long";
    /// A header line longer than [`crate::limits::HEADER_LINE_MAX_BYTES`].
    HeaderTooLong => 400, "header line too long";
    /// More than [`crate::limits::HEADER_MAX_COUNT`] header lines.
    TooManyHeaders => 400, "too many headers";
    /// A header that may stand once stands twice.
    DuplicateHeader => 400, "duplicate single-value header";
    /// No Via.
    MissingVia => 400, "Via missing";
    /// No From.
    MissingFrom => 400, "From missing";
    /// No To.
    MissingTo => 400, "To missing";
    /// No Call-ID.
    MissingCallId => 400, "Call-ID missing";
    /// No CSeq.
    MissingCSeq => 400, "CSeq missing";
    /// A Via value breaks its grammar.
    Via => 400, "malformed Via";
    /// More than [`crate::limits::VIA_MAX_COUNT`] Via values.
    TooManyVias => 400, "too many Via values";
    /// The branch is the magic cookie and nothing more (RFC 4475 3.2.1).
    Branch => 400, "Via branch without identifier";
    /// From breaks its grammar.
    From => 400, "malformed From";
    /// To breaks its grammar.
    To => 400, "malformed To";
    /// Call-ID is empty or holds a separator.
    CallId => 400, "malformed Call-ID";
    /// A tag, branch or Call-ID longer than [`crate::limits::ID_MAX_BYTES`].
    IdTooLong => 400, "tag, branch or Call-ID too long";
    /// CSeq is not a number below 2^31 and a method.
    CSeq => 400, "malformed CSeq";
    /// The method in CSeq is not that of the request line.
    CSeqMethod => 400, "CSeq method differs from request";
    /// The same, for a method that is not known (RFC 4475 3.1.2.18).
    CSeqMethodUnknown => 501, "CSeq method differs from unknown method";
    /// Max-Forwards is not a number from 0 to 255.
    MaxForwards => 400, "malformed Max-Forwards";
    /// Content-Length is no number.
    ContentLength => 400, "malformed Content-Length";
    /// Content-Length is larger than a message may be.
    ContentLengthTooLarge => 513, "Content-Length too large";
    /// Fewer body octets than Content-Length says.
    BodyTruncated => 400, "body shorter than Content-Length";
    /// A stream message without Content-Length (RFC 3261 20.14).
    ContentLengthMissing => 400, "Content-Length missing on stream";
    /// More octets than Content-Length says in a frame of a stream.
    BodyOverrun => 400, "octets after body in frame";
    /// Content-Type breaks its grammar.
    ContentType => 400, "malformed Content-Type";
    /// A Contact value breaks its grammar.
    Contact => 400, "malformed Contact";
    /// More than one Contact value where a dialog has one remote target (RFC 3261 12.1).
    ContactCount => 400, "more than one Contact";
    /// A Route value breaks its grammar.
    Route => 400, "malformed Route";
    /// A Record-Route value breaks its grammar.
    RecordRoute => 400, "malformed Record-Route";
    /// A P-Asserted-Identity or P-Preferred-Identity value breaks its grammar.
    AssertedIdentity => 400, "malformed asserted identity";
    /// Refer-To breaks its grammar.
    ReferTo => 400, "malformed Refer-To";
    /// RSeq is no number from 1 to 2^32-1.
    RSeq => 400, "malformed RSeq";
    /// RAck is not two numbers and a method.
    RAck => 400, "malformed RAck";
    /// Date is no SIP-date in GMT (RFC 3261 20.17).
    Date => 400, "malformed Date";
    /// A Require or Proxy-Require list holds something that is no token.
    TokenList => 400, "malformed token list";
}

/// A refused message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    kind: ErrorKind,
    answerable: bool,
}

impl ParseError {
    pub(crate) const fn new(kind: ErrorKind, answerable: bool) -> Self {
        Self { kind, answerable }
    }

    /// Which rule was broken.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        self.kind
    }

    /// Status code of the answer: 400, 414, 501, 505 or 513.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.kind.status()
    }

    /// Stable text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.kind.reason()
    }

    /// Whether an answer is allowed: the message looks like a request other than ACK. Whether it
    /// is possible is for [`crate::sip::salvage`] to say.
    #[must_use]
    pub const fn answerable(self) -> bool {
        self.answerable
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status(), self.reason())
    }
}

impl std::error::Error for ParseError {}
