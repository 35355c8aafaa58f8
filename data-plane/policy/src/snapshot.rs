//! The resolved settings: what a shard sees. Built only by [`crate::compile()`], so it cannot be
//! invalid; shared as `Arc<Snapshot>`, read without lock (design: config as snapshots).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ravelin_contract::config::{self, Features};
pub use ravelin_contract::config::{
    Dscp, Ice, MediaAction, MediaDriver as Driver, Mode, Nat, NumberPlan, OnFailure, RealmKind,
    Role, Srtp, SrtpSuite, Transport,
};

use crate::{Class, RealmId, RouteId, SiteId, TrunkId, compile::Tables, numbers::Dialled};

/// Everything that the data plane knows of the config document of one version.
#[derive(Debug)]
pub struct Snapshot {
    /// Version of the config document, carried by every lookup result and record.
    pub version: u64,
    pub node: String,
    /// Production unless the document declares test mode (E10).
    pub mode: Mode,
    /// Processor numbers, one shard each; empty: every core that the process may use.
    pub cores: Vec<u16>,
    pub limits: Limits,
    pub realms: Vec<Realm>,
    /// The index is the engine's `ListenerId`.
    pub listeners: Vec<Listener>,
    pub media: Vec<MediaRange>,
    pub trunks: Vec<Trunk>,
    pub routes: Vec<Route>,
    pub sites: Vec<Site>,
    pub stir: Stir,
    /// Location of callers that belong to no site (EM-27).
    pub default_location: Option<Address>,
    /// The block as the user wrote it, for what the control plane does.
    pub features: Features,
    pub emergency: config::Emergency,
    pub control: Option<config::Control>,
    pub(crate) tables: Tables,
}

/// Capacities of this node over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at the same time.
    pub calls: u32,
    /// New calls per second; `None`: no limit.
    pub cps: Option<u32>,
    /// Stream connections at the same time.
    pub connections: u32,
    /// Idle time after which a stream connection is closed.
    pub connection_idle: Duration,
    /// Largest SIP message that is taken, octets; emergency calls apart.
    pub message_bytes: u32,
    /// Octets of messages kept of each ordinary call; 0: none.
    pub capture_bytes: u32,
}

/// A network that we face.
#[derive(Clone, Debug)]
pub struct Realm {
    pub id: String,
    pub kind: RealmKind,
    /// Whether emergency calls may start here (EM-67).
    pub emergency_allowed: bool,
    /// ISO 3166 code of the country whose emergency numbers apply.
    pub country: &'static str,
    /// Digits that callers dial for an outside line; empty: none.
    pub outside_prefix: String,
    /// Code points of what we send there, 0-63.
    pub dscp: Dscp,
}

/// One signalling address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub id: String,
    pub realm: RealmId,
    pub transport: Transport,
    pub bind: SocketAddr,
    /// What goes into Via and Contact: `advertise` of the document, else `bind`.
    pub advertise: SocketAddr,
    /// Code point of what leaves from here: that of the realm.
    pub dscp: Option<u8>,
}

/// One range of media ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    pub realm: RealmId,
    pub address: IpAddr,
    /// What goes into SDP: `advertise` of the document, else `address`.
    pub advertise: IpAddr,
    /// Even.
    pub first_port: u16,
    /// Odd, included.
    pub last_port: u16,
    pub driver: Driver,
    /// Code point of what leaves from here: that of the realm.
    pub dscp: Option<u8>,
}

/// A peer that we exchange calls with.
#[derive(Clone, Debug)]
pub struct Trunk {
    pub id: String,
    pub realm: RealmId,
    pub role: Role,
    /// In the order in which they are tried: by priority, then as in the document.
    pub targets: Vec<Target>,
    pub limits: TrunkLimits,
    pub options: Option<HealthCheck>,
    pub identity: Identity,
    pub trust: Trust,
    pub may_carry_emergency: bool,
    /// Answers 933 with the registered address (EM-19).
    pub address_test: bool,
    /// Site of callers whose address belongs to none (EM-25 e).
    pub default_site: Option<SiteId>,
    /// How numbers without `+` are completed.
    pub number_plan: NumberPlan,
    pub media: TrunkMedia,
}

