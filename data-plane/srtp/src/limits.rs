//! Every bound of this crate, with what happens when it is reached.

/// Sources (SSRCs) that one direction of one m-line may have under one set of keys. The next one is
/// refused ([`crate::Refusal::Sources`]): forgetting an old one would forget which of its packet
/// indices were used.
pub const SOURCES_MAX: usize = 128;

/// Packet indices behind the highest one that are told apart; older packets are refused (RFC 3711
/// 3.3.2 asks for 64 at least). 2.5 s of 20 ms audio.
pub const REPLAY_WINDOW: u64 = 128;

/// SRTP packets under one master key (RFC 3711 9.2).
pub const RTP_LIFETIME: u64 = 1 << 48;
/// SRTCP packets under one master key (RFC 3711 9.2).
pub const RTCP_LIFETIME: u64 = 1 << 31;

/// Master keys in one `a=crypto` line; a line with more is refused by name.
pub const MASTER_KEYS_MAX: usize = 4;
/// Longest MKI on the wire (RFC 4568 9.2).
pub const MKI_MAX_BYTES: usize = 128;
/// `a=crypto` lines of one m-line that are looked at; later ones are passed over.
pub const CRYPTO_LINES_MAX: usize = 16;
/// Longest `a=crypto` value that is looked at.
pub const CRYPTO_VALUE_MAX_BYTES: usize = 2_048;

/// RTP indices of each source that a call record claims beyond the highest one used: what the source
/// may lose at most when the process ends and another goes on, 640 ms of 20 ms audio, most of which
/// passes while no process is there. A record is written for each so many packets.
pub const RTP_LEAD: u64 = 32;
/// SRTCP indices that a call record claims: they are jumped over, and nothing is lost.
pub const RTCP_LEAD: u64 = 32;

/// What protection adds to a packet at most: SRTCP index, MKI, tag.
pub const OVERHEAD_MAX: usize = 4 + MKI_MAX_BYTES + 16;

const _: () = assert!(REPLAY_WINDOW >= 64 && REPLAY_WINDOW <= u128::BITS as u64);
const _: () = assert!(RTP_LEAD < REPLAY_WINDOW && SOURCES_MAX <= u8::MAX as usize);
