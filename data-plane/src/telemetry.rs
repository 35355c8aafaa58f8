//! What the edge tells of itself: the two clocks, log lines, audit events of the process.

pub(crate) mod expiry;
pub(crate) mod pulse;
pub(crate) mod report;

use std::{
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ravelin_contract::audit::{AuditEvent, Severity};
use ravelin_io::clock;

static SNAPSHOT: AtomicU64 = AtomicU64::new(0);

/// Monotonic nanoseconds, the same on every thread of this process.
#[must_use]
pub fn mono_ns() -> u64 {
    clock::monotonic().0
}

/// UTC, milliseconds since 1970-01-01.
#[must_use]
pub fn unix_ms() -> u64 {
    clock::now().unix_ms
}

/// The version that events of this process carry from now on.
pub fn set_active_snapshot(version: u64) {
    SNAPSHOT.store(version, Ordering::Relaxed);
}

/// Begins an audit event of the process itself.
#[must_use]
pub fn event(kind: &str, severity: Severity) -> EventBuilder {
    EventBuilder(AuditEvent {
        kind: kind.into(),
        severity,
        unix_ms: unix_ms(),
        mono_ns: mono_ns(),
        shard: None,
        call: None,
        actor: Some("system".into()),
        snapshot: SNAPSHOT.load(Ordering::Relaxed),
        fields: std::collections::BTreeMap::new(),
    })
}

/// An event being filled.
#[derive(Clone, Debug)]
pub struct EventBuilder(AuditEvent);

impl EventBuilder {
    #[must_use]
    pub fn field(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.0.fields.insert(key.into(), value.into());
        self
    }

    #[must_use]
    pub fn actor(mut self, actor: &str) -> Self {
        self.0.actor = Some(actor.into());
        self
    }

    #[must_use]
    pub fn into_event(self) -> AuditEvent {
        self.0
    }
}

/// Writes one line to standard error: text, or JSON if the environment says `RAVELIN_LOG=json`.
pub fn log(level: &str, part: &str, text: &str) {
    static JSON: OnceLock<bool> = OnceLock::new();
    let json = *JSON.get_or_init(|| std::env::var_os("RAVELIN_LOG").is_some_and(|v| v == "json"));
    let time = utc_time(unix_ms());
    let line = if json {
        let line = serde_json::json!({"time": time, "level": level, "part": part, "text": text});
        format!("{line}\n")
    } else {
        // A control character in what a peer sent must not forge a second line.
        let text: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        format!("{time} {level} {part}: {text}\n")
    };
    // Nobody is left to be told when standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// `2026-11-22`, UTC.
#[must_use]
pub fn utc_day(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-22T01:16:23.123Z`.
#[must_use]
pub fn utc_time(unix_ms: u64) -> String {
    let in_day = unix_ms % 86_400_000;
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", utc_day(unix_ms))
}

/// Year, month and day of a day number since 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_400_YEARS: u64 = 146_097;
    // Count from 0000-03-01, so that the leap day is the last of its year.
    let from_march = days + 719_468;
    let era = from_march / DAYS_400_YEARS;
    let in_era = from_march % DAYS_400_YEARS;
    let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, carry) =
        if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_in_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::{utc_day, utc_time};

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc_time(ms), text);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = utc_day(0);
        for day in 1..200_000u64 {
            let this = utc_day(day * 86_400_000);
            assert!(this > before || this.len() > before.len(), "{before} then {this}");
            before = this;
        }
    }
}
