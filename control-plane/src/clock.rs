//! Wall clock and its text form. Everything stored is UTC.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// UTC milliseconds since 1970-01-01; 0 when the clock stands before it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Monotonic nanoseconds since this process first asked.
#[must_use]
pub fn mono_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// RFC 3339 text in UTC, whole seconds unless there are milliseconds to show.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let nanos = i128::from(unix_ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_ms} ms"))
}

/// Reads a point in time: RFC 3339 text, a date (`2026-11-22`, its first instant in UTC), or UTC
/// milliseconds in digits. `None` if `text` is anything else or before 1970.
#[must_use]
pub fn parse_ms(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        return text.parse().ok();
    }
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
        .ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// First millisecond of a month and of the month after it, from `YYYY-MM`.
#[must_use]
pub fn month_bounds(text: &str) -> Option<(u64, u64)> {
    let (year, month) = text.split_once('-')?;
    if year.len() != 4 || month.len() != 2 {
        return None;
    }
    let (year, month): (u16, u8) = (year.parse().ok()?, month.parse().ok()?);
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    Some((
        parse_ms(&format!("{year:04}-{month:02}-01"))?,
        parse_ms(&format!("{next_year:04}-{next_month:02}-01"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_milliseconds_agree() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(parse_ms("2024-12-15T10:00:00Z"), Some(1_734_256_800_000));
        assert_eq!(rfc3339(1_734_256_800_000), "2024-12-15T10:00:00Z");
        assert_eq!(parse_ms("2024-12-15T12:00:00+02:00"), Some(1_734_256_800_000));
        assert_eq!(parse_ms("1734256800000"), Some(1_734_256_800_000));
        assert_eq!(parse_ms("2024-12-15"), Some(1_734_220_800_000));
        for bad in ["", "yesterday", "2024-13-01", "1969-12-31", "-5"] {
            assert_eq!(parse_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn months_are_half_open_and_in_utc() {
        let (from, to) = month_bounds("2024-12").unwrap();
        assert_eq!(
            (rfc3339(from), rfc3339(to)),
            ("2024-12-01T00:00:00Z".to_owned(), "2025-01-01T00:00:00Z".to_owned())
        );
        for bad in ["2024", "2024-13", "2024-00", "24-01", "2024-1", "2024-12-01"] {
            assert_eq!(month_bounds(bad), None, "{bad}");
        }
    }
}
