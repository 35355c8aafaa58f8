use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ravelin_contract::{
    audit::Severity,
    cdr::{Cdr, CdrKind, Party},
    chain::{ChainError, Entry, Head},
};

use super::{
    ChainFile, Feed, GROUP_WINDOW, OVERFLOW_RECORDS, RING_RECORDS, RING_RESERVE, Sizes, Spool,
    SpoolOptions, SpoolReader, feed, recover, segment, verify, verify_each,
};
use crate::telemetry::event;

/// A directory of its own for each test, in memory where the machine has such a place.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("ravelin-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn info(number: u64) -> Entry {
    Entry::Audit(event("test.info", Severity::Info).field("number", number).into_event())
}

fn alarm(number: u64) -> Entry {
    Entry::Audit(event("test.alarm", Severity::Alarm).field("number", number).into_event())
}

fn stopped() -> Entry {
    Entry::Audit(event(recover::STOPPED, Severity::Info).into_event())
}

fn number(entry: &Entry) -> Option<u64> {
    match entry {
        Entry::Audit(event) => event.fields.get("number")?.as_u64(),
        _ => None,
    }
}

fn cdr(call: &str, start_unix_ms: u64, emergency: bool) -> Entry {
    Entry::Cdr(Cdr {
        kind: CdrKind::Call,
        call: call.into(),
        node: "n".into(),
        shard: 0,
        attempt: 0,
        inbound_call_id: "a@b".into(),
        outbound_call_id: None,
        from: "+13135550100".into(),
        to: "sip:911@\"x\"\r\n".into(),
        inbound_trunk: None,
        outbound_trunk: None,
        source: "127.0.1.1:5060".into(),
        target: None,
        route: None,
        snapshot: 1,
        start_unix_ms,
        ring_ms: None,
        answer_ms: None,
        end_ms: 0,
        duration_ms: 0,
        status: 200,
        ended_by: Party::Caller,
        cause: 0,
        cause_text: String::new(),
        emergency,
        class: "none".into(),
        site: None,
        identity_in: None,
        identity_out: None,
        attestation_rule: None,
        media_caller: None,
        media_callee: None,
        streams: Vec::new(),
        adopted: 0,
        sdp_caller: Vec::new(),
        sdp_callee: Vec::new(),
    })
}

fn entries(audit: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let checked = verify_each(audit, |record| {
        found.push(serde_json::from_str(record.entry.get()).unwrap());
    })
    .unwrap();
    assert_eq!(checked.fault, None);
    found
}

fn open(dir: &Path, sizes: Sizes) -> (ChainFile, Option<String>) {
    let recovered = recover::recover(dir, 1).unwrap();
    let gap = recovered.gap.clone();
    (ChainFile::new(dir, sizes, recovered), gap)
}

/// Small segments, so that a few records fill several.
const SMALL: Sizes = Sizes { segment_max_bytes: 900, retain_bytes: 2_000 };

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whoever began it hears in the end that no record can be kept, and hears it again.
#[test]
fn a_spool_that_cannot_be_recovered_says_so() {
    let scratch = Scratch::new("unusable");
    std::fs::write(scratch.0.join("audit"), "a file where a folder should be").unwrap();
    let options = SpoolOptions { data: scratch.0.clone(), sizes: Sizes::DEFAULT, collected: true };
    let spool = Spool::begin(&options).unwrap();
    let told = [(); 2].map(|()| spool.handle().recovered().unwrap_err());
    assert!(told[0].contains("audit cannot be used"), "{}", told[0]);
    assert_eq!(told[0], told[1]);
    spool.stop("the test is over");
}

