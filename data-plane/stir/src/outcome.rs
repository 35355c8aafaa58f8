//! What a verification can end in: a closed set of outcomes (ST-58), each with its STIR cause, SIP
//! response text and verstat, and a closed list of reasons, each belonging to one outcome.

/// How the verification ended (ST-58).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A valid PASSporT vouches for the calling number.
    Passed,
    /// The request has no Identity header.
    NoneAbsent,
    /// Only PASSporT types that are not supported here.
    NonePpt,
    /// The certificate is not at hand: could not decide.
    NoneFetch,
    /// The `info` URL is missing, against policy, or not the `x5u`.
    BadInfo,
    /// The certificate is not acceptable.
    BadCred,
    /// The token is not valid, or is about another call.
    BadToken,
    /// `iat` is outside the window.
    Stale,
    /// Not verified on purpose (emergency, internal leg, overload).
    Skipped,
}

impl Outcome {
    /// All outcomes, in counter order.
    pub const ALL: [Self; 9] = [
        Self::Passed,
        Self::NoneAbsent,
        Self::NonePpt,
        Self::NoneFetch,
        Self::BadInfo,
        Self::BadCred,
        Self::BadToken,
        Self::Stale,
        Self::Skipped,
    ];

    /// Stable text: the `outcome` key of `ravelin stir verify --json`, CDR and metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NoneAbsent => "none-absent",
            Self::NonePpt => "none-ppt",
            Self::NoneFetch => "none-fetch",
            Self::BadInfo => "bad-info",
            Self::BadCred => "bad-cred",
            Self::BadToken => "bad-token",
            Self::Stale => "stale",
            Self::Skipped => "skipped",
        }
    }

    /// The STIR cause (RFC 8224 6.2.2, RFC 9366), which is also the status code if the profile
    /// rejects the request.
    #[must_use]
    pub const fn cause(self) -> Option<u16> {
        match self {
            Self::Passed | Self::Skipped => None,
            Self::NoneAbsent | Self::NonePpt => Some(428),
            Self::NoneFetch | Self::BadInfo => Some(436),
            Self::BadCred => Some(437),
            Self::BadToken => Some(438),
            Self::Stale => Some(403),
        }
    }

    /// The text of the cause: SIP reason phrase and `text` of `Reason: STIR`.
    #[must_use]
    pub const fn text(self) -> Option<&'static str> {
        match self {
            Self::Passed | Self::Skipped => None,
            Self::NoneAbsent => Some("Use Identity Header"),
            Self::NonePpt => Some("Use Supported PASSporT Format"),
            Self::NoneFetch | Self::BadInfo => Some("Bad Identity Info"),
            Self::BadCred => Some("Unsupported Credential"),
            Self::BadToken => Some("Invalid Identity Header"),
            Self::Stale => Some("Stale Date"),
        }
    }

    /// The tel URI parameter value (3GPP TS 24.229 7.2A.20; ST-63). None: insert none.
    #[must_use]
    pub const fn verstat(self) -> Option<Verstat> {
        match self {
            Self::Passed => Some(Verstat::Passed),
            Self::NoneAbsent | Self::NonePpt | Self::NoneFetch => Some(Verstat::NoValidation),
            Self::BadInfo | Self::BadCred | Self::BadToken | Self::Stale => Some(Verstat::Failed),
            Self::Skipped => None,
        }
    }

    /// Decided, and bad: what `on_failure: reject` of a trunk acts on.
    #[must_use]
    pub const fn failed(self) -> bool {
        matches!(self, Self::BadInfo | Self::BadCred | Self::BadToken | Self::Stale)
    }
}

/// Value of the `verstat` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verstat {
    Passed,
    Failed,
    NoValidation,
}

impl Verstat {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "TN-Validation-Passed",
            Self::Failed => "TN-Validation-Failed",
            Self::NoValidation => "No-TN-Validation",
        }
    }
}

/// Declares the reasons once, with their outcome and their stable id.
macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident => $outcome:ident, $label:literal; )+) => {
        /// Why an outcome was reached. The labels are stable: CDR, audit, metrics, `--json`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[$doc])* $variant, )+ }

        impl Reason {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable id.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The outcome that this reason leads to in the default profile (ST-59).
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)+ }
            }
        }
    };
}

