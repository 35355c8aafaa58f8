//! How one emergency call walks its trunks (EM-50 to EM-54). Pure timing rules; the call asks.

use std::time::Duration;

/// A trunk that answers nothing at all is left after this: over UDP the INVITE went out three
/// times by then (EM-51).
pub(crate) const NO_RESPONSE: Duration = Duration::from_secs(2);
/// A trunk that says 100 and nothing else is left after this, counted from its INVITE (EM-51).
pub(crate) const NO_PROGRESS: Duration = Duration::from_secs(8);
/// All trunks failed: the chain begins again after this (EM-54).
pub(crate) const RESTART: Duration = Duration::from_secs(1);
/// The chain is begun again until the call is this old (EM-54); then 503, and a critical event.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(60);
/// Trunk attempts of one call. The timers above allow fewer in [`GIVE_UP`] unless every trunk
/// refuses at once; this bounds that case.
pub(crate) const ATTEMPTS_MAX: u16 = 512;

/// What an attempt has seen when its timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Nothing,
    Trying,
    /// 18x: PSAPs ring long, no timer moves the call on (EM-52).
    Ringing,
}

/// When to look at the attempt again, or `None`: leave it now, the next trunk is due.
pub(crate) fn patience(progress: Progress, age: Duration) -> Option<Duration> {
    let bound = match progress {
        Progress::Nothing => NO_RESPONSE,
        Progress::Trying => NO_PROGRESS,
        Progress::Ringing => return Some(GIVE_UP),
    };
    bound.checked_sub(age).filter(|left| !left.is_zero())
}

/// After the last trunk of the chain failed: begin again after this, or `None`: give up.
pub(crate) fn again(age: Duration, attempts: u16) -> Option<Duration> {
    (age + RESTART <= GIVE_UP && attempts < ATTEMPTS_MAX).then_some(RESTART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_left_after_2_s_a_bare_100_after_8_s_and_ringing_never() {
        let s = Duration::from_secs;
        assert_eq!(patience(Progress::Nothing, s(2)), None);
        assert_eq!(
            patience(Progress::Nothing, Duration::from_millis(1500)),
            Some(s(2) - Duration::from_millis(1500))
        );
        assert_eq!(patience(Progress::Trying, s(2)), Some(s(6)));
        assert_eq!(patience(Progress::Trying, s(8)), None);
        assert!(patience(Progress::Ringing, s(1000)).is_some());
    }

    #[test]
    fn the_chain_restarts_for_a_minute_and_never_without_bound() {
        assert_eq!(again(Duration::from_secs(59), 4), Some(RESTART));
        assert_eq!(again(Duration::from_secs(60), 4), None);
        assert_eq!(again(Duration::ZERO, ATTEMPTS_MAX), None);
    }
}
