//! Every bound of the engine, with its number, what happens when it is reached, and the metric that
//! shows it. Per shard, unless a line says otherwise.

use std::time::Duration;

use ravelin_srtp::Suite;

/// Calls that one shard holds; the next INVITE gets 503 (`ravelin_refusals_total{cause=...}`).
pub const CALLS_MAX: u32 = 60_000;
/// Of these, kept for emergency calls.
pub const CALLS_EMERGENCY_RESERVE: u32 = 600;
/// Client transactions. INVITE transactions stay 64*T1 after their 2xx (RFC 6026), so this is
/// about 32 s of calls at 3,000 calls/s. Gauge `ravelin_client_transactions`.
pub const CLIENT_TRANSACTIONS_MAX: u32 = 262_144;
/// Server transactions: an INVITE and a BYE stay 64*T1 each. Gauge `ravelin_server_transactions`.
pub const SERVER_TRANSACTIONS_MAX: u32 = 262_144;
/// Of each transaction table, kept for requests inside calls that exist. Emergency calls have as many
/// again beyond the table.
pub const TRANSACTIONS_RESERVE: u32 = 8_192;
/// Timers: what the tables together can ask for, the CANCEL of each INVITE included. The wheel grows
/// up to that and needs no bound of its own. Gauge `ravelin_timers`.
pub const TIMERS_MAX: u32 =
    (2 * CLIENT_TRANSACTIONS_MAX + SERVER_TRANSACTIONS_MAX + 3 * TRANSACTIONS_RESERVE)
        * TIMERS_PER_TRANSACTION
        + CALLS_MAX * TIMERS_PER_CALL
        + PROBES_MAX;
/// Timers that one transaction may hold at a time: retransmission and timeout.
pub const TIMERS_PER_TRANSACTION: u32 = 2;
/// Timers that one call may hold at a time, its legs included.
pub const TIMERS_PER_CALL: u32 = 12;
/// Timers fired in one turn before the shard looks at its sockets again.
pub const TIMERS_PER_TURN: usize = 4_096;

/// Round-trip time estimate (RFC 3261 17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// Longest retransmission interval of non-INVITE requests and INVITE responses (RFC 3261 17.1.2.2).
pub const T2: Duration = Duration::from_secs(4);
/// Longest time a message stays in the network (RFC 3261 17.1.2.2).
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L and M are this many T1.
pub const TIMEOUT_T1_MULTIPLE: u32 = 64;

/// Requests longer than this try TCP when the target has it (RFC 3261 18.1.1, path MTU unknown).
pub const UDP_REQUEST_BYTES_MAX: usize = 1_300;
/// Targets remembered as having refused TCP for large requests. Full: the oldest is forgotten.
pub const TCP_REFUSED_TARGETS_MAX: usize = 64;
/// How long such a target is not tried over TCP again.
pub const TCP_REFUSED_HOLD: Duration = Duration::from_secs(60);

/// Stateless answers per second, so that nobody can use us as a reflector. Beyond: silence,
/// counted as `ravelin_drops_total{reason="stateless_rate"}`, or as `table_full` where it was a full
/// table that left nothing but such an answer.
pub const STATELESS_REPLIES_PER_SECOND: u32 = 2_000;
/// Stateless answers at once.
pub const STATELESS_REPLIES_BURST: u32 = 500;

/// An attempt that got no response at all is given up after this if another target is left;
/// without one it has until timer B. Emergency calls have their own, shorter time (EM-51).
pub const ATTEMPT_NO_RESPONSE: Duration = Duration::from_secs(4);
/// Attempts to reach the callee of one ordinary call. More targets are not tried.
pub const ATTEMPTS_MAX: usize = 16;
/// How long an ordinary call may go unanswered once a callee has it, as timer C (RFC 3261 16.6):
/// then 480. Emergency calls ring without end (EM-52).
pub const RING_MAX: Duration = Duration::from_secs(185);
/// Longest ordinary call: what ends a call whose parties have both disappeared. Emergency calls
/// have none (emergency.md 1, rule 8).
pub const CALL_DURATION_MAX: Duration = Duration::from_secs(12 * 3600);
/// Requests of one call that wait for the other party at a time; the next gets 500.
pub const RELAYS_PER_CALL_MAX: usize = 8;

/// Emergency calls of one source address, to one shard, that may cost ordinary calls when everything
/// is in use: this many at once, and this many a minute. The rest is taken too and uses what is free
/// (`ravelin_emergency_excess_total`).
pub const EMERGENCY_BURST: u32 = 3;
pub const EMERGENCY_PER_MINUTE: u32 = 10;
/// Sources remembered for that. Beyond them nobody new may cost an ordinary call.
pub const EMERGENCY_SOURCES_MAX: usize = 1_024;

/// Octets of messages that all calls of a shard keep for `ravelin trace --pcap`. Beyond that, new ones
/// are not kept, and the trace says how many.
pub const CAPTURED_BYTES_MAX: usize = 64 << 20;

