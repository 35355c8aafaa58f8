//! SIPp as a peer, graded by its own statistics.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::wait;

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    child: Child,
    statistics: PathBuf,
    name: String,
}

/// What SIPp says of its calls at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grade {
    pub created: u64,
    pub successful: u64,
    pub failed: u64,
    pub retransmissions: u64,
}

/// Whether SIPp is installed.
#[must_use]
pub fn is_installed() -> bool {
    Command::new("sipp").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What its sockets hold while it is not run: by default some 60 messages, at 300 calls/s those of less
/// than a tenth of a second. The kernel gives less if its limit is lower.
const QUEUE_BYTES: &str = "1048576";
/// Whoever is called before it listens has refused the call.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// Where the words say that it listens, as the kernel writes it.
fn listens_at(arguments: &str) -> Option<String> {
    let words: Vec<_> = arguments.split_whitespace().collect();
    let after = |name| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    let ip: std::net::Ipv4Addr = after("-i")?.parse().ok()?;
    let port: u16 = after("-p")?.parse().ok()?;
    Some(format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets())))
}

impl Sipp {
    /// Starts SIPp in `folder` with the words of `arguments`; with `-i` and `-p`, waits until it listens
    /// there.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(folder: &Path, name: &str, arguments: &str) -> Self {
        let statistics = folder.join(format!("{name}.csv"));
        let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("log file");
        let child = Command::new("sipp")
            .args(arguments.split_whitespace())
            .args(["-nostdin", "-trace_stat", "-fd", "1", "-stf"])
            .arg(&statistics)
            .args(["-buff_size", QUEUE_BYTES, "-trace_err", "-error_file"])
            .arg(folder.join(format!("{name}.err")))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .env("TERM", "dumb")
            .spawn()
            .expect("sipp");
        let mut started = Self { child, statistics, name: name.into() };
        if let Some(address) = listens_at(arguments) {
            wait::until(&format!("SIPp {name} listens"), LISTENS_WITHIN, || {
                let ended = started.child.try_wait().ok().flatten();
                assert!(ended.is_none(), "SIPp {name} ended: {ended:?}");
                let sockets = std::fs::read_to_string("/proc/net/udp").ok()?;
                let mut local = sockets.lines().filter_map(|line| line.split_whitespace().nth(1));
                local.any(|at| at == address).then_some(())
            });
        }
        started
    }

    /// Waits for SIPp to have done its calls.
    ///
    /// # Panics
    /// If it has not after `limit`.
    pub fn finish(&mut self, limit: Duration) -> Grade {
        let child = &mut self.child;
        wait::until(&format!("SIPp {} has done its calls", self.name), limit, || {
            child.try_wait().ok().flatten()
        });
        self.grade()
    }

    /// What it has counted until now.
    #[must_use]
    pub fn grade(&self) -> Grade {
        let text = std::fs::read_to_string(&self.statistics).unwrap_or_default();
        let mut lines = text.lines();
        let Some(head) = lines.next() else { return Grade::default() };
        let Some(last) = lines.next_back() else { return Grade::default() };
        let value = |column: &str| -> u64 {
            let index = head.split(';').position(|name| name == column);
            index
                .and_then(|index| last.split(';').nth(index))
                .and_then(|text| text.parse().ok())
                .unwrap_or_default()
        };
        Grade {
            created: value("TotalCallCreated"),
            successful: value("SuccessfulCall(C)"),
            failed: value("FailedCall(C)"),
            retransmissions: value("Retransmissions(C)"),
        }
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
