//! The closed table of reasons that Ravelin gives: for every refusal it makes itself and for every
//! end of a call. The number is stable, stands in `Reason: ravelin;cause=N;text="..."`, in the CDR
//! and in the label of `ravelin_refusals_total`; a number is never used again for another thing.
//!
//! | Numbers | Whose affair |
//! |---|---|
//! | 1-19 | an ordinary end of a call |
//! | 100-199 | the message: the peer broke or exceeded what we speak |
//! | 200-299 | policy: trunk, route, limit, identity |
//! | 300-399 | Ravelin is full |
//! | 400-499 | the far side or the network |
//! | 500-599 | Ravelin's own fault |

macro_rules! causes {
    ($( $(#[$doc:meta])* $variant:ident = $number:literal, $status:literal, $label:literal, $text:literal; )+) => {
        /// Why Ravelin refused a request or ended a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $( $(#[$doc])* $variant, )+ }

        impl Cause {
            /// All causes, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable number, `cause=N`.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The SIP status that a refusal with this cause gets unless the far side's own status
            /// is passed on; 0 where no response is made.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Metric label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The text of the Reason header and of the CDR.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The whole value of the Reason header (RFC 3326 form).
            #[must_use]
            pub const fn reason_header(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(
                        "ravelin;cause=", stringify!($number), ";text=\"", $text, "\""
                    ),)+
                }
            }
        }
    };
}

