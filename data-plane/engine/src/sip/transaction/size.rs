//! RFC 3261 18.1.1: requests too large for UDP go over TCP, and targets that refuse TCP are
//! remembered for a while.

use std::{collections::VecDeque, net::SocketAddr};

use crate::{
    limits::{TCP_REFUSED_HOLD, TCP_REFUSED_TARGETS_MAX},
    time::Instant,
};

/// Targets that refused TCP lately, oldest first.
#[derive(Debug, Default)]
pub(super) struct RefusedTargets(VecDeque<(SocketAddr, Instant)>);

impl RefusedTargets {
    pub(super) fn contains(&mut self, now: Instant, target: SocketAddr) -> bool {
        while self.0.front().is_some_and(|(_, until)| *until <= now) {
            self.0.pop_front();
        }
        self.0.iter().any(|(refused, _)| *refused == target)
    }

    pub(super) fn add(&mut self, now: Instant, target: SocketAddr) {
        self.0.retain(|(refused, _)| *refused != target);
        if self.0.len() == TCP_REFUSED_TARGETS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((target, now + TCP_REFUSED_HOLD));
    }
}

/// Sets the transport of the first Via of a request that we wrote: `SIP/2.0/UDP` to `SIP/2.0/TCP`
/// or back, in place. False if there is no such Via, which a request of ours always has.
pub(super) fn set_via_transport(request: &mut [u8], transport: &[u8; 3]) -> bool {
    const BEFORE: &[u8] = b"\r\nVia: SIP/2.0/";
    let found = request.windows(BEFORE.len()).position(|window| window == BEFORE);
    let place = found
        .map(|at| at + BEFORE.len())
        .and_then(|start| request.get_mut(start..start + transport.len()));
    place.is_some_and(|place| {
        place.copy_from_slice(transport);
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_expire_and_are_bounded() {
        let target = |n: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(n).unwrap()));
        let mut refused = RefusedTargets::default();
        let now = Instant::from_millis(5);
        for n in 0..=TCP_REFUSED_TARGETS_MAX {
            refused.add(now, target(n));
        }
        assert!(!refused.contains(now, target(0)), "the oldest was forgotten");
        assert!(refused.contains(now, target(1)));
        assert_eq!(refused.0.len(), TCP_REFUSED_TARGETS_MAX);
        assert!(!refused.contains(now + TCP_REFUSED_HOLD, target(1)));
        assert!(refused.0.is_empty());
    }

    #[test]
    fn only_the_first_via_changes() {
        let mut request =
            b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP g\r\n\r\n".to_vec();
        assert!(set_via_transport(&mut request, b"TCP"));
        assert_eq!(
            request,
            b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nVia: SIP/2.0/UDP g\r\n\r\n"
        );
        assert!(!set_via_transport(&mut b"OPTIONS sip:a SIP/2.0\r\n\r\n".to_vec(), b"TCP"));
    }
}
