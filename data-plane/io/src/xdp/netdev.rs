//! What the kernel lets an interface's queues be told by the generic netlink family `netdev`: when
//! they are looked at.

use super::netlink::{NLM_F_ACK, NLM_F_DUMP, Netlink, find, put, u32_at};
use std::io;

const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const NAPI_GET: u8 = 11;
const NAPI_SET: u8 = 14;
const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_DEFER_HARD_IRQS: u16 = 5;
const NAPI_GRO_FLUSH_TIMEOUT: u16 = 6;

/// A queue of an interface, as far as it matters when the kernel looks at it by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// The kernel's number, unique on this machine while the queue is there.
    pub(super) id: u32,
    pub(super) deferral: Deferral,
}

/// When the kernel looks at a queue by itself. All zero: as soon as something arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deferral {
    /// Looks that found nothing before arrivals are announced again (`napi_defer_hard_irqs`).
    pub(super) looks: u32,
    /// Between looks (`gro_flush_timeout`), nanoseconds.
    pub(super) nanos: u32,
}

/// A socket for questions and orders.
pub(super) struct Netdev {
    netlink: Netlink,
    family: u16,
}

impl Netdev {
    /// # Errors
    /// The kernel's: `ENOENT` before 6.7.
    pub(super) fn open() -> io::Result<Self> {
        let mut netlink = Netlink::open_protocol(libc::NETLINK_GENERIC)?;
        let mut body = vec![GET_FAMILY, 1, 0, 0];
        put(&mut body, FAMILY_NAME, b"netdev\0");
        let mut family = None;
        netlink.ask(CONTROLLER, 0, &body, &mut |_, body| {
            let id = body.get(4..).and_then(|rest| find(rest, FAMILY_ID)?.first_chunk::<2>());
            family = id.map(|id| u16::from_ne_bytes(*id));
        })?;
        let family = family.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { netlink, family })
    }

    /// The queues of an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn queues(&mut self, interface: u32) -> io::Result<Vec<Queue>> {
        let mut body = vec![NAPI_GET, 1, 0, 0];
        put(&mut body, NAPI_IFINDEX, &interface.to_ne_bytes());
        let mut queues = Vec::new();
        self.netlink.ask(self.family, NLM_F_DUMP, &body, &mut |_, body| {
            let rest = body.get(4..).unwrap_or_default();
            let word = |kind| find(rest, kind).map(|value| u32_at(value, 0));
            if let (Some(id), Some(looks), Some(nanos)) =
                (word(NAPI_ID), word(NAPI_DEFER_HARD_IRQS), word(NAPI_GRO_FLUSH_TIMEOUT))
            {
                queues.push(Queue { id, deferral: Deferral { looks, nanos } });
            }
        })?;
        Ok(queues)
    }

    /// Says when the kernel looks at a queue.
    ///
    /// # Errors
    /// The kernel's: `EOPNOTSUPP` before 6.13, `EPERM` without `CAP_NET_ADMIN`, `ENOENT` when it is
    /// gone.
    pub(super) fn set(&mut self, queue: u32, deferral: Deferral) -> io::Result<()> {
        let mut body = vec![NAPI_SET, 1, 0, 0];
        put(&mut body, NAPI_ID, &queue.to_ne_bytes());
        put(&mut body, NAPI_DEFER_HARD_IRQS, &deferral.looks.to_ne_bytes());
        put(&mut body, NAPI_GRO_FLUSH_TIMEOUT, &deferral.nanos.to_ne_bytes());
        self.netlink.ask(self.family, NLM_F_ACK, &body, &mut |_, _| {})
    }
}
