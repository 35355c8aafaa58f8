//! Every datagram that is not taken ends here: one variant = one reason = one counter. There is no
//! other way for a packet to disappear.

/// Declares the reasons once, with their metric labels.
macro_rules! drop_reasons {
    ($( $(#[$doc:meta])* $variant:ident => $label:literal, )+) => {
        /// Why something was discarded without an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $( $(#[$doc])* $variant, )+ }

        impl DropReason {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Value of the `reason` label of `ravelin_drops_total`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Zero octets, or only CR and LF: a keep-alive (RFC 5626 4.4.1, RFC 3261 7.5).
    KeepAlive => "keep_alive",
    /// First octet is of no protocol we speak on this port (RFC 7983).
    UnknownProtocol => "unknown_protocol",
    /// No trunk of this realm has this source address.
    UnknownSource => "unknown_source",
    /// Longer than a message may be.
    Oversized => "oversized",
    /// A request too broken to be answered.
    MalformedRequest => "malformed_request",
    /// A response that breaks the grammar; responses are never answered.
    MalformedResponse => "malformed_response",
    /// A response that matches no client transaction.
    StrayResponse => "stray_response",
    /// An ACK that matches nothing.
    StrayAck => "stray_ack",
    /// RTP or RTCP on a port that no stream uses.
    MediaPortIdle => "media_port_idle",
    /// RTP or RTCP from an address that the stream does not expect.
    MediaSource => "media_source",
    /// RTP from a source that may be the party's, behind a NAT, and has not shown it yet.
    MediaUnproven => "media_unproven",
    /// The same from a source that sent to closed ports.
    MediaSprayer => "media_sprayer",
    /// Media before the other side's address is known, or on hold.
    MediaNoPeer => "media_no_peer",
    /// Shorter than an RTP or RTCP header, or a wrong version.
    MediaMalformed => "media_malformed",
    /// A datagram on a media port that is longer than any that is taken there.
    MediaTooLong => "media_too_long",
    /// Media from one port of ours to another beyond what a call has: it goes round in a ring of calls.
    MediaLoop => "media_loop",
    /// STUN, DTLS or other non-RTP on a media port that does not use it.
    MediaUnsupported => "media_unsupported",
    /// STUN whose lengths or FINGERPRINT are wrong, or that lacks what a connectivity check has.
    StunMalformed => "stun_malformed",
    /// A connectivity check under another name or password than ours for this stream.
    StunAuthentication => "stun_auth",
    /// A connectivity check of a party that thinks it is controlled (RFC 8445 7.3.1.1): answered 487.
    StunRoleConflict => "stun_role_conflict",
    /// STUN that is neither a Binding request nor an indication.
    StunUnexpected => "stun_unexpected",
    /// Connectivity checks beyond the rate of answers.
    StunRate => "stun_rate",
    /// Not whole records of DTLS 1.2, or a message longer than any that is needed.
    DtlsMalformed => "dtls_malformed",
    /// A DTLS message that broke the handshake, which begins again.
    DtlsBroken => "dtls_broken",
    /// A DTLS alert in the clear: anybody could have sent it.
    DtlsPlainAlert => "dtls_plain_alert",
    /// A DTLS message that a party in this state of the handshake does not send.
    DtlsUnexpected => "dtls_unexpected",
    /// A ClientHello while another is being answered, or after the handshake (lessons.md 2.22).
    DtlsStrayHello => "dtls_stray_hello",
    /// A ClientHello that offers no cipher suite or SRTP profile of ours.
    DtlsUselessHello => "dtls_useless_hello",
    /// DTLS after the handshake has failed, or long after it was done.
    DtlsOver => "dtls_over",
    /// DTLS beyond the handshakes at once, or the work of one turn.
    DtlsBusy => "dtls_busy",
    /// SRTP or SRTCP whose tag does not verify.
    SrtpAuthentication => "srtp_auth",
    /// SRTP or SRTCP that was taken before, or is too old to tell.
    SrtpReplay => "srtp_replay",
    /// SRTP or SRTCP with a master key identifier that was not agreed.
    SrtpMasterKey => "srtp_mki",
    /// The master key has protected as many packets as it may.
    SrtpKeySpent => "srtp_key_spent",
    /// More SSRCs under one key than are kept apart.
    SrtpSources => "srtp_sources",
    /// The keys of the stream are still being agreed.
    SrtpNoKeys => "srtp_no_keys",
    /// A second packet with the sequence number of one that was sealed: it would be encrypted with
    /// the same key stream.
    SrtpRepeat => "srtp_repeat",
    /// The ring to the owning shard was full.
    CrossShardFull => "cross_shard_full",
    /// The transaction table was full and no answer could be given.
    TableFull => "table_full",
    /// A message that deserved a stateless answer, beyond the rate of such answers.
    StatelessRate => "stateless_rate",
    /// An answer would have to go to a broadcast, multicast or unspecified address.
    BadReplyAddress => "bad_reply_address",
}
