//! The limit on open files: every media port is one. A node whose limit is too low starts with fewer
//! ports and says so: at three in the morning a node that carries some calls is worth more than one
//! that names its mistake and carries none.

use ravelin_policy::Snapshot;

use crate::telemetry::log;

/// Files of the process besides those that are counted below: log, spool, link, snapshots.
const FILES_OF_PROCESS: u64 = 128;
/// Files of one shard besides its sockets: rings, wakers, its place in the mesh.
const FILES_OF_SHARD: u64 = 32;
/// Of a limit that is too low, one in this many files is kept for stream connections.
const CONNECTIONS_SHARE: u64 = 8;

/// Media ports that this process can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MediaFiles {
    /// Port pairs of one shard.
    pub(crate) pairs_per_shard: u32,
    /// Pairs that `edge.media` names, all shards together.
    pub(crate) pairs_wanted: u64,
    /// Of these, the pairs that find no room.
    pub(crate) pairs_missing: u64,
    /// Files that all of it would need, and those that may be open.
    pub(crate) needed: u64,
    pub(crate) limit: u64,
}

/// Raises the limit as far as this process may, and shares it out.
///
/// # Errors
/// One line that says what to do, when not even one pair of each range finds room.
pub(crate) fn media(snapshot: &Snapshot, shards: u8) -> Result<MediaFiles, String> {
    let wanted = Wanted::of(snapshot, shards);
    let found = wanted.within(raise_to(wanted.needed()))?;
    if found.pairs_missing > 0 {
        let MediaFiles { pairs_wanted, pairs_missing, needed, limit, .. } = found;
        let text = format!(
            "{pairs_missing} of {pairs_wanted} media port pairs are left out: they need {needed} open \
             files and the limit is {limit}; set LimitNOFILE={needed} (systemd) or ulimit -n {needed}, \
             or narrow edge.media"
        );
        log("alarm", "start", &text);
    }
    make_table(found.needed.min(found.limit));
    Ok(found)
}

/// Makes the process's table of files as large as it will be, at once: it doubles otherwise, and each
/// time every thread that opens a file waits for all cores. Nothing depends on it.
fn make_table(files: u64) {
    let last = i32::try_from(files.saturating_sub(1)).unwrap_or(i32::MAX);
    drop(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last));
}

/// The soft limit afterwards. The hard limit moves only for a process that may move it.
fn raise_to(needed: u64) -> u64 {
    let nofile = rlimit::Resource::NOFILE;
    let (soft, hard) = nofile.get().unwrap_or((0, 0));
    if needed > hard && nofile.set(needed, needed).is_ok() {
        return needed;
    }
    match nofile.set(hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            log("warning", "edge", &format!("the limit on open files cannot be raised: {error}"));
            soft
        }
    }
}

/// What the config asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    shards: u64,
    ranges: u64,
    pairs: u64,
    listeners: u64,
    connections: u64,
}

impl Wanted {
    fn of(snapshot: &Snapshot, shards: u8) -> Self {
        let shards = u64::from(shards.max(1));
        let ports = |range: &ravelin_policy::MediaRange| {
            u64::from(range.last_port).saturating_add(1).saturating_sub(range.first_port.into())
        };
        Self {
            shards,
            ranges: snapshot.media.len() as u64,
            pairs: snapshot.media.iter().map(|range| ports(range) / 2).sum(),
            listeners: snapshot.listeners.len() as u64,
            connections: u64::from(snapshot.limits.connections),
        }
    }

    /// What is open whatever the calls are.
    fn fixed(&self) -> u64 {
        FILES_OF_PROCESS + self.shards * (FILES_OF_SHARD + self.listeners)
    }

    fn needed(&self) -> u64 {
        self.fixed() + 2 * self.pairs + self.connections
    }

    fn within(&self, limit: u64) -> Result<MediaFiles, String> {
        let needed = self.needed();
        let connections = self.connections.min(limit / CONNECTIONS_SHARE);
        let room = limit.saturating_sub(self.fixed() + connections) / 2;
        let full = room >= self.pairs;
        let per_shard = if full { u64::from(u32::MAX) } else { room / self.shards };
        if per_shard < self.ranges {
            return Err(format!(
                "the limit on open files is {limit} and edge.media needs {needed}: set \
                 LimitNOFILE={needed} (systemd) or ulimit -n {needed}, or narrow edge.media"
            ));
        }
        let pairs = if full { self.pairs } else { per_shard * self.shards };
        Ok(MediaFiles {
            pairs_per_shard: u32::try_from(per_shard).unwrap_or(u32::MAX),
            pairs_wanted: self.pairs,
            pairs_missing: self.pairs - pairs,
            needed,
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted =
        Wanted { shards: 2, ranges: 2, pairs: 5_000, listeners: 4, connections: 4_096 };

    #[test]
    fn a_limit_is_shared_out_and_never_exceeded() {
        let needed = WANTED.needed();
        let whole = WANTED.within(needed).unwrap();
        assert_eq!((whole.pairs_missing, whole.pairs_per_shard), (0, u32::MAX));
        let mut before = 0;
        for limit in 0..needed + 10 {
            let Ok(found) = WANTED.within(limit) else {
                assert_eq!(before, 0, "a higher limit must not carry less: {limit}");
                continue;
            };
            let pairs = found.pairs_wanted - found.pairs_missing;
            assert!(pairs >= before && pairs >= WANTED.ranges * WANTED.shards);
            assert!(WANTED.fixed() + 2 * pairs <= limit, "{limit}");
            before = pairs;
        }
        assert_eq!(before, WANTED.pairs);
        let refused = WANTED.within(200).unwrap_err();
        assert!(refused.contains(&format!("LimitNOFILE={needed}")), "{refused}");
    }
}