/// How media travels on the legs of one trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkMedia {
    pub nat: Nat,
    pub srtp: Srtp,
    /// What may encrypt, the most wanted first; never empty, each once.
    pub suites: Box<[SrtpSuite]>,
    pub ice: Ice,
    /// `None`: silence is not looked for.
    pub rtp_timeout: Option<RtpTimeout>,
    /// When nothing can pass between the peer and us any more. As above about emergency calls.
    pub failure_action: MediaAction,
}

/// A direction that should have packets and has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpTimeout {
    pub after: Duration,
    /// Never [`MediaAction::Bye`] to an emergency call: whoever acts on it looks.
    pub action: MediaAction,
}

/// One address of a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub addr: SocketAddr,
    pub transport: Transport,
    /// Lower is tried first.
    pub priority: u16,
    /// Share among targets of equal priority.
    pub weight: u16,
    /// As in the document.
    pub uri: String,
}

/// Admission limits of a trunk. Emergency calls pass them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrunkLimits {
    /// Calls at the same time.
    pub calls: Option<u32>,
    /// New calls per second.
    pub cps: Option<u32>,
}

/// Health checks by OPTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub interval: Duration,
    /// Failed checks in a row after which a target is down.
    pub failures: u32,
}

/// STIR/SHAKEN on one trunk, after the switches of `features.stir_shaken`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub sign: bool,
    pub verify: bool,
    pub on_failure: OnFailure,
    /// Calls toward this trunk say how their verification came out (ST-63, ST-64).
    pub verstat: bool,
}

/// Which headers of a peer are believed (EM-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    pub asserted_identity: bool,
    pub location: bool,
}

/// Where ordinary calls go.
#[derive(Clone, Debug)]
pub struct Route {
    pub id: String,
    /// In the order in which they are tried.
    pub trunks: Vec<TrunkId>,
}

/// A place people call 911 from.
#[derive(Clone, Debug)]
pub struct Site {
    /// The number that users and the API know.
    pub site_id: u32,
    pub name: String,
    /// Number of the PSAP as dialled toward the trunk; `911` unless configured.
    pub psap: String,
    /// Callback number, E.164 with `+`.
    pub elin: Option<String>,
    /// False for VPN and shared pools: no location is derived (EM-26).
    pub is_a_place: bool,
    pub address: Address,
}

/// A civic address (RFC 5139 elements as far as the documents have them).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// House number and street.
    pub street: Option<String>,
    pub building: Option<String>,
    pub floor: Option<String>,
    pub room: Option<String>,
    pub city: Option<String>,
    pub state: Option<String>,
    pub postal_code: Option<String>,
    /// ISO 3166 two-letter code.
    pub country: String,
}

/// The dispatchable location in one line: street, building, floor, room, city, state, ZIP, without
/// what is absent; `Location on file` if all of it is.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("", &self.street),
            ("Building: ", &self.building),
            ("Floor ", &self.floor),
            ("Room ", &self.room),
            ("", &self.city),
            ("", &self.state),
            ("", &self.postal_code),
        ];
        let mut separator = "";
        for (label, part) in parts {
            if let Some(part) = part {
                write!(f, "{separator}{label}{part}")?;
                separator = ", ";
            }
        }
        if separator.is_empty() { f.write_str("Location on file") } else { Ok(()) }
    }
}

/// STIR/SHAKEN of this provider. Paths as in the document, relative to the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stir {
    pub signing: bool,
    pub verification: bool,
    pub certificate_path: Option<String>,
    pub private_key_path: Option<String>,
    pub ca_cert_path: Option<String>,
    /// The `x5u`.
    pub certificate_url: Option<String>,
    pub service_provider_code: Option<String>,
    /// `default_attestation`: an upper bound (ST-10).
    pub ceiling: Option<AttestationLevel>,
}

/// How well the caller's right to its number is known (RFC 8588). `A` is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttestationLevel {
    A,
    B,
    C,
}

impl AttestationLevel {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

/// Stable name of the rule that decided, for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub &'static str);

/// Outcome of the attestation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// `None`: no authority, must not be signed.
    pub level: Option<AttestationLevel>,
    pub rule: RuleId,
}

/// A site and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteMatch {
    pub site: SiteId,
    pub rule: SiteRule,
}

/// Why a site was chosen, in order of precedence (EM-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteRule {
    /// The extension is pinned to the site.
    Pinned,
    /// The packet's source address is in the range of the site.
    Address,
    /// The extension is assigned to the site, and no address matched.
    Assigned,
    /// The site is the default of the trunk.
    TrunkDefault,
}