#[test]
fn what_shards_hand_over_is_chained_once_and_in_order() {
    let scratch = Scratch::new("order");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: Sizes::DEFAULT, collected: true };
    let spool = Spool::start(&options).unwrap();
    let feeds = [spool.handle().feed(), spool.handle().feed()];
    let shards: Vec<_> = feeds
        .into_iter()
        .zip([0u64, 1_000_000])
        .map(|(mut feed, base)| {
            std::thread::spawn(move || {
                for turn in 0..200 {
                    let mut batch: Vec<_> = (0..5).map(|i| info(base + turn * 5 + i)).collect();
                    feed.push_all(&mut batch);
                    assert!(batch.is_empty());
                }
            })
        })
        .collect();
    for shard in shards {
        shard.join().unwrap();
    }
    spool.stop("test");

    let found = entries(&scratch.0.join("audit"));
    for base in [0, 1_000_000] {
        let of_shard: Vec<_> =
            found.iter().filter_map(number).filter(|n| n / 1_000_000 == base / 1_000_000).collect();
        assert_eq!(of_shard, (base..base + 1_000).collect::<Vec<_>>());
    }
    assert_eq!(found.len(), 2_001);
    assert!(matches!(found.last(), Some(Entry::Audit(e)) if e.kind == recover::STOPPED));
}

#[test]
fn a_run_that_stopped_in_order_leaves_no_gap_and_one_that_died_does() {
    let scratch = Scratch::new("gap");
    let audit = scratch.0.join("audit");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: Sizes::DEFAULT, collected: true };
    for _ in 0..2 {
        let spool = Spool::start(&options).unwrap();
        spool.stop("test");
    }
    assert!(entries(&audit).iter().all(|entry| !matches!(entry, Entry::Gap { .. })));

    let (mut chain, gap) = open(&audit, Sizes::DEFAULT);
    assert_eq!(gap, None);
    chain.append(&[info(1)]).unwrap();
    drop(chain);

    let spool = Spool::start(&options).unwrap();
    spool.stop("test");
    let found = verify(&audit).unwrap();
    assert_eq!(found.gaps.len(), 1);
    assert!(found.gaps[0].1.contains("did not stop in order"), "{:?}", found.gaps);
}

/// A small spool of several segments, as octets.
fn sample() -> (Scratch, Vec<(PathBuf, Vec<u8>)>) {
    let scratch = Scratch::new("sample");
    let (mut chain, _) = open(&scratch.0, SMALL);
    for i in 0..8 {
        chain.append(&[info(2 * i), info(2 * i + 1)]).unwrap();
    }
    chain.append(&[stopped()]).unwrap();
    let files: Vec<_> = segment::list(&scratch.0)
        .unwrap()
        .into_iter()
        .map(|segment| (segment.path.clone(), fs::read(&segment.path).unwrap()))
        .collect();
    assert!(files.len() >= 4);
    (scratch, files)
}

