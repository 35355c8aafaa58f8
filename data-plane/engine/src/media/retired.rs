//! SRTP of a call that is out of use and may come back. A stream goes over to RTP or to fax and back, to
//! another suite and back, from one branch of a fork to another: with the old keys come the old
//! packet indices, or one key would protect two packets under one index, which gives the difference of
//! their payloads away (RFC 3711 9.1), and under GCM the key of the tags with it (RFC 5116 5.1.1).
//! And of a party what was let in once is not let in again, whoever kept a copy (RFC 3711 3.3.2).
//!
//! It is kept by the call, not by its ports: these may change. It ends with the process; of keys that
//! are out of use then, ours are not used again (`Description::keep_keys`).

use ravelin_srtp::{Keys, Opener, Sealer};

use super::shield::Shield;
use crate::limits::{RETIRED_OPENERS_MAX, RETIRED_SEALERS_MAX};

/// By the keys that they had last; those longest out of use first.
#[derive(Debug, Default)]
pub(super) struct Retired {
    sealers: Vec<(Keys, Sealer)>,
    openers: Vec<(Keys, Opener)>,
}

impl Retired {
    pub(super) fn put(&mut self, shield: Option<Box<Shield>>) {
        if let Some(shield) = shield {
            shield.retire(self);
        }
    }

    pub(super) fn put_sealer(&mut self, keys: Keys, sealer: Sealer) {
        put(&mut self.sealers, RETIRED_SEALERS_MAX, keys, sealer);
    }

    pub(super) fn put_opener(&mut self, keys: Keys, opener: Opener) {
        put(&mut self.openers, RETIRED_OPENERS_MAX, keys, opener);
    }

    /// For keys of ours.
    pub(super) fn sealer(&mut self, keys: &Keys) -> Sealer {
        match take(&mut self.sealers, keys) {
            Some((before, mut sealer)) => {
                sealer.resume(&before, keys);
                sealer
            }
            None => Sealer::new(keys),
        }
    }

    /// For keys of the party. `None`: they were not in use before.
    pub(super) fn opener(&mut self, keys: &Keys) -> Option<Opener> {
        let (before, mut opener) = take(&mut self.openers, keys)?;
        opener.resume(&before, keys);
        Some(opener)
    }
}

fn put<T>(kept: &mut Vec<(Keys, T)>, most: usize, keys: Keys, one: T) {
    if kept.len() >= most {
        kept.remove(0);
    }
    kept.push((keys, one));
}

fn take<T>(kept: &mut Vec<(Keys, T)>, keys: &Keys) -> Option<(Keys, T)> {
    let at = kept.iter().position(|(of, _)| of.share_a_key_with(keys))?;
    Some(kept.remove(at))
}

#[cfg(test)]
mod tests {
    use ravelin_srtp::{MasterKey, Suite};

    use super::*;

    #[test]
    fn what_is_longest_out_of_use_makes_room() {
        let suite = Suite::AesCm128HmacSha1_80;
        let keys = |number: usize| {
            let mut octets = vec![0; suite.keying_bytes()];
            octets[..8].copy_from_slice(&(number as u64).to_le_bytes());
            Keys::single(MasterKey::new(suite, &octets).unwrap())
        };
        let mut retired = Retired::default();
        for number in 0..=RETIRED_SEALERS_MAX {
            retired.put_sealer(keys(number), Sealer::new(&keys(number)));
        }
        for number in 0..=RETIRED_OPENERS_MAX {
            retired.put_opener(keys(number), Opener::new(&keys(number)));
        }
        let kept = (retired.sealers.len(), retired.openers.len());
        assert_eq!(kept, (RETIRED_SEALERS_MAX, RETIRED_OPENERS_MAX));
        assert!(retired.opener(&keys(0)).is_none());
        assert!(retired.opener(&keys(1)).is_some());
        assert!(retired.opener(&keys(1)).is_none(), "in use now");
        assert_eq!(retired.sealers.first().unwrap().0, keys(1));
    }
}
