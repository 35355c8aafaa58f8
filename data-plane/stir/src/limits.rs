//! Every bound of this crate, with the requirement it comes from. Beyond a bound is a verdict
//! (`bad-token`, `bad-cred`), never a truncation.

/// Identity headers judged in one request (ST-24).
pub const IDENTITY_COUNT_MAX: usize = 16;
/// Octets of one Identity header value (ST-24).
pub const IDENTITY_VALUE_BYTES_MAX: usize = 8 * 1024;
/// Octets of all Identity header values of one request (ST-24).
pub const IDENTITY_TOTAL_BYTES_MAX: usize = 32 * 1024;
/// Parameters of one Identity header value.
pub const IDENTITY_PARAMS_MAX: usize = 16;
/// Octets of a decoded JOSE header.
pub const JOSE_BYTES_MAX: usize = 2 * 1024;
/// Octets of a decoded PASSporT payload (ST-26).
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// Nesting of JSON objects and arrays (ST-26).
pub const JSON_DEPTH_MAX: usize = 8;
/// Members of one JSON object. Duplicate detection is quadratic in it, so it has a bound.
pub const JSON_MEMBERS_MAX: usize = 64;
/// Values in `dest.tn` and `dest.uri` together.
pub const DEST_VALUES_MAX: usize = 64;
/// Distinct fingerprints of one offer, and of one `mky` claim (ST-73).
pub const MEDIA_KEYS_MAX: usize = 32;
/// Octets of an x5u or info URL (ST-49).
pub const X5U_BYTES_MAX: usize = 1024;
/// Digits of an international number (E.164; ST-14).
pub const TN_DIGITS_MAX: usize = 15;
/// Octets of a URI that goes into a `uri` claim (ST-16).
pub const URI_BYTES_MAX: usize = 512;
/// Default window for `iat` in the past, seconds (ST-34).
pub const WINDOW_PAST_DEFAULT_S: u32 = 60;
/// Default window for `iat` in the future, seconds (ST-34).
pub const WINDOW_FUTURE_DEFAULT_S: u32 = 60;
/// A Date header that is further away than this from `iat` or from now does not agree (ST-35).
pub const DATE_TOLERANCE_S: u64 = 60;
/// Default for the longest chain of div PASSporTs (ST-69).
pub const DIV_CHAIN_DEFAULT: u8 = 5;
/// The largest value that the div chain limit may be set to (ST-69).
pub const DIV_CHAIN_MAX: u8 = 10;
/// Certificates in one x5u body (ST-51).
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Octets of one x5u body (ST-51).
pub const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// Certificates on a path, leaf and trust anchor included (ST-43).
pub const PATH_CERTIFICATES_MAX: usize = 4;
/// Entries of one TNAuthList.
pub const TN_AUTH_ENTRIES_MAX: usize = 4096;
/// Entries of one certificate revocation list.
pub const CRL_ENTRIES_MAX: usize = 1_000_000;
/// How long an expired revocation list is still good enough in the `soft` profile (ST-46).
pub const CRL_SOFT_GRACE_S: u64 = 7 * 24 * 3600;

const _: () = assert!(IDENTITY_VALUE_BYTES_MAX <= IDENTITY_TOTAL_BYTES_MAX);
const _: () = assert!(DIV_CHAIN_DEFAULT <= DIV_CHAIN_MAX);
// A payload and header at their bounds, base64url encoded, with a signature and parameters that
// repeat the URL, fit into one header value only if the payload is smaller than its own bound:
// the value bound is met first, and both are enforced.
const _: () = assert!(JOSE_BYTES_MAX > X5U_BYTES_MAX);
