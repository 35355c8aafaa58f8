//! Whether what the program sends is taken: asked by test frames, at the start and ever again.

use super::netlink::{Link, Netlink};
use crate::sys::{bpf, ethtool};
use aya::programs::ProgramFd;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Frames by which an interface shows that it transmits.
const PROBE_FRAMES: u32 = 64;
/// How long one that takes none is asked again before it is given up, at the start and while it carries
/// calls: who makes an interface often readies its other end a moment later.
pub(super) const AT_START: Duration = Duration::from_secs(1);
pub(super) const WHILE_RUNNING: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(10);
/// Length of the shortest Ethernet frame, and the EtherType for local experiments (IEEE 802).
const PROBE_BYTES: usize = 60;
const PROBE_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Sends frames that nobody takes for theirs.
pub(super) struct Prober {
    program: ProgramFd,
}

/// What tells that a veth's other end takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Frames that its ring took, or was too full for, counted while they are sent: the answer is there
    /// when the frames are gone, whether or not a thread at the other end has looked at them.
    Offered(u64),
    /// Without such a count: packets that the other end has received, some time later.
    Received(u64),
}

impl Seen {
    fn now(netlink: &mut Netlink, link: &Link) -> Result<Self, String> {
        // `tx_queue_0_xdp_xmit` and `tx_queue_0_xdp_xmit_errors`, and so for each queue.
        let offered = |name: &[u8]| {
            let name = name.strip_suffix(b"_errors").unwrap_or(name);
            name.starts_with(b"tx_queue_") && name.ends_with(b"_xdp_xmit")
        };
        if let Ok(Some(count)) = ethtool::sum_of_veth(&link.name, offered) {
            return Ok(Self::Offered(count));
        }
        let links = netlink.links().map_err(|error| error.to_string())?;
        let found = links.iter().find(|found| found.index == link.index);
        found.map(|found| Self::Received(found.tx_packets)).ok_or_else(|| "it vanished".to_owned())
    }

    /// Whether frames that were sent `since` were taken.
    fn shows(self, since: Self) -> bool {
        match (self, since) {
            (Self::Offered(now), Self::Offered(before)) => now != before,
            (Self::Received(now), Self::Received(before)) => {
                now.saturating_sub(before) >= u64::from(PROBE_FRAMES)
            }
            _ => false,
        }
    }
}

impl Prober {
    pub(super) fn new(program: ProgramFd) -> Self {
        Self { program }
    }

    /// A veth takes frames below the sockets only if its other end is ready for them, and drops
    /// them without a word else. Its counts tell. Other interfaces take them while they are up.
    pub(super) fn try_link(
        &self,
        netlink: &mut Netlink,
        link: &Link,
        within: Duration,
    ) -> Result<(), String> {
        if link.kind != "veth" {
            return Ok(());
        }
        let mac = link.mac.unwrap_or_default();
        let mut frame = [0; PROBE_BYTES];
        frame[..6].copy_from_slice(&mac);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&PROBE_ETHERTYPE);
        let (until, since) = (Instant::now() + within, Seen::now(netlink, link)?);
        loop {
            let run = bpf::run_frames(self.program.as_fd(), &frame, link.index, PROBE_FRAMES);
            run.map_err(|error| format!("test frames are refused: {error}"))?;
            // All since the beginning: what was sent first may be received last.
            if Seen::now(netlink, link)?.shows(since) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err("its other end does not take frames: enable GRO there (ethtool -K \
                            NAME gro on) or attach any XDP program"
                    .to_owned());
            }
            std::thread::sleep(PAUSE);
        }
    }
}
