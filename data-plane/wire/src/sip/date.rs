//! SIP-date (RFC 3261 20.17): RFC 1123 form, always GMT.

use super::chars::split;
use super::fields::{decimal, push_decimal};

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// `Sat, 13 Nov 2010 23:29:00 GMT` as seconds since 1970-01-01. `None` for any other zone or form,
/// a day that does not exist, or a year outside 1970 to 9999. The name of the day is not compared.
#[must_use]
pub fn parse_date(value: &[u8]) -> Option<u64> {
    let (day_name, rest) = value.split_first_chunk::<3>()?;
    if !DAYS.iter().any(|name| name.eq_ignore_ascii_case(day_name)) {
        return None;
    }
    let rest = rest.strip_prefix(b", ")?;
    // One digit is against the grammar and leaves no doubt.
    let (day, rest) = number(rest, 2).or_else(|| number(rest, 1))?;
    let rest = rest.strip_prefix(b" ")?;
    let (month_name, rest) = rest.split_first_chunk::<3>()?;
    let month = MONTHS.iter().zip(1u64..).find(|(m, _)| m.eq_ignore_ascii_case(month_name))?.1;
    let (year, rest) = number(rest.strip_prefix(b" ")?, 4)?;
    let (hour, rest) = number(rest.strip_prefix(b" ")?, 2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 2)?;
    let (second, rest) = number(rest.strip_prefix(b":")?, 2)?;
    if !rest.strip_prefix(b" ")?.eq_ignore_ascii_case(b"GMT") {
        return None;
    }
    let day_ok = day >= 1 && day <= month_days(year, month);
    // 60 is a leap second.
    if year < 1970 || !day_ok || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second)
}

/// The last second that four digits of a year can say.
const UNIX_MAX_SECONDS: u64 = 253_402_300_799;

/// Appends `unix` seconds as a SIP-date; times after the year 9999 as its last second.
pub fn write_date(unix: u64, out: &mut Vec<u8>) {
    let unix = unix.min(UNIX_MAX_SECONDS);
    let days = unix / 86_400;
    let second = unix % 86_400;
    let mut year = 1970 + days / 366;
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_before(year, month + 1) <= days {
        month += 1;
    }
    let two = |out: &mut Vec<u8>, n: u64| {
        if n < 10 {
            out.push(b'0');
        }
        push_decimal(out, n);
    };
    let pick = |n: u64| usize::try_from(n).unwrap_or_default();
    out.extend_from_slice(DAYS.get(pick(days % 7)).map_or(&[][..], |d| &d[..]));
    out.extend_from_slice(b", ");
    two(out, days - days_before(year, month) + 1);
    out.push(b' ');
    out.extend_from_slice(MONTHS.get(pick(month - 1)).map_or(&[][..], |m| &m[..]));
    out.push(b' ');
    push_decimal(out, year);
    out.push(b' ');
    two(out, second / 3600);
    out.push(b':');
    two(out, second / 60 % 60);
    out.push(b':');
    two(out, second % 60);
    out.extend_from_slice(b" GMT");
}

/// Exactly `width` digits.
fn number(s: &[u8], width: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = split(s, width);
    (digits.len() == width).then_some((decimal(digits)?, rest))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of a month; `year` is 1970 or later.
const fn days_before(year: u64, month: u64) -> u64 {
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400;
    let mut days = past * 365 + leaps - 719_162;
    let mut m = 1;
    while m < month {
        days += month_days(year, m);
        m += 1;
    }
    days
}
