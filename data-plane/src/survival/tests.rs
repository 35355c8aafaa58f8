//! The files, with records of a real engine's layout only where their soundness matters.

use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

fn place(name: &str) -> (PathBuf, Place) {
    let dir = std::env::temp_dir().join(format!("ravelin-slots-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    (dir.clone(), Place { dir, origin: Origin::of_this_boot(), in_memory: true, _held: None })
}

const NOW: Instant = Instant(500_000_000_000);

/// A file of a process that is alive.
fn create(place: &Place, shard: u8, shards: u8) -> Slots {
    let mut slots = place.create(shard, shards).unwrap();
    slots.alive(NOW);
    slots
}

fn put(slots: &mut Slots, slot: u32, sequence: u64, octets: &[u8]) {
    let bytes = checkpoint::sealed_for_test(slot, sequence, octets);
    slots.apply(Change::Put { slot, sequence, bytes: &bytes });
}

use ravelin_engine::checkpoint::{self, Change};

fn records(left: &[Vec<Left>], shard: usize) -> Vec<u64> {
    let all = left[shard].iter().flat_map(|left| &left.records);
    all.map(|bytes| checkpoint::sequence(bytes).unwrap_or(0)).collect()
}

#[test]
fn the_newest_sound_copy_of_a_slot_is_read() {
    let (dir, place) = place("newest");
    let mut slots = create(&place, 0, 1);
    for sequence in 1..=5 {
        put(&mut slots, 3, sequence, b"one");
    }
    put(&mut slots, 7, 8, b"two");
    put(&mut slots, 9, 1, b"three");
    slots.apply(Change::Remove { slot: 9 });
    assert!(place.left(1, NOW)[0].is_empty(), "not published yet");
    assert!(!place.has_calls(), "not published yet");
    slots.publish().unwrap();
    assert!(place.has_calls());
    assert_eq!(records(&place.left(1, NOW), 0), [5, 8]);
    assert_eq!(fs::metadata(place.file(0)).unwrap().permissions().mode() & 0o777, 0o600);

    // A torn write of the newest leaves the one before.
    let file = fs::OpenOptions::new().write(true).open(place.file(0)).unwrap();
    file.write_all_at(&[0xee; 8], 4_096 + (3 * 2 + 1) * 4_096 + 50).unwrap();
    assert_eq!(records(&place.left(1, NOW), 0), [4, 8]);
    // With both torn it is still counted as something that was there.
    file.write_all_at(&[0xee; 8], 4_096 + 3 * 2 * 4_096 + 50).unwrap();
    assert_eq!(records(&place.left(1, NOW), 0), [0, 8]);
    place.remove_from(0);
    assert!(place.left(1, NOW)[0].is_empty());
    create(&place, 0, 1).publish().unwrap();
    assert!(!place.has_calls(), "a process without calls leaves none");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_belongs_to_no_shard_of_today_or_to_another_boot_is_named() {
    let (dir, place) = place("origin");
    for shard in 0..3 {
        let mut slots = create(&place, shard, 3);
        put(&mut slots, 0, 1, b"call");
        slots.publish().unwrap();
    }
    let left = place.left(2, NOW);
    assert_eq!((left[0].len(), left[1].len()), (2, 1));
    assert!(left.iter().flatten().all(|left| left.condemned == Some(NotAdopted::Shards)));
    assert!(place.left(3, NOW).iter().flatten().all(|left| left.condemned.is_none()));
    let other = Place { origin: Origin { boot: "x".repeat(36) }, ..place.clone() };
    assert!(
        other
            .left(3, NOW)
            .iter()
            .flatten()
            .all(|left| left.condemned == Some(NotAdopted::Rebooted))
    );
    // The process was last alive long ago.
    let later = NOW + ADOPTED_WITHIN + Duration::from_nanos(1);
    let late = |left: &Left| left.condemned == Some(NotAdopted::TooLate);
    assert!(place.left(3, later).iter().flatten().all(late));
    place.remove_from(2);
    assert_eq!(place.left(3, NOW)[2].len(), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_of_another_kind_or_layout_is_left_out_by_name() {
    let (dir, place) = place("kinds");
    fs::write(place.file(0), b"something else entirely, long enough to have a head of its own")
        .unwrap();
    assert!(read(&place.file(0)).unwrap_err().to_string().contains("not a file of calls"));
    create(&place, 1, 2).publish().unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.file(1)).unwrap();
    file.write_all_at(&99_u16.to_le_bytes(), 8).unwrap();
    assert!(place.left(2, NOW).iter().all(Vec::is_empty));
    fs::remove_dir_all(dir).unwrap();
}

/// Each is refused by its number and counted: nothing goes without a word.
#[test]
fn records_of_another_layout_are_handed_on_to_be_refused() {
    let (dir, place) = place("layouts");
    let mut slots = create(&place, 0, 1);
    let mut bytes = checkpoint::sealed_for_test(4, 1, b"of another version");
    bytes[4..6].copy_from_slice(&99_u16.to_le_bytes());
    slots.apply(Change::Put { slot: 4, sequence: 1, bytes: &bytes });
    slots.publish().unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.file(0)).unwrap();
    file.write_all_at(&99_u16.to_le_bytes(), 8).unwrap();
    let left = place.left(1, NOW);
    let refused = checkpoint::sequence(&left[0][0].records[0]).unwrap_err();
    assert_eq!(refused, checkpoint::Refused::Layout(99));
    fs::remove_dir_all(dir).unwrap();
}

/// There may be keys in a record.
#[test]
fn a_record_is_wiped_when_its_call_ends() {
    let (dir, place) = place("wiped");
    let mut slots = create(&place, 0, 1);
    for sequence in 1..=2 {
        put(&mut slots, 3, sequence, b"inline:a secret");
    }
    slots.publish().unwrap();
    let holds_it = || {
        let file = fs::read(place.file(0)).unwrap();
        file.windows(8).filter(|octets| octets == b"a secret").count()
    };
    assert_eq!(holds_it(), 2);
    slots.apply(Change::Remove { slot: 3 });
    assert_eq!(holds_it(), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_place_in_memory_is_this_users_alone() {
    let dir = in_shared_memory(&std::env::temp_dir()).unwrap();
    assert!(is_in_memory(&dir));
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(in_shared_memory(&std::env::temp_dir()).is_err());
    fs::remove_dir(&dir).unwrap();
}

/// Nobody takes them over after [`ADOPTED_WITHIN`]: no secret stays, and each record is still counted.
#[test]
fn keys_of_a_process_that_is_long_gone_are_wiped() {
    let (dir, place) = place("forgotten");
    let held = forget::hold(&dir).unwrap();
    let mut slots = create(&place, 0, 1);
    for sequence in 1..=2 {
        put(&mut slots, 3, sequence, b"inline:a secret");
    }
    put(&mut slots, 9, 1, b"inline:a secret");
    slots.publish().unwrap();
    // Killed while it started: a file that was never in force.
    let mut draft = create(&place, 1, 2);
    put(&mut draft, 0, 1, b"inline:a secret");
    let holds_it = || {
        let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let contents: Vec<_> = files.map(|path| fs::read(path).unwrap()).collect();
        contents.concat().windows(8).filter(|octets| octets == b"a secret").count()
    };
    let late = NOW + ADOPTED_WITHIN + Duration::from_secs(1);
    let wipe = |time, now| forget::wipe(&dir, time, now).unwrap().unwrap();
    assert_eq!(wipe(late, true), ForgetOutcome::InUse);
    drop(held);
    assert_eq!(wipe(NOW + Duration::from_secs(1), false), ForgetOutcome::StillGood(120));
    assert_eq!(holds_it(), 4);
    assert_eq!(wipe(late, false), ForgetOutcome::Wiped(2));
    assert_eq!(holds_it(), 0);
    assert_eq!(wipe(late, false), ForgetOutcome::Wiped(0));
    assert_eq!(place.left(1, NOW)[0][0].records.len(), 2);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(forget::wipe(&dir, late, true).unwrap(), None);
}