impl SiteRule {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Address => "address",
            Self::Assigned => "assigned",
            Self::TrunkDefault => "trunk_default",
        }
    }
}

/// A site together with where its caller is, for records that need both.
#[derive(Clone, Copy, Debug)]
pub struct Location<'s> {
    pub site: Option<SiteMatch>,
    /// `None`: no location is known, the call goes out all the same.
    pub address: Option<&'s Address>,
}

/// One trunk of an emergency chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmergencyStep {
    pub trunk: TrunkId,
    pub tier: Tier,
}

/// Why a trunk is in an emergency chain (EM-50).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Trunk of the site.
    Site,
    /// `karis_law.emergency_trunk_id`.
    Global,
    /// Flagged `may_carry_emergency`.
    Flagged,
    /// Any carrier; may reach the wrong PSAP.
    LastResort,
}

impl Tier {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Global => "global",
            Self::Flagged => "flagged",
            Self::LastResort => "last_resort",
        }
    }
}

impl Snapshot {
    /// The trunk whose sources contain `source`, the most specific one (address before prefix, with
    /// port before without).
    #[must_use]
    pub fn trunk_by_source(&self, realm: RealmId, source: SocketAddr) -> Option<TrunkId> {
        self.tables.sources.get(usize::from(realm.0))?.find(source)
    }

    /// The same where the source port is not known.
    #[must_use]
    pub fn trunk_by_address(&self, realm: RealmId, source: IpAddr) -> Option<TrunkId> {
        self.tables.sources.get(usize::from(realm.0))?.find_any_port(source)
    }

    /// What kind of call a Request-URI asks for. Total on arbitrary bytes, allocates nothing
    /// (EM-9..EM-16).
    #[must_use]
    pub fn classify(&self, realm: RealmId, request_uri: &[u8]) -> Class {
        self.tables
            .classes
            .get(usize::from(realm.0))
            .map_or(Class::None, |table| table.classify(request_uri))
    }

    /// What the test guard blocks in test mode: [`crate::guard_matches`], and what is an emergency
    /// number in any realm of this document.
    #[must_use]
    pub fn guard_matches(&self, uri: &[u8]) -> bool {
        crate::guard_matches(uri)
            || self
                .tables
                .classes
                .iter()
                .any(|table| matches!(table.classify(uri), Class::Emergency(_)))
    }

    /// The site that the packet's source address belongs to (EM-22..EM-24).
    #[must_use]
    pub fn site(&self, realm: RealmId, source: IpAddr) -> Option<SiteMatch> {
        let index = self.tables.sites.get(usize::from(realm.0))?.get(source)?;
        Some(SiteMatch { site: SiteId(index), rule: SiteRule::Address })
    }

