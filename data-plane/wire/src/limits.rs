//! Every bound of the parsers, in one place. Units are in the names; each has a test at its edge.

/// Longest SIP message, start line to last body octet. Also the longest UDP payload there is, and
/// what a 16-bit offset can address.
pub const MESSAGE_MAX_BYTES: usize = 65_535;
/// Most header lines (a folded line counts once).
pub const HEADER_MAX_COUNT: usize = 128;
/// Longest header line with its folds. An Identity value is about 1 KiB; several may be joined.
pub const HEADER_LINE_MAX_BYTES: usize = 16_384;
/// Longest header name.
pub const HEADER_NAME_MAX_BYTES: usize = 128;
/// Longest method.
pub const METHOD_MAX_BYTES: usize = 64;
/// Longest URI, in the request line (414 beyond) or in a header (400).
pub const URI_MAX_BYTES: usize = 2_048;
/// Longest tag, branch or Call-ID: what other elements copy and index by.
pub const ID_MAX_BYTES: usize = 512;
/// Most Via values over all lines. Max-Forwards starts at 70.
pub const VIA_MAX_COUNT: usize = 100;
/// Most values of any other list header that is checked when parsing (Contact, Route ...).
pub const LIST_MAX_COUNT: usize = 64;
/// Most parameters after one header value or URI.
pub const PARAM_MAX_COUNT: usize = 64;
/// Deepest multipart inside multipart that the part iterator enters.
pub const MULTIPART_MAX_DEPTH: usize = 4;
/// Most parts of one multipart body.
pub const MULTIPART_MAX_PARTS: usize = 32;
/// Longest boundary (RFC 2046 5.1.1).
pub const BOUNDARY_MAX_BYTES: usize = 70;

/// Most octets a caller may push into a stream framer before it drains it.
pub const STREAM_READ_MAX_BYTES: usize = 65_536;
/// Most octets a stream framer holds: one unfinished message and one read.
pub const STREAM_BUFFER_MAX_BYTES: usize = MESSAGE_MAX_BYTES + STREAM_READ_MAX_BYTES;
/// Most memory a stream framer keeps while it holds nothing.
pub const STREAM_IDLE_MAX_BYTES: usize = 16_384;

/// Longest session description.
pub const SDP_MAX_BYTES: usize = 32_768;
/// Most lines of a session description.
pub const SDP_LINE_MAX_COUNT: usize = 1_024;
/// Longest line of a session description, without its end.
pub const SDP_LINE_MAX_BYTES: usize = 4_096;
/// Most media descriptions (m= lines).
pub const SDP_MEDIA_MAX_COUNT: usize = 16;
/// Most formats of one m= line.
pub const SDP_FORMAT_MAX_COUNT: usize = 64;

/// Most packets walked in one RTCP compound.
pub const RTCP_COMPOUND_MAX_COUNT: usize = 64;
/// Most attributes walked in one STUN message.
pub const STUN_ATTRIBUTE_MAX_COUNT: usize = 64;
/// Most attributes that an answer names as not understood.
pub const STUN_UNKNOWN_MAX_COUNT: usize = 8;

// An offset into a message fits the index entries.
const _: () = assert!(MESSAGE_MAX_BYTES <= u16::MAX as usize);
const _: () = assert!(HEADER_MAX_COUNT <= u8::MAX as usize);
const _: () = assert!(HEADER_NAME_MAX_BYTES <= u8::MAX as usize);
const _: () = assert!(HEADER_LINE_MAX_BYTES < MESSAGE_MAX_BYTES);
