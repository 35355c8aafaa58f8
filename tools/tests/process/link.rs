//! The edge's end of the link, against a peer written by hand on a real Unix socket.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::Instant,
};

use ravelin_contract::{
    PROTOCOL_VERSION,
    chain::{Entry, Head, Record, to_hex},
    link::{ApplyResult, Down, Up},
};

use crate::support::{self, PATIENCE, Process, Scratch, kinds, ravelin};

/// A control plane's end.
pub(crate) struct Peer {
    listener: UnixListener,
    stream: Option<UnixStream>,
    hello: Option<Up>,
    /// Records that came while something else was waited for.
    early: Vec<Record>,
}

impl Peer {
    pub(crate) fn listen(path: &Path) -> Self {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        let listener = UnixListener::bind(path).expect("a socket");
        Self { listener, stream: None, hello: None, early: Vec::new() }
    }

    /// Takes the edge's next connection, reads its greeting and answers it.
    pub(crate) fn welcome(&mut self, stored: Head) {
        self.welcome_as(PROTOCOL_VERSION, stored);
    }

    fn welcome_as(&mut self, protocol: u32, stored: Head) {
        let (stream, _) = self.listener.accept().expect("the edge connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.stream = Some(stream);
        self.early.clear();
        self.hello = self.receive();
        let stored_hash = if stored.seq == 0 { String::new() } else { to_hex(&stored.hash) };
        self.send(&Down::Welcome { protocol, stored_seq: stored.seq, stored_hash });
    }

    pub(crate) fn send(&mut self, frame: &Down) {
        self.try_send(frame).expect("sent");
    }

    /// An edge that ends waits for this, but not for ever: it may be gone.
    fn acknowledge_the_end(&mut self, head: &Head) {
        match self.try_send(&Down::Stored { seq: head.seq }) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            sent => sent.expect("sent"),
        }
    }

    fn try_send(&mut self, frame: &Down) -> std::io::Result<()> {
        let body = serde_json::to_vec(frame).expect("a frame");
        let stream = self.stream.as_mut().expect("a stream");
        let mut bytes = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        stream.write_all(&bytes)
    }

    /// The next frame; `None` when the edge has closed the stream.
    fn receive(&mut self) -> Option<Up> {
        let stream = self.stream.as_mut().expect("a stream");
        let mut head = [0; 4];
        match stream.read_exact(&mut head) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            result => result.expect("a frame in time"),
        }
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut body).expect("a whole frame");
        Some(serde_json::from_slice(&body).expect("a frame that is understood"))
    }

    /// The next frame that `pick` takes.
    pub(crate) fn until<T>(&mut self, what: &str, mut pick: impl FnMut(Up) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let frame = self.receive().unwrap_or_else(|| panic!("closed before {what}"));
            if let Up::Records { records } = &frame {
                self.early.extend_from_slice(records);
            }
            if let Some(found) = pick(frame) {
                return found;
            }
        }
        panic!("no {what} came");
    }

    /// Records until `enough`; every one must continue the chain behind `head`.
    fn records(&mut self, head: &mut Head, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            for record in self.early.drain(..) {
                head.accept(&record).expect("the chain goes on");
                let entry: Entry = serde_json::from_str(record.entry.get()).expect("an entry");
                entries.push(entry);
            }
            if enough(&entries) {
                return entries;
            }
            self.until("records", |frame| matches!(frame, Up::Records { .. }).then_some(()));
        }
    }

    fn push(&mut self, version: u64, document: &str) -> ApplyResult {
        let sha256 = ravelin_edge::snapshots::sha256(document);
        self.send(&Down::Config { version, sha256, document: document.into() });
        self.until("an answer to the push", |frame| match frame {
            Up::Applied { version: applied, result } => {
                assert_eq!(applied, version);
                Some(result)
            }
            _ => None,
        })
    }

    fn active_version(&self) -> u64 {
        match &self.hello {
            Some(Up::Hello { active_version, .. }) => *active_version,
            other => panic!("no hello: {other:?}"),
        }
    }
}

/// Of 127.13.0.0/16.
fn config(place: u8) -> String {
    support::config(place).replace("127.4.", "127.13.")
}

