//! What the data plane binds, and how much of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, SizeText};

/// How this installation is meant to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// `production`: emergency calls go out. `test`: the test guard blocks them at the last egress
    /// point (EM-17). Test signals (variables, file name) together with `production` refuse start.
    pub mode: Mode,
}

/// See [`Deployment::mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Production,
    Test,
}

/// The data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Processor numbers, one shard each, at most 256. Empty or absent: every core that the
    /// process may use. A change needs a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<u16>,
    /// Where SIP is received. At least one. A change needs a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// Where RTP is relayed. A change needs a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// Capacities of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<EdgeLimits>,
}

/// One signalling address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name.
    pub id: String,
    /// The network that this address faces.
    pub realm: String,
    pub transport: Transport,
    /// `ADDRESS:PORT`, IPv6 as `[ADDRESS]:PORT`. No wildcard address: what we bind is what we
    /// write into Via and Contact.
    pub bind: String,
    /// `ADDRESS:PORT` written into Via and Contact in place of `bind`, for a static NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

/// How SIP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// One range of media ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// The network that this address faces.
    pub realm: String,
    /// Address to bind, v4 or v6.
    pub address: String,
    /// `FIRST-LAST`, both included: FIRST even (RTP), LAST odd (its RTCP), 1024-65535.
    pub ports: String,
    /// How packets are moved. `auto` takes io_uring, else recvmmsg/sendmmsg, and adds the fast path
    /// below the sockets where the driver of the interface runs it; `xdp` also in generic mode.
    #[serde(default)]
    pub driver: MediaDriver,
    /// Address written into SDP in place of `address`, for a static NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

/// See [`Media::driver`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaDriver {
    #[default]
    Auto,
    Xdp,
    Uring,
    Mmsg,
}

/// Capacities of one edge node, over all its shards. Emergency calls have a reserve beyond them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeLimits {
    /// Calls at the same time, 1-1,000,000. Default 20,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// New calls per second, 1-100,000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cps: Option<u32>,
    /// Stream connections at the same time, 1-1,000,000. Default 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// A stream connection without traffic is closed after this time, 5s-24h. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_idle: Option<DurationText>,
    /// Largest SIP message that is taken, 4KiB-65535B; a longer request gets 513. Emergency calls
    /// are not bound by it. Default 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<SizeText>,
    /// Octets of SIP messages that are kept of each ordinary call while it lasts, for
    /// `ravelin trace --pcap`, 0-256KiB. They hold what the parties said of themselves. Default 0:
    /// nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_bytes: Option<SizeText>,
}
