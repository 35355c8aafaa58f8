//! The end of the signing certificate's validity: told in time, and louder as it comes (ST-56).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ravelin_contract::audit::{AuditEvent, Severity};

use super::{event, log, report::ProcessCounters, unix_ms, utc_time};
use crate::spool::SpoolHandle;

/// How often the certificate is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const DAY_S: u64 = 86_400;
/// A warning from here on: time to order the next one.
pub(crate) const SOON_S: u64 = 30 * DAY_S;
/// An alarm from here on.
pub(crate) const NEAR_S: u64 = 7 * DAY_S;

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Far,
    Soon,
    Near,
    Over,
}

impl Stage {
    fn of(not_after: u64, now_unix: u64) -> Self {
        match not_after.checked_sub(now_unix) {
            None => Self::Over,
            Some(left) if left < NEAR_S => Self::Near,
            Some(left) if left < SOON_S => Self::Soon,
            Some(_) => Self::Far,
        }
    }

    fn severity(self) -> Severity {
        match self {
            Self::Far => Severity::Info,
            Self::Soon => Severity::Warning,
            Self::Near => Severity::Alarm,
            Self::Over => Severity::Critical,
        }
    }
}

/// What was told of which certificate. Each stage is told once, and again after a restart.
#[derive(Debug, Default)]
struct Told(Option<(u64, Stage)>);

impl Told {
    /// The event of this moment, if there is one. `not_after` 0: there is no certificate.
    fn look(&mut self, not_after: u64, now_unix: u64) -> Option<AuditEvent> {
        if not_after == 0 || not_after == u64::MAX {
            self.0 = None;
            return None;
        }
        let now = (not_after, Stage::of(not_after, now_unix));
        let known = self.0.replace(now) == Some(now);
        if known || now.1 == Stage::Far {
            return None;
        }
        let kind = match now.1 {
            Stage::Over => "stir.certificate_expired",
            _ => "stir.certificate_expires",
        };
        let at = utc_time(not_after.saturating_mul(1_000));
        let days = not_after.saturating_sub(now_unix) / DAY_S;
        let text = match now.1 {
            Stage::Over => {
                format!("the signing certificate ended at {at}: calls go out unsigned; renew it")
            }
            _ => format!("the signing certificate ends at {at}, in {days} days: renew it"),
        };
        let level = if now.1 == Stage::Soon { "warning" } else { "alarm" };
        log(level, "stir", &text);
        let told = event(kind, now.1.severity()).field("not_after", at).field("days_left", days);
        Some(told.into_event())
    }
}

/// Starts the thread that watches for as long as the process lives.
pub(crate) fn watch(process: Arc<ProcessCounters>, spool: SpoolHandle) -> std::io::Result<()> {
    let watch = move || {
        let mut told = Told::default();
        loop {
            let not_after = process.certificate_not_after.load(Ordering::Relaxed);
            if let Some(event) = told.look(not_after, unix_ms() / 1_000) {
                spool.event(event);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    };
    std::thread::Builder::new().name("expiry".into()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_told_once_and_a_new_certificate_begins_anew() {
        const END: u64 = 1_800_000_000;
        let mut told = Told::default();
        let mut look = |not_after, now| {
            told.look(not_after, now).map(|event| (event.kind.clone(), event.severity))
        };
        assert_eq!(look(0, END), None, "no certificate");
        assert_eq!(look(END, END - SOON_S), None);
        let expires = |severity| Some(("stir.certificate_expires".to_owned(), severity));
        assert_eq!(look(END, END - SOON_S + 1), expires(Severity::Warning));
        assert_eq!(look(END, END - NEAR_S), None);
        assert_eq!(look(END, END - NEAR_S + 1), expires(Severity::Alarm));
        assert_eq!(look(END, END), None);
        let expired = Some(("stir.certificate_expired".to_owned(), Severity::Critical));
        assert_eq!(look(END, END + 1), expired);
        assert_eq!(look(END, END + DAY_S), None);
        assert_eq!(look(END + 2 * SOON_S, END), None);
        assert_eq!(look(END + SOON_S, END + 1), expires(Severity::Warning));
        // The old one again, after a rollback.
        assert_eq!(look(END, END + 1), expired);
    }
}