/// Media streams (m-lines) that one call may have. An offer with more gets 488.
pub const STREAMS_PER_CALL_MAX: usize = 8;
/// SRTP of one call that is out of use and may come back: as many as both legs can have keys of ours,
/// one for each suite and stream. Beyond, the one that is longest out of use is forgotten: it was that
/// of an attempt that has failed.
pub const RETIRED_SEALERS_MAX: usize = 2 * STREAMS_PER_CALL_MAX * Suite::ALL.len();
/// The same of keys of the parties, who may come with new ones each time. Of keys that are forgotten
/// recorded packets could be played again, should the party come back to them.
pub const RETIRED_OPENERS_MAX: usize = 2 * STREAMS_PER_CALL_MAX;
/// Port pairs of one pool kept for emergency calls, in percent; 0: none at all.
pub const MEDIA_RESERVE_PERCENT: u32 = 2;
/// At least so many pairs of one pool are kept for emergency calls (EM-64), unless that is more than a
/// tenth of them: a small pool has no more to spare, and ordinary calls give way
/// (`ravelin_calls_preempted_total`). Gauge `ravelin_media_ports_reserved`.
pub const MEDIA_RESERVE_PAIRS: u32 = 8;
/// New calls of one shard that went to another for want of a port and are remembered, each for 64*T1
/// and T4: more than 1,700 a second. Full: the next gets 503 (`ravelin_placements_refused_total`).
pub const PLACEMENTS_MAX: usize = 65_536;
/// How long a released port pair rests, so that late packets of the old call die
/// (gauge `ravelin_media_ports_quarantined`).
pub const MEDIA_QUARANTINE: Duration = Duration::from_secs(10);
/// The least rest. When a pool has nothing that has rested in full, an ordinary call takes the pair
/// that has rested longest, if it has rested this long: at many short calls per second a small port
/// range would otherwise refuse calls that it has ports for. Early uses are counted
/// (`ravelin_media_ports_reused_early_total`); the source gate keeps strays out all the same.
pub const MEDIA_QUARANTINE_LEAST: Duration = Duration::from_secs(1);

/// After an offer or answer took effect, how long a party behind a NAT is looked for where its trunk
/// has `media.nat: latch`.
pub const LATCH_WINDOW: Duration = Duration::from_secs(10);
/// Packets of one source and SSRC in sequence that make it the party's, spread over at least
/// [`LATCH_SPAN`]: a burst proves nothing. Counter `ravelin_media_latched_total`.
pub const LATCH_PACKETS: u32 = 4;
/// See [`LATCH_PACKETS`]. Four packets of 10 ms.
pub const LATCH_SPAN: Duration = Duration::from_millis(30);
/// Packets that pass in the life of one stream before their source is proven, so that the first
/// words of a caller are heard. Beyond them `ravelin_drops_total{reason="media_unproven"}`.
pub const LATCH_UNPROVEN_MAX: u32 = 5;
/// Sources that are compared at a time. The one that has shown least makes room.
pub const LATCH_CANDIDATES: usize = 4;
/// A source that sent within this time is a rival of another.
pub const LATCH_RIVAL: Duration = Duration::from_millis(200);
/// Sequence numbers from one packet to the next that still count as in sequence: a few may be lost.
pub const LATCH_SEQUENCE_STEP_MAX: u16 = 4;
/// Epochs of a stream whose sources are remembered, as the party's or as strays. The oldest makes
/// room.
pub const LATCH_PAST: usize = 4;

/// Packets a second, RTP and RTCP, that pass in one direction of a stream both of whose parties are ports
/// of ours: twenty times a voice call, and what 8 Mbit/s of video have. Beyond:
/// `ravelin_drops_total{reason="media_loop"}`.
pub const HAIRPIN_PACKETS_PER_SECOND: u32 = 1_000;
/// How long nothing of such a direction passes after it had more. Packets that go round in a ring of
/// calls are gone by then.
pub const HAIRPIN_REST: Duration = Duration::from_secs(10);

/// Packets of one SSRC in a row that the engine itself lets pass before a fast path takes a stream
/// over, or follows it to another SSRC.
pub const STEADY_PACKETS: u32 = 2;

/// Different closed media ports that a source must have sent to before it may latch to no stream (gauge
/// `ravelin_media_sprayers`, drop reason `media_sprayer`). One or two may be those of a call of which
/// we know nothing any more.
pub const SPRAYED_PORTS_MIN: u32 = 3;
/// How long that is remembered after the last such packet.
pub const SPRAYER_MEMORY: Duration = Duration::from_secs(60);
/// Sources remembered: sets times ways. In a full set the oldest makes room
/// (`ravelin_media_sprayers_displaced_total`).
pub const SPRAYER_SETS: usize = 512;
pub const SPRAYER_WAYS: usize = 4;