causes! {
    /// Either party hung up an answered call.
    Released = 1, 0, "released", "Released";
    /// The caller gave up before an answer.
    Cancelled = 2, 487, "cancelled", "Cancelled by the caller";
    /// The far side refused; its status is passed on.
    FarSideRefused = 3, 0, "far_side_refused", "Refused by the far side";
    /// The far side answered with a redirection, which is passed on or followed.
    Redirected = 4, 0, "redirected", "Redirected by the far side";

    /// The message breaks the grammar or a MUST.
    Malformed = 101, 400, "malformed", "Malformed message";
    /// Not SIP/2.0.
    Version = 102, 505, "version", "SIP version not supported";
    /// Longer than we take.
    TooLarge = 103, 513, "too_large", "Message too large";
    /// Max-Forwards was 0.
    TooManyHops = 104, 483, "too_many_hops", "Too many hops";
    /// The request has been here before.
    Loop = 105, 482, "loop", "Loop detected";
    /// The method is not known.
    MethodUnknown = 106, 501, "method_unknown", "Method not implemented";
    /// The method is known and not allowed here.
    MethodNotAllowed = 107, 405, "method_not_allowed", "Method not allowed";
    /// Require names an extension that we do not have.
    BadExtension = 108, 420, "bad_extension", "Extension not supported";
    /// The body or its encoding is of a type that we cannot handle.
    MediaType = 109, 415, "media_type", "Unsupported media type";
    /// The Request-URI has a scheme that we cannot route.
    UriScheme = 110, 416, "uri_scheme", "Unsupported URI scheme";
    /// The request belongs to no dialog or transaction here.
    NoDialog = 111, 481, "no_dialog", "Call or transaction does not exist";
    /// Another INVITE or UPDATE is under way (RFC 3261 14.2, RFC 3311 5.2).
    Glare = 112, 491, "glare", "Request pending";
    /// CSeq lower than the last, or a second INVITE before the first was answered.
    OutOfOrder = 113, 500, "out_of_order", "Request out of order";
    /// No media that both sides can use, or SDP that breaks the grammar.
    NotAcceptable = 114, 488, "not_acceptable", "Session description not acceptable";
    /// The Request-URI is too long.
    UriTooLong = 115, 414, "uri_too_long", "Request-URI too long";
    /// The Accept header names nothing that we can answer with.
    Accept = 116, 406, "accept", "No acceptable content type";

    /// The trunk's `media.srtp` asks for encryption and the description has none.
    EncryptionRequired = 117, 488, "encryption_required", "Encryption required";
    /// The trunk's `media.srtp` leaves no encryption to the peer and the description has nothing else.
    EncryptionRefused = 118, 488, "encryption_refused", "Encryption not accepted";
    /// The peer encrypts, and with nothing that we speak or the trunk allows.
    NoCommonEncryption = 119, 488, "no_common_encryption", "No encryption in common";

    /// What a description says of where media is to go cannot be used: a host name (RFC 8866 5.7; no
    /// call waits for a lookup), an address of many hosts, or one of the other version of IP.
    MediaAddress = 120, 488, "media_address", "Media address cannot be used";

    /// No trunk of this realm has the packet's source address.
    UnknownSource = 201, 403, "unknown_source", "Source not known";
    /// No route for what was dialled.
    NoRoute = 202, 404, "no_route", "No route to the destination";
    /// The trunk's `calls` limit.
    TrunkCalls = 203, 503, "trunk_calls", "Trunk is at its limit of calls";
    /// The trunk's `cps` limit.
    TrunkCps = 204, 503, "trunk_cps", "Trunk is at its limit of calls per second";
    /// Every trunk of the route is down.
    TrunksDown = 205, 503, "trunks_down", "No trunk of the route is up";
    /// The Identity header did not verify and the trunk says `reject`.
    IdentityRefused = 206, 438, "identity_refused", "Identity not valid";
    /// The node is going out of service.
    Draining = 207, 503, "draining", "Node is going out of service";
    /// No trunk can carry this emergency call.
    NoEmergencyRoute = 208, 503, "no_emergency_route", "No emergency route";
    /// The Identity header is required and absent.
    IdentityMissing = 209, 428, "identity_missing", "Identity required";
    /// Looks like an emergency call, and the node is declared to be in test mode (E1, E5).
    TestMode = 210, 403, "test_mode", "Blocked in test mode";
    /// An emergency call from a realm where none may start (EM-67).
    EmergencyDenied = 211, 403, "emergency_denied", "Emergency calls not allowed here";

    /// The call table is full.
    CallsFull = 301, 503, "calls_full", "Call table full";
    /// A transaction table is full.
    TransactionsFull = 302, 503, "transactions_full", "Transaction table full";
    /// No media port is free.
    MediaPortsFull = 303, 503, "media_ports_full", "No media port free";
    /// The ring to the owning shard is full.
    ShardBusy = 304, 503, "shard_busy", "Shard busy";
    /// Too many media streams or dialogs in one call.
    CallTooLarge = 305, 488, "call_too_large", "Too many streams in one call";
    /// The node's `calls` limit, over all shards.
    NodeCalls = 306, 503, "node_calls", "Node is at its limit of calls";
    /// The node's `cps` limit, over all shards.
    NodeCps = 307, 503, "node_cps", "Node is at its limit of calls per second";

    /// An emergency call needed what this call held (EM-64).
    Preempted = 308, 503, "preempted", "Gave way to an emergency call";

    /// The far side did not answer in time.
    FarSideTimeout = 401, 408, "far_side_timeout", "Far side did not answer";
    /// The request could not be delivered.
    TransportFailed = 402, 503, "transport_failed", "Far side could not be reached";
    /// Nobody picked up in time.
    RingTimeout = 403, 480, "ring_timeout", "Nobody answered in time";
    /// Our 2xx was never acknowledged.
    AckTimeout = 404, 0, "ack_timeout", "Answer was never acknowledged";
    /// A request inside the call was not answered.
    DialogTimeout = 405, 0, "dialog_timeout", "Party no longer answers";
    /// The longest allowed duration was reached.
    MaxDuration = 406, 0, "max_duration", "Longest duration reached";
    /// All targets of the route refused or failed.
    TargetsExhausted = 407, 503, "targets_exhausted", "All targets failed";
    /// A party that should have sent media sent none for longer than its trunk allows.
    MediaTimeout = 408, 480, "media_timeout", "No media from a party";
    /// DTLS with a party came to nothing: no line of the call has keys, or will have any.
    HandshakeFailed = 409, 480, "handshake_failed", "DTLS handshake with a party failed";
    /// A party whose consent to be sent media ended (RFC 7675).
    ConsentLost = 410, 480, "consent_lost", "A party no longer consents to media";

    /// A bug here; the call was ended and the shard went on.
    Internal = 501, 500, "internal", "Internal fault";
    /// Ended by an operator or by the end of the process.
    Stopped = 502, 503, "stopped", "Ended by the operator";
    /// The call was up when the process before this one ended, and could not be taken over.
    NotAdopted = 503, 0, "not_adopted", "Not taken over after a restart";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_labels_are_unique_and_headers_are_quotable() {
        let numbers: HashSet<_> = Cause::ALL.iter().map(|cause| cause.number()).collect();
        let labels: HashSet<_> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!((numbers.len(), labels.len()), (Cause::ALL.len(), Cause::ALL.len()));
        for cause in Cause::ALL {
            assert_eq!(
                cause.reason_header(),
                format!("ravelin;cause={};text=\"{}\"", cause.number(), cause.text())
            );
            assert!(!cause.text().contains(['"', '\\']));
            assert!(cause.status() == 0 || (400..=699).contains(&cause.status()));
        }
    }
}
