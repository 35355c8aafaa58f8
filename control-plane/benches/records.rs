//! How many records a second go from the link's socket into the store and are receipted, on the
//! disk of the temporary directory: `cargo bench -p ravelin-control --bench records`.

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/support.rs"]
mod support;

use std::time::Instant;

use ravelin_contract::{
    chain::Entry,
    link::{ApplyResult, Down, Up},
};
use support::{Node, Plane, cdr, document};

/// Records of one run.
const RECORDS: u64 = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let plane = Plane::start(&document("edge-1", "")).await;
        for batch in [1_u64, 10, 100, 1_000] {
            // A batch of one record is a commit of its own at most every few hundred microseconds.
            let count = RECORDS.min(batch * 2_000);
            let mut node = Node::connect(&plane.data(), &format!("edge-{batch}")).await;
            node.apply(ApplyResult::Active).await;
            let mut frames = Vec::new();
            for first in (0..count).step_by(usize::try_from(batch).expect("small")) {
                let records = (first..first + batch)
                    .map(|n| {
                        let entry = Entry::Cdr(cdr(&format!("{batch}-{n}"), n));
                        node.head.seal(&entry).expect("an entry is JSON")
                    })
                    .collect();
                frames.push(Up::Records { records });
            }
            let begin = Instant::now();
            let (mut sent, mut stored) = (0, 0);
            for frame in &frames {
                node.up(frame).await;
                sent += batch;
                // As an edge does: a bounded number of records is on its way.
                while sent - stored > 20_000 {
                    stored = receipt(&mut node).await;
                }
            }
            while stored < count {
                stored = receipt(&mut node).await;
            }
            let elapsed = begin.elapsed();
            println!(
                "{count} records in frames of {batch}: {:.0} records/s",
                count as f64 / elapsed.as_secs_f64()
            );
        }
        plane.stop().await;
    });
}

async fn receipt(node: &mut Node<tokio::net::UnixStream>) -> u64 {
    loop {
        if let Down::Stored { seq } = node.down().await.expect("the link lives") {
            return seq;
        }
    }
}
