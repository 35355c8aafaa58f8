//! Every bound of DTLS, with what happens when it is reached.

use std::time::Duration;

/// `a=fingerprint` lines of one m-line that are kept; later ones are passed over.
pub const FINGERPRINTS_MAX: usize = 8;

/// Longest datagram that we send: fits an IPv6 path of the least MTU, with room for a tunnel.
pub const MTU: usize = 1_150;
/// Records of one datagram; a datagram with more is dropped ([`crate::dtls::Rejection::Malformed`]).
pub const RECORDS_MAX: usize = 8;
/// Octets of a handshake message that a peer may announce, its certificate included; longer ones are
/// dropped ([`crate::dtls::Rejection::Malformed`]).
pub const MESSAGE_MAX_BYTES: usize = 8_192;
/// Datagrams of one handshake that may wait for one that is missing. Beyond, the handshake starts
/// again.
pub const WAITING_DATAGRAMS_MAX: usize = 24;

/// First retransmission (RFC 6347 4.2.4.1 has a second; media waits, and a lost flight is common on
/// the paths that need DTLS). It doubles each time.
pub const FLIGHT_FIRST: Duration = Duration::from_millis(400);
/// Retransmissions of one flight: more than fit into [`HANDSHAKE_MAX`], though the library makes
/// each wait shorter or longer by up to a quarter, by chance. It is that time alone which ends a
/// handshake.
pub const FLIGHT_RETRIES: usize = 7;
const _: () = {
    let waits = FLIGHT_FIRST.as_millis() * ((1 << (FLIGHT_RETRIES + 1)) - 1);
    assert!(waits * 3 / 4 > HANDSHAKE_MAX.as_millis());
};
/// How long a handshake may take from its first hello. Then [`crate::dtls::Failure::Timeout`].
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(45);
/// How often a handshake that was broken by what may have been forged starts again.
pub const RESTARTS_MAX: u8 = 4;
/// How long the last flight can be asked for again once the handshake is done.
pub const LINGER: Duration = Duration::from_secs(60);
/// Hellos that a client may have said before the one that is accepted, that one included.
pub const HELLOS_MAX: u8 = 4;
