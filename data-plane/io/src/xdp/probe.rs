//! Whether what the program sends arrives: asked by test frames, at the start and ever again.

use super::netlink::{Link, Netlink};
use crate::sys::bpf;
use aya::programs::ProgramFd;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Frames by which an interface shows that it transmits.
const PROBE_FRAMES: u32 = 64;
/// How long they are sent again before an interface is given up at the start, and while it carries
/// calls. On a loaded machine the other end's thread may not run for as long as its ring needs to be
/// full, and what is sent meanwhile is lost.
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

impl Prober {
    pub(super) fn new(program: ProgramFd) -> Self {
        Self { program }
    }

    /// A veth takes frames below the sockets only if its other end is ready for them, and drops
    /// them without a word else. Its count of sent packets tells. Other interfaces take them while
    /// they are up.
    pub(super) fn try_link(
        &self,
        netlink: &mut Netlink,
        link: &Link,
        within: Duration,
    ) -> Result<(), String> {
        if link.kind != "veth" {
            return Ok(());
        }
        let mut sent = || {
            let links = netlink.links().map_err(|error| error.to_string())?;
            let found = links.iter().find(|found| found.index == link.index);
            found.map(|found| found.tx_packets).ok_or_else(|| "it vanished".to_owned())
        };
        let mac = link.mac.unwrap_or_default();
        let mut frame = [0; PROBE_BYTES];
        frame[..6].copy_from_slice(&mac);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&PROBE_ETHERTYPE);
        let until = Instant::now() + within;
        loop {
            let before = sent()?;
            let run = bpf::run_frames(self.program.as_fd(), &frame, link.index, PROBE_FRAMES);
            run.map_err(|error| format!("test frames are refused: {error}"))?;
            if sent()?.saturating_sub(before) >= u64::from(PROBE_FRAMES) {
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