fn follow(scratch: &Scratch, place: u8) -> (Peer, Process) {
    let file = scratch.write("ravelin.yml", &config(place));
    let socket = scratch.data().join("run/link.sock");
    let peer = Peer::listen(&socket);
    let mut command = ravelin();
    command.arg("edge").arg("--config").arg(&file).arg("--data").arg(scratch.data());
    command.arg("--control").arg(format!("unix:{}", socket.display()));
    (peer, Process::start(&mut command))
}

fn has(entries: &[Entry], kind: &str) -> bool {
    kinds(entries).iter().any(|found| found == kind)
}

#[test]
fn records_are_repeated_until_they_are_stored_and_never_twice_after() {
    let scratch = Scratch::new();
    let (mut peer, process) = follow(&scratch, 9);
    peer.welcome(Head::START);
    let mut head = Head::START;
    let first = peer.records(&mut head, |entries| has(entries, "edge.started"));

    // Nothing was acknowledged: after a new connection everything comes again.
    peer.welcome(Head::START);
    let mut again_head = Head::START;
    let again = peer.records(&mut again_head, |entries| has(entries, "edge.started"));
    assert_eq!(again[..first.len()], first[..]);

    // All of it is acknowledged: after a new connection it goes on behind it.
    peer.send(&Down::Stored { seq: again_head.seq });
    peer.welcome(again_head);
    let applied = peer.push(7, &config(9).replace("Detroit Factory", "Detroit Works"));
    assert_eq!(applied, ApplyResult::Active);
    let new = peer.records(&mut again_head, |entries| has(entries, "config.activated"));
    assert!(!has(&new, "edge.started"));
    peer.send(&Down::Stored { seq: again_head.seq });

    // At the end the last record comes too.
    process.signal("TERM");
    let last = peer.records(&mut again_head, |entries| has(entries, "edge.stopped"));
    assert!(!has(&last, "gap"));
    peer.acknowledge_the_end(&again_head);
    process.stop();
}

#[test]
fn pushes_are_answered_after_every_shard_has_them_and_refusals_name_paths() {
    let scratch = Scratch::new();
    let (mut peer, process) = follow(&scratch, 10);
    peer.welcome(Head::START);
    assert_eq!(peer.active_version(), 0, "the bootstrap file has no version");

    assert_eq!(peer.push(11, &config(10)), ApplyResult::Active);
    let refused = peer.push(12, &config(10).replace("calls: 500", "calls: many"));
    let ApplyResult::Refused { errors } = refused else { panic!("a broken document was taken") };
    assert!(errors.iter().any(|error| error.path == "trunks[0].limits.calls"), "{errors:?}");
    assert!(errors.iter().all(|error| error.line.is_some()), "{errors:?}");

    let restart = peer.push(13, &config(10).replace("node: edge-1", "node: edge-9"));
    let ApplyResult::Refused { errors } = restart else { panic!("a restart was not asked for") };
    assert!(errors.iter().any(|e| e.path == "node" && e.reason.contains("restart")), "{errors:?}");
    assert!(scratch.data().join("snapshots/next.json").exists());

    // The version in force is the last good one, and it is the one that is told.
    peer.welcome(Head::START);
    assert_eq!(peer.active_version(), 11);
    process.signal("TERM");
    let mut head = Head::START;
    peer.records(&mut head, |entries| has(entries, "edge.stopped"));
    peer.acknowledge_the_end(&head);
    process.stop();

    // The restart was the one that the kept document waited for.
    let mut command = ravelin();
    command.arg("edge").arg("--data").arg(scratch.data());
    command
        .arg("--control")
        .arg(format!("unix:{}", scratch.data().join("run/link.sock").display()));
    let process = Process::start(&mut command);
    peer.welcome(head);
    assert_eq!(peer.active_version(), 13);
    drop(process);
}