reasons! {
    /// A SHAKEN or base PASSporT is valid and about this call.
    Valid => Passed, "valid";
    /// The request is covered by a complete chain of div PASSporTs (RFC 8946 4.2).
    ValidDiv => Passed, "valid_div";

    NoIdentity => NoneAbsent, "no_identity";
    PptUnsupported => NonePpt, "ppt_unsupported";
    /// Only tokens that vouch for something else than the calling number (ppt `rph`).
    PptOther => NonePpt, "ppt_other";
    /// No certificate for this x5u at hand.
    CertificateUnavailable => NoneFetch, "certificate_unavailable";

    InfoMissing => BadInfo, "info_missing";
    /// `info` is not a URL in angle brackets.
    InfoSyntax => BadInfo, "info_syntax";
    InfoNotHttps => BadInfo, "info_not_https";
    /// The URL breaks the policy of ST-49.
    InfoPolicy => BadInfo, "info_policy";
    /// `info` and `x5u` differ (ST-23).
    InfoNotX5u => BadInfo, "info_not_x5u";

    /// The header value is not a token with parameters.
    IdentitySyntax => BadToken, "identity_syntax";
    IdentityTooLong => BadToken, "identity_too_long";
    IdentityTooMany => BadToken, "identity_too_many";
    /// The `alg` parameter is not ES256.
    AlgParam => BadToken, "alg_param";
    /// The `ppt` parameter is not the one of the token (ST-23).
    PptMismatch => BadToken, "ppt_mismatch";
    /// The `ppt` parameter is missing and the profile demands it.
    PptParamMissing => BadToken, "ppt_param_missing";
    /// Compact form where full form is needed (ST-29).
    CompactForm => BadToken, "compact_form";
    /// A compact form whose signature does not fit the reconstructed token.
    CompactMismatch => BadToken, "compact_mismatch";
    Base64 => BadToken, "base64";
    JoseSyntax => BadToken, "jose_syntax";
    /// `alg` in the token is not ES256; decided before any key is touched (ST-7).
    AlgUnsupported => BadToken, "alg_unsupported";
    TypNotPassport => BadToken, "typ_not_passport";
    X5uMissing => BadToken, "x5u_missing";
    /// `crit` in the JOSE header (ST-26).
    JoseCritical => BadToken, "jose_critical";
    /// A key or certificate carried in the token, or another unknown JOSE member (ST-26).
    JoseMember => BadToken, "jose_member";
    PayloadSyntax => BadToken, "payload_syntax";
    PayloadTooLong => BadToken, "payload_too_long";
    ClaimAttest => BadToken, "claim_attest";
    ClaimDest => BadToken, "claim_dest";
    ClaimIat => BadToken, "claim_iat";
    ClaimOrig => BadToken, "claim_orig";
    ClaimOrigid => BadToken, "claim_origid";
    ClaimDiv => BadToken, "claim_div";
    ClaimOpt => BadToken, "claim_opt";
    ClaimRph => BadToken, "claim_rph";
    ClaimRcd => BadToken, "claim_rcd";
    /// `mky` is no list of media keys (RFC 8225 5.2.2).
    ClaimMky => BadToken, "claim_mky";
    /// The fingerprints in the SDP are not the signed ones (RFC 8224 4.1; ST-73).
    MediaKeyMismatch => BadToken, "media_key_mismatch";
    /// The signature is not 64 octets of r and s.
    SignatureForm => BadToken, "signature_form";
    /// The signature is not by the key of the certificate.
    Signature => BadToken, "signature";
    /// The calling number of the request is another one.
    OrigMismatch => BadToken, "orig_mismatch";
    /// The request names no calling party to compare with (ST-19).
    OrigAnonymous => BadToken, "orig_anonymous";
    /// The called number of the request is another one.
    DestMismatch => BadToken, "dest_mismatch";
    /// The tokens do not form one chain from the request to an original token (ST-69).
    DivIncomplete => BadToken, "div_incomplete";
    /// Tokens of one chain name different calling numbers.
    DivOrigMismatch => BadToken, "div_orig_mismatch";
    /// The chain is longer than allowed.
    DivTooLong => BadToken, "div_too_long";
    /// The certificate's JWTClaimConstraints do not allow these claims (ST-40).
    ClaimConstraint => BadToken, "claim_constraint";

    CertificateMalformed => BadCred, "certificate_malformed";
    CertificateExpired => BadCred, "certificate_expired";
    CertificateNotYetValid => BadCred, "certificate_not_yet_valid";
    /// No path to a trust anchor.
    CertificateUntrusted => BadCred, "certificate_untrusted";
    /// A certificate that leads to an anchor is missing from the body.
    IntermediateMissing => BadCred, "intermediate_missing";
    CertificateSignature => BadCred, "certificate_signature";
    /// Signature algorithm or key type on the path is not supported.
    CertificateAlgorithm => BadCred, "certificate_algorithm";
    CertificateRevoked => BadCred, "certificate_revoked";
    /// No usable revocation list and the profile is `hard` (ST-46).
    RevocationUnknown => BadCred, "revocation_unknown";
    /// The leaf has no TNAuthList (ST-38).
    TnAuthListMissing => BadCred, "tn_auth_list_missing";
    TnAuthListMalformed => BadCred, "tn_auth_list_malformed";
    /// The claim constraints do not parse, or there are both kinds (RFC 9118 6).
    ClaimConstraintsMalformed => BadCred, "claim_constraints_malformed";
    /// The TNAuthList does not cover the calling (div: diverting) number.
    TnAuthListScope => BadCred, "tn_auth_list_scope";
    /// The leaf's key is not on P-256 (ST-12).
    KeyType => BadCred, "key_type";
    KeyUsage => BadCred, "key_usage";
    /// A CA certificate signs tokens, or an end entity signs certificates.
    BasicConstraints => BadCred, "basic_constraints";
    PathTooLong => BadCred, "path_too_long";
    /// A critical extension that is not understood (RFC 5280 4.2).
    CriticalExtension => BadCred, "critical_extension";

    IatStale => Stale, "iat_stale";
    IatFuture => Stale, "iat_future";
    /// The Date header does not agree and the profile compares it (ST-35).
    DateMismatch => Stale, "date_mismatch";

    Emergency => Skipped, "emergency";
    Overload => Skipped, "overload";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }

    /// The table of ST-58, row by row.
    #[test]
    fn outcome_table() {
        let rows = [
            ("passed", None, Some("TN-Validation-Passed")),
            ("none-absent", Some(428), Some("No-TN-Validation")),
            ("none-ppt", Some(428), Some("No-TN-Validation")),
            ("none-fetch", Some(436), Some("No-TN-Validation")),
            ("bad-info", Some(436), Some("TN-Validation-Failed")),
            ("bad-cred", Some(437), Some("TN-Validation-Failed")),
            ("bad-token", Some(438), Some("TN-Validation-Failed")),
            ("stale", Some(403), Some("TN-Validation-Failed")),
            ("skipped", None, None),
        ];
        for (outcome, row) in Outcome::ALL.into_iter().zip(rows) {
            let got = (outcome.label(), outcome.cause(), outcome.verstat().map(Verstat::as_str));
            assert_eq!(got, row);
        }
    }
}