    /// The site of a caller by all rules of EM-25 that need no header, and where that is: pinned
    /// extension, address, assigned extension, default of the trunk. Without a site, or where the
    /// site is no place (EM-26), the location is the default of the document (EM-27).
    #[must_use]
    pub fn locate(
        &self,
        realm: RealmId,
        source: IpAddr,
        extension: Option<&[u8]>,
        trunk: Option<TrunkId>,
    ) -> Location<'_> {
        let assigned = extension.and_then(|extension| self.extension_site(extension));
        let site = match assigned {
            Some(found) if found.rule == SiteRule::Pinned => Some(found),
            _ => self.site(realm, source).or(assigned).or_else(|| {
                let site = self.trunk(trunk?)?.default_site?;
                Some(SiteMatch { site, rule: SiteRule::TrunkDefault })
            }),
        };
        let address = site
            .and_then(|found| self.site_settings(found.site))
            .filter(|site| site.is_a_place)
            .map(|site| &site.address)
            .or(self.default_location.as_ref());
        Location { site, address }
    }

    /// The site that the document assigns to an extension.
    #[must_use]
    pub fn extension_site(&self, extension: &[u8]) -> Option<SiteMatch> {
        let entries = &self.tables.extensions;
        let at = entries.binary_search_by(|entry| (*entry.extension).cmp(extension)).ok()?;
        let entry = entries.get(at)?;
        let rule = if entry.pinned { SiteRule::Pinned } else { SiteRule::Assigned };
        Some(SiteMatch { site: entry.site, rule })
    }

    /// Trunks of an emergency call in the order in which they are tried, each once (EM-50). Health
    /// orders them further but never removes one; that is the engine's part.
    pub fn emergency_chain(&self, site: Option<SiteId>) -> impl Iterator<Item = TrunkId> + '_ {
        self.emergency_steps(site).iter().map(|step| step.trunk)
    }

    /// [`Self::emergency_chain`] with the reason for each trunk.
    #[must_use]
    pub fn emergency_steps(&self, site: Option<SiteId>) -> &[EmergencyStep] {
        let chain = site.and_then(|site| {
            let at = *self.tables.chain_of_site.get(site.0 as usize)?;
            self.tables.chains.get(at as usize)
        });
        chain.or_else(|| self.tables.chains.first()).map(|chain| &**chain).unwrap_or_default()
    }

    /// Trunks for an address test call (933): those of the emergency chain that answer it, then any
    /// other that does (EM-19).
    pub fn address_test_chain(&self, site: Option<SiteId>) -> impl Iterator<Item = TrunkId> + '_ {
        let answers = |trunk: &TrunkId| self.trunk(*trunk).is_some_and(|t| t.address_test);
        let steps = self.emergency_steps(site);
        let all = (0_u16..).map(TrunkId).take(self.trunks.len());
        let others = all.filter(move |trunk| !steps.iter().any(|step| step.trunk == *trunk));
        steps.iter().map(|step| step.trunk).chain(others).filter(answers)
    }

    /// The first route for a call from `from` to `dialled` (user part of the Request-URI).
    #[must_use]
    pub fn route(&self, from: TrunkId, dialled: &[u8]) -> Option<RouteId> {
        let dialled = Dialled::parse(dialled, self.trunk(from)?.number_plan);
        self.tables.routes.lookup(from, dialled.as_ref())
    }

    /// The attestation that a call from `from` with the caller number `tn` (user part of the
    /// caller's URI) gets (ST-10): derived, never defaulted; `default_attestation` only lowers it.
    #[must_use]
    pub fn attestation(&self, from: TrunkId, tn: &[u8]) -> Attestation {
        use AttestationLevel::{A, B, C};
        let Some(trunk) = self.trunk(from).filter(|_| self.stir.signing) else {
            return Attestation { level: None, rule: RuleId("signing-disabled") };
        };
        let (level, rule, lowered) = if trunk.role != Role::Customer {
            (C, "gateway", "gateway")
        } else if self.is_entitled(from, trunk.number_plan, tn) {
            (A, "customer-entitled", "customer-entitled-capped")
        } else {
            (B, "customer-not-entitled", "customer-not-entitled-capped")
        };
        match self.stir.ceiling {
            Some(ceiling) if level < ceiling => {
                Attestation { level: Some(ceiling), rule: RuleId(lowered) }
            }
            _ => Attestation { level: Some(level), rule: RuleId(rule) },
        }
    }

    /// Only a telephone number can be entitled: `numbers: ["*"]` does not cover names.
    fn is_entitled(&self, from: TrunkId, plan: NumberPlan, tn: &[u8]) -> bool {
        let Some(number) = Dialled::parse(tn, plan) else { return false };
        let entitled = self.tables.entitlements.get(usize::from(from.0));
        number.international().is_some()
            && entitled.is_some_and(|numbers| numbers.lookup(Some(&number)).is_some())
    }

    #[must_use]
    pub fn realm_by_id(&self, id: &str) -> Option<RealmId> {
        let index = self.realms.iter().position(|realm| realm.id == id)?;
        u16::try_from(index).ok().map(RealmId)
    }

    #[must_use]
    pub fn trunk_by_id(&self, id: &str) -> Option<TrunkId> {
        let index = self.trunks.iter().position(|trunk| trunk.id == id)?;
        u16::try_from(index).ok().map(TrunkId)
    }

    #[must_use]
    pub fn realm(&self, id: RealmId) -> Option<&Realm> {
        self.realms.get(usize::from(id.0))
    }

    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&Trunk> {
        self.trunks.get(usize::from(id.0))
    }

    #[must_use]
    pub fn route_settings(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(usize::from(id.0))
    }

    #[must_use]
    pub fn site_settings(&self, id: SiteId) -> Option<&Site> {
        self.sites.get(usize::try_from(id.0).ok()?)
    }
}

/// Shared between shards without a lock: this must stay true.
const _: fn() = || {
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<Arc<Snapshot>>();
};