/// A control plane of another release: the edge says which of the two is to be updated, and goes on.
#[test]
fn a_control_plane_of_another_protocol_is_refused_with_what_to_do() {
    let scratch = Scratch::new();
    let (mut peer, mut process) = follow(&scratch, 18);
    for (protocol, who) in
        [(PROTOCOL_VERSION - 1, "the control plane"), (PROTOCOL_VERSION + 1, "this edge")]
    {
        peer.welcome_as(protocol, Head::START);
        process.wait_for_line(&format!("update {who} to the release of the other"), 1);
    }
    peer.welcome(Head::START);
    process.wait_for_line("connected to", 1);
    process.stop();
}

#[test]
fn an_altered_document_ends_the_stream_and_nothing_else() {
    let scratch = Scratch::new();
    let (mut peer, process) = follow(&scratch, 11);
    peer.welcome(Head::START);
    let sha256 = ravelin_edge::snapshots::sha256("something else");
    peer.send(&Down::Config { version: 5, sha256, document: config(11) });
    while peer.receive().is_some() {}
    peer.welcome(Head::START);
    assert_eq!(peer.active_version(), 0);
    drop(process);
}

#[test]
fn a_lost_spool_goes_on_behind_what_the_control_plane_has() {
    let scratch = Scratch::new();
    let (mut peer, process) = follow(&scratch, 12);
    let mut stored = Head::START;
    for _ in 0..100 {
        stored
            .seal(&Entry::Gap { lost: Some(1), reason: "of another life".into(), unix_ms: 0 })
            .expect("sealed");
    }
    peer.welcome(stored);
    let mut head = stored;
    let entries = peer.records(&mut head, |entries| has(entries, "edge.started"));
    assert!(
        matches!(&entries[0], Entry::Gap { reason, .. } if reason.contains("record 100")),
        "{:?}",
        entries[0]
    );
    peer.send(&Down::Stored { seq: head.seq });
    // The next connection finds both sides in agreement.
    peer.welcome(head);
    process.signal("TERM");
    let last = peer.records(&mut head, |entries| has(entries, "edge.stopped"));
    assert!(!has(&last, "gap"), "{:?}", kinds(&last));
    peer.acknowledge_the_end(&head);
    process.stop();
}

#[test]
fn questions_are_answered_and_numbers_come_every_second() {
    let scratch = Scratch::new();
    let (mut peer, process) = follow(&scratch, 13);
    peer.welcome(Head::START);
    peer.send(&Down::Ping { nonce: 42 });
    peer.until("a pong", |frame| matches!(frame, Up::Pong { nonce: 42 }).then_some(()));
    peer.send(&Down::QueryCalls { query: 1, limit: 10 });
    peer.until("calls", |frame| match frame {
        Up::Calls { query: 1, calls, more: false } => {
            assert!(calls.is_empty());
            Some(())
        }
        _ => None,
    });
    peer.send(&Down::QueryLadder { query: 2, call: "nothing".into() });
    peer.until("a ladder", |frame| {
        matches!(frame, Up::Ladder { query: 2, ladder: None }).then_some(())
    });
    let mut made = Vec::new();
    for _ in 0..5 {
        let report = peer.until("metrics", |frame| match frame {
            Up::Metrics(report) => Some(report),
            _ => None,
        });
        made.push(report.unix_ms);
        let value = |name: &str| {
            let of_name = report.samples.iter().filter(|sample| sample.name == name);
            of_name.map(|sample| sample.value).reduce(|a, b| a + b)
        };
        assert_eq!(value("shards_in_service"), Some(2.0));
        assert_eq!(value("link_connected"), Some(1.0));
        assert!(value("drops_total").is_some() && value("audit_records_total") > Some(0.0));
        let named = |name: &str| report.histograms.iter().filter(|of| of.name == name).count();
        assert_eq!(named("shard_turn"), 2, "the length of turns, per shard");
        assert_eq!(named("media_added_latency"), 2, "what each shard adds to media");
    }
    // By the edge's clock: they may have waited for this test. One that was due while the edge was held
    // up follows the one before at once.
    assert!(made[4] - made[0] >= 2_500, "more often than once a second: {made:?}");
    let trunks = peer.until("trunks", |frame| match frame {
        Up::Trunks { trunks } => Some(trunks),
        _ => None,
    });
    assert!(trunks.iter().any(|trunk| trunk.id == "carrier-a" && trunk.node == "edge-1"));
    drop(process);
}
