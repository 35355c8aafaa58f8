//! What kind of call a Request-URI asks for (EM-9..EM-16).

/// Kind of call. Decided once, at ingress, before any limit, ban or route (EM-66).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes to a PSAP.
    Emergency(Service),
    /// 933: reads back the registered address, never reaches a PSAP.
    TestAddress,
    /// `urn:service:test.sos*` (RFC 6881 section 15).
    TestSos,
    /// 988 and the like: an ordinary call that no policy blocks.
    Crisis,
    /// Everything else.
    None,
}

/// Emergency service asked for (RFC 5031 and its registry). An unknown label counts as its nearest
/// known ancestor, at worst `Sos` (EM-12); the URI that is forwarded stays unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Sos,
    Ambulance,
    AnimalControl,
    Fire,
    Gas,
    Marine,
    Mountain,
    Physician,
    Poison,
    Police,
    CountrySpecific,
    EcallManual,
    EcallAutomatic,
}

impl Class {
    /// The name that `explain`, CDRs and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emergency(_) => "emergency",
            Self::TestAddress => "test_address",
            Self::TestSos => "test_sos",
            Self::Crisis => "crisis",
            Self::None => "none",
        }
    }
}

/// True for everything that might mean an emergency call: the superset that the test guard blocks
/// in test mode (E6). Never used in production, neither for routing nor for alarms.
#[must_use]
pub fn guard_matches(uri: &[u8]) -> bool {
    let _ = uri;
    true
}
