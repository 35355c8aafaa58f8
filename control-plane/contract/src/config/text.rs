//! Values that users write as text with a unit or a reference, kept as written.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`, for example `500ms`, `10s`, `30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DurationText(#[schemars(regex(pattern = r"^[0-9]+ ?(ms|s|m|h|d)$"))] pub String);

impl DurationText {
    /// The duration, or what is wrong with the text.
    pub fn parse(&self) -> Result<Duration, String> {
        let (number, unit) = split_unit(&self.0);
        let millis_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(self.complaint()),
        };
        let count: u64 = number.parse().map_err(|_| self.complaint())?;
        let millis = count
            .checked_mul(millis_per_unit)
            .ok_or_else(|| format!("duration `{}` is too large", self.0))?;
        Ok(Duration::from_millis(millis))
    }

    fn complaint(&self) -> String {
        format!("`{}` is not a duration; write a whole number and ms, s, m, h or d", self.0)
    }
}

/// A size in octets: a whole number and nothing, `B`, `KiB`, `MiB` or `GiB`, for example `64KiB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SizeText(#[schemars(regex(pattern = r"^[0-9]+ ?(B|KiB|MiB|GiB)?$"))] pub String);

impl SizeText {
    /// The size in octets, or what is wrong with the text.
    pub fn parse(&self) -> Result<u64, String> {
        let (number, unit) = split_unit(&self.0);
        let octets_per_unit: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(self.complaint()),
        };
        let count: u64 = number.parse().map_err(|_| self.complaint())?;
        count.checked_mul(octets_per_unit).ok_or_else(|| format!("size `{}` is too large", self.0))
    }

    fn complaint(&self) -> String {
        format!("`{}` is not a size; write a whole number and B, KiB, MiB or GiB", self.0)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// A secret: `file:PATH` (relative paths start at the data directory), `env:NAME`, or the secret
/// itself. Whoever uses it resolves the reference; a literal is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(pub String);

/// Where a secret is to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SecretSource<'a> {
    File(&'a str),
    Env(&'a str),
    Literal(&'a str),
}

impl SecretText {
    /// Where the secret is to be found.
    #[must_use]
    pub fn source(&self) -> SecretSource<'_> {
        if let Some(path) = self.0.strip_prefix("file:") {
            SecretSource::File(path)
        } else if let Some(name) = self.0.strip_prefix("env:") {
            SecretSource::Env(name)
        } else {
            SecretSource::Literal(&self.0)
        }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source() {
            SecretSource::File(_) | SecretSource::Env(_) => f.write_str(&self.0),
            SecretSource::Literal(_) => f.write_str("***"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_keep_their_units() {
        let ms = |text: &str| DurationText(text.into()).parse().map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("2 m"), Ok(120_000));
        assert_eq!(ms("1d"), Ok(86_400_000));
        for bad in ["", "10", "s", "1.5s", "-1s", "10 sec", "99999999999999999999s"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
        assert!(ms("9999999999999999d").unwrap_err().contains("too large"));

        let octets = |text: &str| SizeText(text.into()).parse();
        assert_eq!(octets("64KiB"), Ok(65_536));
        assert_eq!(octets("1 MiB"), Ok(1 << 20));
        assert_eq!(octets("12"), Ok(12));
        for bad in ["", "KiB", "64KB", "64kib", "1e3"] {
            assert!(octets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_literal_secret_is_not_printed() {
        assert_eq!(format!("{:?}", SecretText("hunter2".into())), "***");
        assert_eq!(format!("{:?}", SecretText("env:TOKEN".into())), "env:TOKEN");
        assert!(matches!(
            SecretText("file:secrets/a".into()).source(),
            SecretSource::File("secrets/a")
        ));
    }
}
