//! What an earlier process of a node left in the kernel, for one that goes without the fast path.

use super::interfaces::Reason;
use super::loader::{is_ours, mark, pinned_programs, pins_of, unpin};
use super::netlink::{AttachedAs, Netlink};
use super::owner::{Held, Owner};
use super::polling::undo_left_at;
use std::fs;

/// What was found and taken down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenDown {
    /// Interfaces that have the program no more.
    pub interfaces: Vec<String>,
    /// Whether pins were removed.
    pub pins: bool,
    /// Queues that the kernel looks at as soon as something arrives again.
    pub deferrals: usize,
    /// What could not be taken down, and why.
    pub refused: Vec<String>,
}

/// Detaches and unpins what a killed process of this node left: without the one who knows its calls,
/// the program would go on with what that one decided. Has the kernel look at queues at once again
/// where a killed one's shards had put that off ([`super::polling`]). `None`: there is nothing.
///
/// A process without `CAP_SYS_ADMIN` knows its own program only by the pin, and without
/// `CAP_NET_ADMIN` it cannot detach; then the pins stay, for one that can.
///
/// # Errors
/// It is no leftover: a living process of this node has it. Nothing was touched.
pub fn take_down(node: &str) -> Result<Option<TakenDown>, Reason> {
    let mut taken = TakenDown::default();
    let (pins, mark) = (pins_of(node), mark(node));
    let _owner = Owner::take(&pins)
        .map_err(|Held(process)| Reason::NodeInUse { node: node.into(), process })?;
    let pinned = pinned_programs(&pins);
    match Netlink::open() {
        Ok(mut netlink) => {
            let mut put_off = Vec::new();
            for link in netlink.links().unwrap_or_default() {
                let Some((how, id)) = link.xdp else {
                    // Whoever lives and polls has a program there.
                    put_off.push(link.index);
                    continue;
                };
                if !is_ours(id, &pinned, mark) {
                    continue;
                }
                put_off.push(link.index);
                match netlink.set_xdp(link.index, None, how == AttachedAs::Generic) {
                    Ok(()) => taken.interfaces.push(link.name),
                    Err(error) => taken.refused.push(format!("{}: {error}", link.name)),
                }
            }
            let (undone, refused) = undo_left_at(&put_off);
            taken.deferrals = undone;
            taken.refused.extend(refused);
        }
        Err(error) if pins.exists() => taken.refused.push(format!("netlink: {error}")),
        Err(_) => {}
    }
    if taken.refused.is_empty() && pins.exists() {
        for entry in fs::read_dir(&pins).into_iter().flatten().flatten() {
            unpin(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
        match fs::remove_dir(&pins) {
            Ok(()) => taken.pins = true,
            Err(error) => taken.refused.push(format!("{}: {error}", pins.display())),
        }
    }
    Ok((taken != TakenDown::default()).then_some(taken))
}
