//! The interfaces behind the media addresses.

use super::layout::{FLAG_ALWAYS_REDIRECT, FLAG_FILL_CHECKSUM, FLAG_KEEP_PARTIAL, Ingress};
use super::netlink::{Link, Netlink};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::{fmt, io};

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the interface's driver.
    Native,
    /// In the kernel's receive path, where the driver cannot: slower, and still below the sockets.
    Generic,
}

impl Mode {
    /// For logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Why the fast path is not there, or not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No interface has this address.
    NoInterface { address: IpAddr },
    /// The interface has no link layer that XDP could read.
    NotEthernet { interface: String },
    /// Loopback has no XDP.
    Loopback { interface: String },
    /// Another program is attached there.
    Occupied { interface: String, program: String },
    /// The driver refuses, or what is behind it cannot take frames.
    NoNative { interface: String, error: String },
    /// Generic mode is refused too.
    NoGeneric { interface: String, error: String },
    /// No AF_XDP there, or not on all queues: streams whose contents must be touched take the
    /// sockets.
    NoAfXdp { interface: String, error: String },
    /// bpf(2) or netlink is forbidden, or lacks something.
    Kernel { what: &'static str, error: String },
    /// No BPF file system: a killed process may lose the fast path.
    NotPinned { error: String },
    /// A living process has the fast path under this node's name.
    NodeInUse { node: String, process: Option<u32> },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { address } => {
                write!(f, "no single interface has the media address {address}")
            }
            Self::NotEthernet { interface } => write!(f, "{interface} is no Ethernet interface"),
            Self::Loopback { interface } => {
                write!(f, "{interface} is the loopback, which has no XDP")
            }
            Self::Occupied { interface, program } => {
                write!(f, "{interface} has another XDP program ({program}); detach that one")
            }
            Self::NoNative { interface, error } => {
                write!(f, "{interface} cannot do native XDP: {error}")
            }
            Self::NoGeneric { interface, error } => {
                write!(f, "{interface} cannot do generic XDP: {error}")
            }
            Self::NoAfXdp { interface, error } => {
                write!(f, "{interface} has no AF_XDP, or not on all queues: {error}")
            }
            Self::Kernel { what, error } => write!(
                f,
                "{what}: {error}; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed, and kernel \
                 6.1 or newer"
            ),
            Self::NotPinned { error } => write!(
                f,
                "nothing is pinned, so a process that is killed takes its streams along: {error}"
            ),
            Self::NodeInUse { node, process } => {
                write!(f, "another edge of node {node} runs on this machine")?;
                if let Some(process) = process {
                    write!(f, " (process {process})")?;
                }
                f.write_str(
                    " and has the fast path: stop that one, or give this one another `node`",
                )
            }
        }
    }
}

/// One interface that packets physically come through.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) mode: Mode,
    /// Hands over packets whose checksum is not computed: in native mode a veth.
    pub(super) partial: bool,
    /// What is sent there gets lost: streams that would leave there stay with the sockets.
    pub(super) stalled: bool,
}

/// Which interfaces the media addresses are on, and which have the program.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    links: BTreeMap<u32, Link>,
    addresses: Vec<(IpAddr, u32)>,
    pub(super) attached: BTreeMap<u32, Attached>,
}

impl Interfaces {
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let mut interfaces = Self::default();
        interfaces.refresh(netlink)?;
        Ok(interfaces)
    }

    /// Reads addresses, hardware addresses and MTUs anew; what is attached stays.
    pub(super) fn refresh(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.links = netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        self.addresses = netlink.addresses()?;
        Ok(())
    }

    /// Whether the same addresses are at the same interfaces with the program.
    pub(super) fn serves_as(&self, other: &Self) -> bool {
        let modes = |all: &Self| -> Vec<_> {
            all.attached.iter().map(|(index, attached)| (*index, attached.mode)).collect()
        };
        self.addresses == other.addresses && modes(self) == modes(other)
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    fn owner(&self, address: IpAddr) -> Option<&Link> {
        let mut owners = self.addresses.iter().filter(|(owned, _)| *owned == address);
        let (_, index) = owners.next()?;
        // On two interfaces: nobody can say where its packets arrive.
        if owners.any(|(_, other)| other != index) {
            return None;
        }
        self.links.get(index)
    }

    /// The interface below a VLAN, or the interface itself, and the tag of its packets.
    pub(super) fn physical(&self, index: u32) -> Option<(&Link, u16)> {
        let link = self.links.get(&index)?;
        match link.vlan {
            None => Some((link, 0)),
            Some((below, tag)) => {
                let below = self.links.get(&below)?;
                below.vlan.is_none().then_some((below, tag))
            }
        }
    }

    /// Where the program has to be attached for an address.
    pub(super) fn behind(&self, address: IpAddr) -> Result<&Link, Reason> {
        let owner = self.owner(address).ok_or(Reason::NoInterface { address })?;
        let interface = owner.name.clone();
        if owner.loopback {
            return Err(Reason::Loopback { interface });
        }
        match self.physical(owner.index) {
            Some((link, _)) if link.mac.is_some() => Ok(link),
            _ => Err(Reason::NotEthernet { interface }),
        }
    }

    /// What packets to an address look like when they arrive, and at which interface; `None` if
    /// the program is not there.
    pub(super) fn ingress(&self, address: IpAddr) -> Option<(u32, Ingress)> {
        let owner = self.owner(address)?;
        let (link, vlan) = self.physical(owner.index)?;
        let attached = self.attached.get(&link.index)?;
        let flags = match (attached.partial, attached.mode) {
            (false, _) => 0,
            (true, Mode::Native) => FLAG_FILL_CHECKSUM | FLAG_ALWAYS_REDIRECT,
            (true, Mode::Generic) => FLAG_KEEP_PARTIAL,
        };
        Some((link.index, Ingress { mac: owner.mac?, vlan, flags }))
    }
}
