//! Times on the command line: seconds since 1970-01-01 UTC, or RFC 3339.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC, now.
pub(super) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reads `1749988800`, `2025-06-15T12:00:00Z` or `2025-06-15T14:00:00+02:00`. Fractions of a second
/// are dropped.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    rfc3339(text).ok_or_else(|| {
        "give seconds since 1970-01-01, or a time such as 2025-06-15T12:00:00Z".to_owned()
    })
}

fn rfc3339(text: &str) -> Option<u64> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok().map(i64::from);
    let separator =
        |at: usize, allowed: &str| text.get(at..=at).is_some_and(|found| allowed.contains(found));
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let separated = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")]
        .into_iter()
        .all(|(at, allowed)| separator(at, allowed));
    let in_range = separated
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    in_range.then_some(())?;
    let rest = text.get(19..)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.find(|c: char| !c.is_ascii_digit())?;
            (zone > 0).then_some(fraction.get(zone..)?)?
        }
        None => rest,
    };
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('+') { 1 } else { -1 };
            let colon =
                rest.len() == 6 && rest.starts_with(['+', '-']) && rest.get(3..4) == Some(":");
            colon.then_some(())?;
            let hours = rest.get(1..3)?.parse::<u32>().ok().filter(|hours| *hours < 24)?;
            let minutes = rest.get(4..6)?.parse::<u32>().ok().filter(|minutes| *minutes < 60)?;
            sign * i64::from(hours * 60 + minutes) * 60
        }
    };
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds - offset).ok()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_in(year, month)).sum::<i64>() + day - 1
}

/// `2025-06-15T12:00:00Z`. Times before 1970 are written as 1970-01-01.
pub(super) fn format(unix: i64) -> String {
    let (mut days, seconds) = (unix.max(0) / 86_400, unix.max(0) % 86_400);
    let (mut year, mut month) = (1970, 1);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("0", 0),
            ("1443208345", 1_443_208_345),
            ("1970-01-01T00:00:00Z", 0),
            ("2015-09-25T19:12:25Z", 1_443_208_345),
            ("2015-09-25t21:12:25.123+02:00", 1_443_208_345),
            ("2015-09-25 15:12:25-04:00", 1_443_208_345),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for bad in [
            "",
            "now",
            "-1",
            "2015-09-25",
            "2015-02-29T00:00:00Z",
            "2015-09-25T19:12:25",
            "2015-13-01T00:00:00Z",
            "2015-09-25T19:12:25+0200",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for seconds in [0u64, 951_782_399, 951_782_400, 951_868_800, 1_443_208_345, 4_107_542_400] {
            let text = format(i64::try_from(seconds).unwrap());
            assert_eq!(parse(&text), Ok(seconds), "{text}");
        }
    }
}
