//! Listeners, media ranges, cores, capacities.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use ravelin_contract::config::{Config, Transport};

use super::{Faults, Names, text};
use crate::{Dscp, Limits, Listener, MediaRange, Realm, RealmId};

/// Cores of one node: each has a shard, of which the edge takes no more.
pub(crate) const CORES_MAX: usize = 128;
/// Listeners: so many sockets a shard has besides those of media.
pub(crate) const LISTENERS_MAX: usize = 64;
pub(crate) const MEDIA_RANGES_MAX: usize = 1024;
const MEDIA_PORT_MIN: u16 = 1024;

const CALLS_DEFAULT: u32 = 20_000;
const CONNECTIONS_DEFAULT: u32 = 4_096;
const CONNECTION_IDLE_DEFAULT: Duration = Duration::from_secs(600);
const CAPTURE_BYTES_MAX: u64 = 256 * 1024;
const MESSAGE_BYTES_DEFAULT: u32 = 65_535;

pub(super) fn cores(config: &Config, faults: &mut Faults) {
    let cores = &config.edge.cores;
    if cores.len() > CORES_MAX {
        let reason = format!("{} cores; at most {CORES_MAX} are possible", cores.len());
        faults.error("edge.cores", reason);
    }
    for (index, core) in cores.iter().enumerate() {
        if cores.iter().take(index).any(|earlier| earlier == core) {
            faults.error(format!("edge.cores[{index}]"), format!("core {core} is listed twice"));
        }
    }
}

pub(super) fn listeners(
    config: &Config,
    names: &Names<'_>,
    realms: &[Realm],
    faults: &mut Faults,
) -> Vec<Listener> {
    let raw = &config.edge.listeners;
    if raw.is_empty() {
        faults.error("edge.listeners", "is empty: nothing could be received");
    }
    if raw.len() > LISTENERS_MAX {
        let reason = format!("{} listeners; at most {LISTENERS_MAX}", raw.len());
        faults.error("edge.listeners", reason);
    }
    let mut listeners = Vec::new();
    let mut ids = HashMap::new();
    let mut binds: HashMap<(bool, SocketAddr), &str> = HashMap::new();
    for (index, raw) in raw.iter().enumerate() {
        let at = |key: &str| format!("edge.listeners[{index}].{key}");
        text::check_id(&at("id"), &raw.id, faults);
        if ids.insert(raw.id.as_str(), index).is_some() {
            faults.conflict(at("id"), format!("listener `{}` is listed twice", raw.id));
        }
        text::check_id(&at("realm"), &raw.realm, faults);
        if raw.transport == Transport::Tls {
            faults.error(at("transport"), "tls listeners are not part of this release");
        }
        let bind = faults.check(at("bind"), text::host_socket(&raw.bind));
        if let Some(bind) = bind
            && let Some(other) = binds.insert((raw.transport == Transport::Udp, bind), &raw.id)
        {
            let reason = format!("{bind} is already bound by listener `{other}`");
            faults.conflict(at("bind"), reason);
        }
        let advertise = match &raw.advertise {
            None => bind,
            Some(text) => {
                let advertise = faults.check(at("advertise"), text::host_socket(text));
                if let (Some(a), Some(b)) = (advertise, bind)
                    && a.is_ipv4() != b.is_ipv4()
                {
                    faults.error(at("advertise"), "is of another address family than `bind`");
                }
                advertise
            }
        };
        let realm = names.realms.get(raw.realm.as_str()).copied();
        if let (Some(bind), Some(advertise), Some(realm)) = (bind, advertise, realm) {
            let transport = raw.transport;
            let dscp = dscp(realms, realm).signalling;
            let id = raw.id.clone();
            listeners.push(Listener { id, realm, transport, bind, advertise, dscp });
        }
    }
    listeners
}

pub(super) fn media(
    config: &Config,
    names: &Names<'_>,
    realms: &[Realm],
    listeners: &[Listener],
    faults: &mut Faults,
) -> Vec<MediaRange> {
    let raw = &config.edge.media;
    if raw.len() > MEDIA_RANGES_MAX {
        let reason = format!("{} ranges; at most {MEDIA_RANGES_MAX}", raw.len());
        faults.error("edge.media", reason);
    }
    let mut ranges: Vec<MediaRange> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let at = |key: &str| format!("edge.media[{index}].{key}");
        let realm = known_realm(&at("realm"), &raw.realm, names, faults);
        let address = faults.check(at("address"), text::host_address(&raw.address));
        let advertise = match &raw.advertise {
            None => address,
            Some(text) => faults.check(at("advertise"), text::host_address(text)),
        };
        if let (Some(a), Some(b)) = (address, advertise)
            && a.is_ipv4() != b.is_ipv4()
        {
            faults.error(at("advertise"), "is of another address family than `address`");
        }
        let ports = faults.check(at("ports"), ports(&raw.ports, config.edge.cores.len()));
        let (Some(realm), Some(address), Some(advertise), Some((first_port, last_port))) =
            (realm, address, advertise, ports)
        else {
            continue;
        };
        let (dscp, driver) = (dscp(realms, realm).media, raw.driver);
        let range = MediaRange { realm, address, advertise, first_port, last_port, driver, dscp };
        check_overlap(&at("ports"), &range, &ranges, listeners, faults);
        ranges.push(range);
    }
    ranges
}