/// Connectivity checks of one stream that are answered in a second (RFC 8445 14: a full agent sends
/// one each 5 ms at most). Beyond: `ravelin_drops_total{reason="stun_rate"}`.
pub const ICE_ANSWERS_PER_SECOND: u32 = 250;
/// Errors that one stream answers STUN with in a second; the rest is silence. Each is no longer than
/// what it answers.
pub const ICE_REFUSALS_PER_SECOND: u32 = 10;
/// How long after its last check a party that renews its consent is sent media (RFC 7675 5.1).
pub const ICE_CONSENT: Duration = Duration::from_secs(30);
/// Checks on the selected pair over at least this long tell a party that renews its consent.
pub const ICE_RENEWAL_LEAST: Duration = Duration::from_secs(4);
/// How long a nominated pair keeps one of lower priority from taking its place.
pub const ICE_RENOMINATION: Duration = Duration::from_secs(1);

/// DTLS handshakes of one shard at once; a hello beyond is not answered
/// (`ravelin_drops_total{reason="dtls_busy"}`) and comes again. Emergency calls have as many again.
pub const DTLS_HANDSHAKES_MAX: usize = 1_024;
/// How long after an offer and its answer in an answered call the handshake is to have begun; then
/// the party is taken to have none (`trunks[].media.failure_action`). As long as a handshake may
/// take itself.
pub const DTLS_BEGIN: Duration = Duration::from_secs(45);
/// Datagrams of handshakes under way that are taken in one turn, each of which may cost public-key
/// work of about 0.4 ms on the thread that moves packets. Beyond: `dtls_busy`, and they come again.
/// Emergency calls have as many again.
pub const DTLS_STEPS_PER_TURN: u32 = 4;
/// When a handshake of ours that finds no room tries again.
pub const DTLS_BUSY_RETRY: Duration = Duration::from_millis(100);

/// Targets probed by OPTIONS (shard 0 only). More than that are not probed and stay `unprobed`.
pub const PROBES_MAX: u32 = 4_096;

/// Highest `cps` limit that can be set on a trunk: each unit costs 8 octets of admission window.
pub const CPS_MAX: u32 = 100_000;

const _: () = assert!(CALLS_EMERGENCY_RESERVE < CALLS_MAX);
const _: () = assert!(TRANSACTIONS_RESERVE < CLIENT_TRANSACTIONS_MAX);
const _: () = assert!(TRANSACTIONS_RESERVE < SERVER_TRANSACTIONS_MAX);
const _: () = assert!(TIMERS_MAX < u32::MAX / 2, "the wheel's index is 32 bits");
const _: () = assert!(MEDIA_RESERVE_PERCENT < 100);
const _: () = assert!(MEDIA_QUARANTINE_LEAST.as_millis() <= MEDIA_QUARANTINE.as_millis());
const _: () = assert!(LATCH_PACKETS <= LATCH_UNPROVEN_MAX, "a caller's first words are heard");
const _: () = assert!(LATCH_SPAN.as_millis() < LATCH_RIVAL.as_millis());
const _: () = assert!(T1.as_millis() < T2.as_millis());

/// The bounds that a deployment or a test may choose. `Default` gives the constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub calls: u32,
    pub calls_emergency_reserve: u32,
    pub client_transactions: u32,
    pub server_transactions: u32,
    pub transactions_reserve: u32,
    pub t1: Duration,
    pub t2: Duration,
    pub t4: Duration,
    pub media_quarantine: Duration,
    pub media_quarantine_least: Duration,
    pub media_reserve_percent: u32,
    /// Port pairs that the shard may open over all ranges. With fewer than the ranges have, each
    /// range gives its share.
    pub media_pairs: u32,
    pub stateless_per_second: u32,
    pub stateless_burst: u32,
    pub attempt_no_response: Duration,
    pub ring: Duration,
    pub call_duration: Duration,
}

impl Limits {
    /// 64*T1: timers B, F, H, J, L, M, and how long anything may wait for a peer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.t1.saturating_mul(TIMEOUT_T1_MULTIPLE)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: CALLS_MAX,
            calls_emergency_reserve: CALLS_EMERGENCY_RESERVE,
            client_transactions: CLIENT_TRANSACTIONS_MAX,
            server_transactions: SERVER_TRANSACTIONS_MAX,
            transactions_reserve: TRANSACTIONS_RESERVE,
            t1: T1,
            t2: T2,
            t4: T4,
            media_quarantine: MEDIA_QUARANTINE,
            media_quarantine_least: MEDIA_QUARANTINE_LEAST,
            media_reserve_percent: MEDIA_RESERVE_PERCENT,
            media_pairs: u32::MAX,
            stateless_per_second: STATELESS_REPLIES_PER_SECOND,
            stateless_burst: STATELESS_REPLIES_BURST,
            attempt_no_response: ATTEMPT_NO_RESPONSE,
            ring: RING_MAX,
            call_duration: CALL_DURATION_MAX,
        }
    }
}
