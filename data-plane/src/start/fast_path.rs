//! The fast path under the shards: whether the config wants it, whether the machine has it, and what
//! is said of it.

use std::{io, net::IpAddr, sync::Arc};

use ravelin_io::xdp::{self, FastPath, Options, Reason};
use ravelin_policy::{Driver as MediaDriver, Snapshot};

use super::vacancy::Vacancy;
use crate::telemetry::log;

/// The fast path if there is one, and one line about it: where it is, or why it is not.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) fast: Option<Arc<FastPath>>,
    pub(super) line: String,
}

/// Starts the fast path where a media range asks for it, native or generic; where ranges leave it open,
/// only if an interface's driver runs it (design 6).
///
/// # Errors
/// Another edge of this node's name lives on this machine: it would lose its streams to this one.
pub(super) fn start(snapshot: &Snapshot, shards: u8, vacancy: &Vacancy) -> Result<Outcome, String> {
    let asked = snapshot.media.iter().any(|range| range.driver == MediaDriver::Xdp);
    // Sockets of one shard wait in one place, and so do its streams.
    let forbidden = |range: &&ravelin_policy::MediaRange| {
        matches!(range.driver, MediaDriver::Uring | MediaDriver::Mmsg)
    };
    let ranges = snapshot.media.iter().filter(|range| !forbidden(range));
    let mut addresses: Vec<IpAddr> = ranges.clone().map(|range| range.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return without(&snapshot.node, vacancy);
    }
    let ports = ranges
        .map(|range| u32::from(range.last_port).saturating_sub(range.first_port.into()) + 1)
        .fold(0, u32::saturating_add);
    let node = snapshot.node.clone();
    let note = |level, text: &str| log(level, "xdp", text);
    let options = Options { node, addresses, ports, shards, native_only: !asked, note };
    match when_alone(&options.node, vacancy, || FastPath::start(&options))? {
        Ok(fast) => {
            for reason in fast.reasons() {
                log("warning", "xdp", &reason.to_string());
            }
            let places: Vec<_> = fast
                .serving()
                .iter()
                .map(|serving| {
                    let place = format!("{} on {}", serving.mode.label(), serving.interface);
                    match serving.af_xdp {
                        Some((queues, mode)) => {
                            format!("{place} with AF_XDP ({}, {queues} queues)", mode.label())
                        }
                        None => place,
                    }
                })
                .collect();
            if fast.adopted() > 0 {
                let text = format!(
                    "{} streams of an earlier process went on and are taken over",
                    fast.adopted()
                );
                log("info", "xdp", &text);
            }
            let line = std::iter::once(places.join(", "))
                .chain(fast.reasons().iter().map(ToString::to_string))
                .collect::<Vec<_>>()
                .join("; ");
            Ok(Outcome { fast: Some(Arc::new(fast)), line })
        }
        Err(reasons) => {
            for reason in &reasons {
                let (level, text) = match asked {
                    true => ("warning", "edge.media asks for xdp, and it goes to the sockets"),
                    false => ("info", "edge.media leaves xdp open, and it goes to the sockets"),
                };
                log(level, "xdp", &format!("{text}: {reason}"));
            }
            without(&snapshot.node, vacancy)?;
            let line = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Ok(Outcome { fast: None, line: format!("no xdp: {line}") })
        }
    }
}

/// No fast path: what a killed process of this node left of one is taken down, since nobody would
/// tell it of its calls any more.
fn without(node: &str, vacancy: &Vacancy) -> Result<Outcome, String> {
    let taken = when_alone(node, vacancy, || xdp::take_down(node).map_err(|reason| vec![reason]))?;
    if let Ok(Some(taken)) = taken {
        for refused in &taken.refused {
            let text = format!("an earlier process left its fast path, and it stays: {refused}");
            log("warning", "xdp", &text);
        }
        if taken.pins || !taken.interfaces.is_empty() {
            let places = taken.interfaces.join(", ");
            let text = format!(
                "the fast path of an earlier process is taken down ({})",
                if places.is_empty() { "pins only" } else { &places }
            );
            log("info", "xdp", &text);
        }
        if taken.deferrals > 0 {
            let text = format!(
                "the kernel looks at {} queues as soon as something arrives again: an earlier \
                 process had put that off",
                taken.deferrals
            );
            log("info", "xdp", &text);
        }
    }
    Ok(Outcome::default())
}

/// Does what only one living process of a node may; one that ends at this moment is waited for.
fn when_alone<T>(
    node: &str,
    vacancy: &Vacancy,
    mut work: impl FnMut() -> Result<T, Vec<Reason>>,
) -> Result<Result<T, Vec<Reason>>, String> {
    let name = format!("the fast path of node {node}");
    let done = vacancy.wait(&name, || match work() {
        Err(reasons) => match reasons.iter().find(|one| matches!(one, Reason::NodeInUse { .. })) {
            Some(reason) => Err(io::Error::new(io::ErrorKind::AddrInUse, reason.to_string())),
            None => Ok(Err(reasons)),
        },
        done => Ok(done),
    });
    done.map_err(|error| error.to_string())
}