fn dscp(realms: &[Realm], realm: RealmId) -> Dscp {
    realms.get(usize::from(realm.0)).map(|realm| realm.dscp).unwrap_or_default()
}

/// First and last port of `FIRST-LAST`.
fn ports(text: &str, cores: usize) -> Result<(u16, u16), String> {
    let parse = |port: &str| port.trim().parse::<u16>().ok();
    let (first, last) = text
        .split_once('-')
        .and_then(|(first, last)| Some((parse(first)?, parse(last)?)))
        .ok_or_else(|| format!("`{text}` is not FIRST-LAST, for example 20000-24999"))?;
    if first < MEDIA_PORT_MIN {
        return Err(format!("`{text}` starts below {MEDIA_PORT_MIN}"));
    }
    if first > last {
        return Err(format!("`{text}` ends before it starts"));
    }
    if !first.is_multiple_of(2) || last.is_multiple_of(2) {
        return Err(format!(
            "`{text}` has to start with an even port (RTP) and end with an odd one (its RTCP)"
        ));
    }
    let pairs = usize::from((last - first) / 2) + 1;
    if pairs < cores {
        return Err(format!(
            "`{text}` is too small: {pairs} port pairs for {cores} cores, and each needs its own"
        ));
    }
    Ok((first, last))
}

fn check_overlap(
    path: &str,
    range: &MediaRange,
    earlier: &[MediaRange],
    listeners: &[Listener],
    faults: &mut Faults,
) {
    let shared = |other: &&MediaRange| {
        other.address == range.address
            && other.first_port <= range.last_port
            && range.first_port <= other.last_port
    };
    if let Some(other) = earlier.iter().find(shared) {
        let reason =
            format!("overlaps ports {}-{} of the same address", other.first_port, other.last_port);
        faults.conflict(path, reason);
    }
    let ports = range.first_port..=range.last_port;
    let taken = |listener: &&Listener| {
        listener.transport == Transport::Udp
            && listener.bind.ip() == range.address
            && ports.contains(&listener.bind.port())
    };
    if let Some(listener) = listeners.iter().find(taken) {
        let reason =
            format!("contains port {} of listener `{}`", listener.bind.port(), listener.id);
        faults.conflict(path, reason);
    }
}

/// The position of a realm that the document has to know.
pub(super) fn known_realm(
    path: &str,
    id: &str,
    names: &Names<'_>,
    faults: &mut Faults,
) -> Option<RealmId> {
    let realm = names.realms.get(id).copied();
    if realm.is_none() {
        let mut known: Vec<&str> = names.realms.keys().copied().collect();
        known.sort_unstable();
        let reason = format!(
            "unknown realm `{id}`: neither in `realms` nor named by a listener; known: {}",
            known.join(", ")
        );
        faults.error(path, reason);
    }
    realm
}

pub(super) fn limits(config: &Config, faults: &mut Faults) -> Limits {
    let raw = config.edge.limits.clone().unwrap_or_default();
    let at = |key: &str| format!("edge.limits.{key}");
    let idle = match &raw.connection_idle {
        None => CONNECTION_IDLE_DEFAULT,
        Some(text) => duration(&at("connection_idle"), text, 5_000, 86_400_000, faults)
            .unwrap_or(CONNECTION_IDLE_DEFAULT),
    };
    let message_bytes = match &raw.message_bytes {
        None => MESSAGE_BYTES_DEFAULT,
        Some(text) => {
            let parsed = faults.check(at("message_bytes"), text.parse());
            let octets = parsed.unwrap_or_else(|| u64::from(MESSAGE_BYTES_DEFAULT));
            let octets = faults.in_range(
                &at("message_bytes"),
                octets,
                4096..=u64::from(MESSAGE_BYTES_DEFAULT),
            );
            u32::try_from(octets).unwrap_or(MESSAGE_BYTES_DEFAULT)
        }
    };
    let capture_bytes = raw.capture_bytes.as_ref().map_or(0, |text| {
        let octets = faults.check(at("capture_bytes"), text.parse()).unwrap_or(0);
        let octets = faults.in_range(&at("capture_bytes"), octets, 0..=CAPTURE_BYTES_MAX);
        u32::try_from(octets).unwrap_or(0)
    });
    Limits {
        calls: faults.in_range(&at("calls"), raw.calls.unwrap_or(CALLS_DEFAULT), 1..=1_000_000),
        cps: raw.cps.map(|cps| faults.in_range(&at("cps"), cps, 1..=100_000)),
        connections: faults.in_range(
            &at("connections"),
            raw.connections.unwrap_or(CONNECTIONS_DEFAULT),
            1..=1_000_000,
        ),
        connection_idle: idle,
        message_bytes,
        capture_bytes,
    }
}

/// A duration within `min_ms..=max_ms`.
pub(super) fn duration(
    path: &str,
    text: &ravelin_contract::config::DurationText,
    min_ms: u64,
    max_ms: u64,
    faults: &mut Faults,
) -> Option<Duration> {
    let duration = faults.check(path, text.parse())?;
    let allowed = Duration::from_millis(min_ms)..=Duration::from_millis(max_ms);
    if !allowed.contains(&duration) {
        let reason = format!("{} is not within {min_ms}ms-{max_ms}ms", text.0);
        faults.error(path, reason);
        return None;
    }
    Some(duration)
}