/// Lays down `files`, recovers, and checks what must hold whatever the damage was. Returns the
/// entries that were there after recovery, before anything was added, and the gap.
fn recover_checked(files: &[(PathBuf, Vec<u8>)]) -> (Vec<Entry>, Option<String>) {
    let scratch = Scratch::new("damaged");
    for (path, bytes) in files {
        fs::write(scratch.0.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let (mut chain, gap) = open(&scratch.0, SMALL);
    let before = entries(&scratch.0);
    chain.append(&[info(100), info(101)]).unwrap();
    let after = entries(&scratch.0);
    assert_eq!(after.len(), before.len() + 2);
    assert_eq!(after[..before.len()], before[..]);
    (before, gap)
}

#[test]
fn recovery_survives_a_cut_at_every_octet_of_the_last_segment() {
    let (_scratch, files) = sample();
    let whole = recover_checked(&files).0;
    let last = files.len() - 1;
    let full = files[last].1.len();
    for cut in 0..full {
        let mut damaged = files.clone();
        damaged[last].1.truncate(cut);
        let (kept, gap) = recover_checked(&damaged);
        let whole_lines = damaged[last].1.iter().filter(|&&octet| octet == b'\n').count();
        let before: usize = files[..last]
            .iter()
            .map(|(_, bytes)| bytes.iter().filter(|&&octet| octet == b'\n').count())
            .sum();
        assert_eq!(kept.len(), before + whole_lines, "cut at {cut}");
        assert_eq!(kept[..], whole[..kept.len()]);
        assert!(gap.is_some(), "cut at {cut} of {full}: no gap told");
    }
}

#[test]
fn every_changed_octet_is_found_by_verification_and_survived_by_recovery() {
    let (_scratch, files) = sample();
    let whole = recover_checked(&files).0;
    for file in files.len() - 2..files.len() {
        for at in 0..files[file].1.len() {
            let mut damaged = files.clone();
            damaged[file].1[at] ^= 1 << (at % 8);

            let scratch = Scratch::new("flip");
            for (path, bytes) in &damaged {
                fs::write(scratch.0.join(path.file_name().unwrap()), bytes).unwrap();
            }
            let found = verify(&scratch.0).unwrap();
            assert!(found.fault.is_some(), "octet {at} of file {file} changed unnoticed");

            let (kept, gap) = recover_checked(&damaged);
            assert_eq!(kept[..], whole[..kept.len()], "octet {at} of file {file}");
            assert!(gap.is_some());
            // Nothing before the damaged line is given up.
            let lines = |bytes: &[u8]| bytes.iter().filter(|&&octet| octet == b'\n').count();
            let good: usize = files[..file].iter().map(|(_, bytes)| lines(bytes)).sum::<usize>()
                + lines(&files[file].1[..at]);
            assert!(kept.len() >= good, "octet {at}: {} kept of {good}", kept.len());
        }
    }
}

#[test]
fn what_recovery_cuts_off_is_kept_as_evidence() {
    let (_scratch, mut files) = sample();
    let last = files.len() - 2;
    files[last].1[40] ^= 1;
    let scratch = Scratch::new("evidence");
    for (path, bytes) in &files {
        fs::write(scratch.0.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let gap = recover::recover(&scratch.0, 77).unwrap().gap.unwrap();
    let copy = fs::read_dir(&scratch.0)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("damaged-"))
        .unwrap();
    assert!(gap.contains(&*copy.file_name().unwrap().to_string_lossy()));
    let mut cut = files[last].1.clone();
    cut.extend_from_slice(&files[last + 1].1);
    assert_eq!(fs::read(copy).unwrap(), cut);
}

#[test]
fn removed_and_swapped_records_break_the_chain_where_they_were() {
    let (_scratch, files) = sample();
    let lines: Vec<Vec<u8>> = files
        .iter()
        .flat_map(|(_, bytes)| bytes.split_inclusive(|&octet| octet == b'\n').map(<[u8]>::to_vec))
        .collect();
    let check = |lines: &[Vec<u8>]| {
        let scratch = Scratch::new("lines");
        fs::write(segment::path(&scratch.0, 1), lines.concat()).unwrap();
        verify(&scratch.0).unwrap()
    };
    assert_eq!(check(&lines).fault, None);
    let mut removed = lines.clone();
    removed.remove(3);
    let (_, error) = check(&removed).fault.unwrap();
    assert_eq!(error, ChainError::Sequence { expected: 4, found: 5 });
    let mut swapped = lines.clone();
    swapped.swap(5, 6);
    let (_, error) = check(&swapped).fault.unwrap();
    assert_eq!(error, ChainError::Sequence { expected: 6, found: 7 });
    let mut repeated = lines;
    repeated.insert(3, repeated[2].clone());
    let (_, error) = check(&repeated).fault.unwrap();
    assert_eq!(error, ChainError::Sequence { expected: 4, found: 3 });
}

#[test]
fn a_disk_that_refuses_loses_nothing_that_has_room() {
    let scratch = Scratch::new("refuses");
    let audit = scratch.0.join("audit");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: SMALL, collected: true };
    let spool = Spool::start(&options).unwrap();
    let mut feed = spool.handle().feed();
    // The first segment cannot be created: its name is taken by a directory.
    let obstacle = segment::path(&audit, 1);
    fs::create_dir(&obstacle).unwrap();
    let handle = spool.handle();
    feed.push_all(&mut vec![info(1), info(2)]);
    wait_until("the failure is seen", || handle.status().failing.load(Ordering::Relaxed));
    feed.push_all(&mut vec![info(3)]);
    assert_eq!(handle.status().synced_seq.load(Ordering::Acquire), 0);

    fs::remove_dir(&obstacle).unwrap();
    wait_until("the disk is used again", || handle.status().synced_seq.load(Ordering::Acquire) > 3);
    spool.stop("test");
    let found = entries(&audit);
    assert_eq!(found.iter().filter_map(number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(
        found.iter().any(|e| matches!(e, Entry::Audit(e) if e.kind == "audit.write_failed")),
        "the outage itself is on record"
    );
}

#[test]
fn a_full_ring_counts_what_it_refuses_and_keeps_room_for_the_urgent() {
    let wake = Arc::new(feed::Wake::default());
    let (mut feed, mut drain): (Feed, _) = feed::channel(&wake);
    let ordinary = RING_RECORDS - RING_RESERVE;
    feed.push_all(&mut (0..ordinary as u64 + 7).map(info).collect());
    feed.push_all(&mut vec![cdr("c", 0, false)]);
    let urgent = RING_RESERVE + 10;
    feed.push_all(&mut (0..urgent as u64).map(alarm).collect());
    assert!(feed.has_backlog());
    assert_eq!(drain.take_lost(), 8);
    assert_eq!(drain.take_lost(), 0);

    let mut taken = Vec::new();
    drain.take(&mut taken, usize::MAX);
    assert_eq!(taken.len(), RING_RECORDS);
    feed.push_all(&mut vec![cdr("911", 0, true)]);
    assert!(!feed.has_backlog());
    drain.take(&mut taken, usize::MAX);
    let alarms: Vec<_> = taken[ordinary..].iter().filter_map(number).collect();
    assert_eq!(alarms, (0..urgent as u64).collect::<Vec<_>>(), "urgent records keep their order");
    assert!(matches!(taken.last(), Some(Entry::Cdr(cdr)) if cdr.emergency));
    assert_eq!(drain.take_lost(), 0);

    // The last limit: more urgent records than the shard itself keeps.
    feed.push_all(&mut (0..(RING_RECORDS + OVERFLOW_RECORDS) as u64 + 3).map(alarm).collect());
    assert_eq!(drain.take_lost(), 3);
}

#[test]
fn lost_records_become_a_gap_with_their_number() {
    let scratch = Scratch::new("lost");
    let audit = scratch.0.join("audit");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: Sizes::DEFAULT, collected: true };
    let spool = Spool::start(&options).unwrap();
    let mut feed = spool.handle().feed();
    let obstacle = segment::path(&audit, 1);
    fs::create_dir(&obstacle).unwrap();
    let handle = spool.handle();
    let given = 3 * RING_RECORDS as u64;
    for i in 0..given {
        feed.push_all(&mut vec![info(i)]);
    }
    feed.push_all(&mut vec![cdr("911", 0, true)]);
    wait_until("the failure is seen", || handle.status().failing.load(Ordering::Relaxed));
    fs::remove_dir(&obstacle).unwrap();
    drop(feed);
    spool.stop("test");

    let found = entries(&audit);
    let kept = found.iter().filter(|entry| number(entry).is_some()).count() as u64;
    let lost: u64 = found
        .iter()
        .filter_map(|entry| match entry {
            Entry::Gap { lost, .. } => *lost,
            _ => None,
        })
        .sum();
    assert!(lost > 0);
    assert_eq!(kept + lost, given, "every record is there or accounted for");
    assert!(found.iter().any(|entry| matches!(entry, Entry::Cdr(cdr) if cdr.emergency)));
}

#[test]
fn the_reader_follows_segments_and_retention() {
    let scratch = Scratch::new("reader");
    let (mut chain, _) = open(&scratch.0, SMALL);
    for i in 0..40 {
        chain.append(&[info(i)]).unwrap();
    }
    let mut reader = SpoolReader::after(&scratch.0, 0);
    let mut head = Head::START;
    while head.seq < 40 {
        let records = reader.read(40, 7, usize::MAX).unwrap();
        assert!(!records.is_empty() && records.len() <= 7);
        for record in records {
            head.accept(&record).unwrap();
        }
    }
    assert_eq!(head, chain.head());
    assert!(reader.read(40, 7, usize::MAX).unwrap().is_empty());
    chain.append(&[info(40)]).unwrap();
    assert_eq!(reader.read(41, 7, usize::MAX).unwrap().len(), 1);

    assert_eq!(chain.forget(0).unwrap(), 1, "nothing that is not stored elsewhere is removed");
    let first = chain.forget(30).unwrap();
    assert!(first > 1 && first <= 31 && chain.bytes() > SMALL.retain_bytes, "{first}");
    let first = chain.forget(41).unwrap();
    assert!(chain.bytes() <= SMALL.retain_bytes && first > 31);
    let gone = SpoolReader::after(&scratch.0, 0).read(41, 1, usize::MAX).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(verify(&scratch.0).unwrap().range, Some((first, 41)));
}

#[test]
fn a_foreign_spool_is_put_aside_and_sealed_again_behind_the_stored_head() {
    let scratch = Scratch::new("rebase");
    let audit = scratch.0.join("audit");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: SMALL, collected: true };
    let spool = Spool::start(&options).unwrap();
    let mut feed = spool.handle().feed();
    let handle = spool.handle();
    feed.push_all(&mut (0..20).map(info).collect());
    wait_until("written", || handle.status().synced_seq.load(Ordering::Acquire) >= 20);

    let mut stored = Head::START;
    for i in 0..500 {
        stored.seal(&info(i)).unwrap();
    }
    handle.rebase(stored, "test".into()).unwrap();
    feed.push_all(&mut vec![info(20)]);
    spool.stop("test");

    let mut head = stored;
    let mut reader = SpoolReader::after(&audit, stored.seq);
    let records = reader.read(stored.seq + 23, 100, usize::MAX).unwrap();
    for record in &records {
        head.accept(record).unwrap();
    }
    let again: Vec<Entry> =
        records.iter().map(|record| serde_json::from_str(record.entry.get()).unwrap()).collect();
    assert!(matches!(again[0], Entry::Gap { .. }));
    assert_eq!(again.iter().filter_map(number).collect::<Vec<_>>(), (0..=20).collect::<Vec<_>>());
    let aside = fs::read_dir(&audit)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    assert_eq!(verify(&aside).unwrap().range, Some((1, 20)), "the old chain is kept as it was");
}

#[test]
fn cdr_files_hold_whole_lines_by_day_even_after_a_cut() {
    let scratch = Scratch::new("cdr");
    let options = SpoolOptions { data: scratch.0.clone(), sizes: Sizes::DEFAULT, collected: true };
    let day = scratch.0.join("cdr/2026-11-22.jsonl");
    fs::create_dir_all(day.parent().unwrap()).unwrap();
    fs::write(&day, "{\"whole\":1}\n{\"torn").unwrap();
    let spool = Spool::start(&options).unwrap();
    let mut feed = spool.handle().feed();
    let noon = 1_795_348_800_000;
    feed.push_all(&mut vec![
        cdr("one", noon, false),
        info(1),
        cdr("two", noon + 86_400_000, true),
        cdr("three", noon, false),
    ]);
    spool.stop("test");
    let text = fs::read_to_string(&day).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "{\"whole\":1}");
    let calls: Vec<String> =
        lines[1..].iter().map(|line| serde_json::from_str::<Cdr>(line).unwrap().call).collect();
    assert_eq!(calls, ["one", "three"]);
    let next = fs::read_to_string(scratch.0.join("cdr/2026-11-23.jsonl")).unwrap();
    assert_eq!(next.lines().count(), 1);
}

// A crash between two syncs costs at most one window: it has to stay short.
const _: () = assert!(GROUP_WINDOW.as_millis() <= 50);
