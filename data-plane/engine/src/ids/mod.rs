//! Identifiers that Ravelin makes: Via branches, tags, Call-IDs. Each carries the shard that owns
//! the call and the slab slot of what it belongs to, so that answers and in-dialog requests find
//! their owner without a shared table (design 4), and a 64-bit nonce that a peer cannot foresee,
//! which tells this use of the slot from every other.
//!
//! ```text
//! branch   z9hG4bK SS LLLLLLLL NNNNNNNNNNNNNNNN      shard, slot, nonce in lower-case hexadecimal
//! tag              SS LLLLLLLL NNNNNNNNNNNNNNNN
//! Call-ID          SS NNNNNNNNNNNNNNNN NNNNNNNNNNNNNNNN
//! ```

pub mod siphash;

use crate::port::ShardId;

/// RFC 3261 8.1.1.7: says that the branch is unique over space and time.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

const SHARD_DIGITS: usize = 2;
const SLOT_DIGITS: usize = 8;
const NONCE_DIGITS: usize = 16;
const COOKIE_LEN: usize = 7;
/// Octets of a tag.
pub const TAG_LEN: usize = SHARD_DIGITS + SLOT_DIGITS + NONCE_DIGITS;
/// Octets of a branch.
pub const BRANCH_LEN: usize = COOKIE_LEN + TAG_LEN;
/// Octets of a Call-ID.
pub const CALL_ID_LEN: usize = SHARD_DIGITS + 2 * NONCE_DIGITS;

/// The text of a tag, a branch or a Call-ID.
pub type TagText = [u8; TAG_LEN];
pub type BranchText = [u8; BRANCH_LEN];
pub type CallIdText = [u8; CALL_ID_LEN];

/// What a tag or branch of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    pub shard: ShardId,
    /// Index into a slab of that shard.
    pub slot: u32,
    /// Must equal the one that the slab entry holds.
    pub nonce: u64,
}

impl Handle {
    /// The slot of a branch that no transaction owns (ACK for a 2xx): answers to it are stray.
    pub const NO_SLOT: u32 = u32::MAX;

    #[must_use]
    pub fn tag(&self) -> TagText {
        let mut text = [0; TAG_LEN];
        self.write(&mut text);
        text
    }

    #[must_use]
    pub fn branch(&self) -> BranchText {
        let mut text = [0; BRANCH_LEN];
        let (cookie, rest) = text.split_at_mut(COOKIE_LEN);
        cookie.copy_from_slice(MAGIC_COOKIE);
        self.write(rest);
        text
    }

    /// Reads a tag. `None` if it is not one that a Ravelin made.
    #[must_use]
    pub fn from_tag(text: &[u8]) -> Option<Self> {
        let text: &TagText = text.try_into().ok()?;
        let (shard, rest) = text.split_first_chunk::<SHARD_DIGITS>()?;
        let (slot, nonce) = rest.split_first_chunk::<SLOT_DIGITS>()?;
        Some(Self {
            shard: ShardId(u8::try_from(parse(shard)?).ok()?),
            slot: u32::try_from(parse(slot)?).ok()?,
            nonce: parse(nonce)?,
        })
    }

    /// Reads a branch. `None` if it is not one that a Ravelin made.
    #[must_use]
    pub fn from_branch(text: &[u8]) -> Option<Self> {
        Self::from_tag(text.strip_prefix(MAGIC_COOKIE)?)
    }

    fn write(&self, into: &mut [u8]) {
        let Some((shard, rest)) = into.split_at_mut_checked(SHARD_DIGITS) else { return };
        let Some((slot, nonce)) = rest.split_at_mut_checked(SLOT_DIGITS) else { return };
        hex(u64::from(self.shard.0), shard);
        hex(u64::from(self.slot), slot);
        hex(self.nonce, nonce);
    }
}

/// Lower-case hexadecimal digits, the last first.
pub(crate) fn hex(mut value: u64, into: &mut [u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for digit in into.iter_mut().rev() {
        let index = usize::try_from(value & 15).unwrap_or(0);
        *digit = DIGITS.get(index).copied().unwrap_or(b'0');
        value >>= 4;
    }
}

fn parse(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    let mut all = 0_u8;
    for digit in digits {
        // As many entries as values of an octet: the compiler drops the check.
        let nibble = NIBBLES.get(usize::from(*digit)).copied().unwrap_or(NO_NIBBLE);
        all |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (all < 16).then_some(value)
}

const NO_NIBBLE: u8 = 0xff;

/// Value of each digit that [`hex`] writes, and of no other: one handle has one text.
const NIBBLES: [u8; 256] = nibbles();

#[allow(clippy::indexing_slicing)] // runs in the compiler
const fn nibbles() -> [u8; 256] {
    let mut table = [NO_NIBBLE; 256];
    let mut value = 0;
    while value < 16 {
        let digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        table[digit as usize] = value;
        value += 1;
    }
    table
}

/// Derives independent keys from the seed of the process.
#[derive(Clone, Copy)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// The key for `purpose`, the same on every shard.
    #[must_use]
    pub fn key(&self, purpose: &[u8]) -> siphash::Key {
        let (first, second) = self.halves();
        let part = |round: u8| {
            let mut inner = first.hasher();
            inner.write_field(purpose);
            inner.write(&[round]);
            let mut outer = second.hasher();
            outer.write_field(purpose);
            outer.write(&inner.finish().to_le_bytes());
            outer.finish()
        };
        siphash::Key::new(part(0), part(1))
    }

    /// The key for `purpose` on one shard alone.
    #[must_use]
    pub fn shard_key(&self, purpose: &[u8], shard: ShardId) -> siphash::Key {
        let mut name = Vec::with_capacity(purpose.len() + 1);
        name.extend_from_slice(purpose);
        name.push(shard.0);
        self.key(&name)
    }

    fn halves(&self) -> (siphash::Key, siphash::Key) {
        let (first, rest) = self.0.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let second: [u8; 16] = rest.try_into().unwrap_or([0; 16]);
        (siphash::Key::from_bytes(*first), siphash::Key::from_bytes(second))
    }
}

/// Nonces and whole identifiers of one shard: a keyed function of a counter, so none repeats and
/// none can be foreseen without the key.
#[derive(Clone, Debug)]
pub struct Generator {
    shard: ShardId,
    key: siphash::Key,
    counter: u64,
}

impl Generator {
    #[must_use]
    pub fn new(seed: &Seed, shard: ShardId) -> Self {
        Self::for_purpose(seed, b"identifiers", shard)
    }

    /// A generator whose values have nothing to do with those of other purposes.
    #[must_use]
    pub fn for_purpose(seed: &Seed, purpose: &[u8], shard: ShardId) -> Self {
        Self { shard, key: seed.shard_key(purpose, shard), counter: 0 }
    }

    /// 64 unforeseeable bits.
    pub fn nonce(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        self.key.hash(&self.counter.to_le_bytes())
    }

    /// A number below `bound` (0 if `bound` is 0), for draws that need not be perfectly even.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.nonce()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A handle for slab slot `slot` of this shard.
    pub fn handle(&mut self, slot: u32) -> Handle {
        Handle { shard: self.shard, slot, nonce: self.nonce() }
    }

    /// A branch that belongs to no transaction.
    pub fn loose_branch(&mut self) -> BranchText {
        self.handle(Handle::NO_SLOT).branch()
    }

    pub fn call_id(&mut self) -> CallIdText {
        let mut text = [0; CALL_ID_LEN];
        let (first, second) = (self.nonce(), self.nonce());
        let (shard, rest) = text.split_at_mut(SHARD_DIGITS);
        let (high, low) = rest.split_at_mut(NONCE_DIGITS);
        hex(u64::from(self.shard.0), shard);
        hex(first, high);
        hex(second, low);
        text
    }
}

/// Says which shard owns a message. The same on every shard of a process.
#[derive(Clone, Debug)]
pub struct Owners {
    shards: u8,
    key: siphash::Key,
}

impl Owners {
    /// `shards` is at least 1.
    #[must_use]
    pub fn new(seed: &Seed, shards: u8) -> Self {
        Self { shards: shards.max(1), key: seed.key(b"owner") }
    }

    pub(crate) fn shards(&self) -> u8 {
        self.shards
    }

    /// Owner of a request: the shard in the To tag if the tag is ours, else a keyed hash of the
    /// Call-ID, so that a peer cannot choose the shard.
    #[must_use]
    pub fn of_request(&self, to_tag: Option<&[u8]>, call_id: &[u8]) -> ShardId {
        to_tag
            .and_then(Handle::from_tag)
            .filter(|handle| handle.shard.0 < self.shards)
            .map_or_else(|| self.of_call_id(call_id), |handle| handle.shard)
    }

    /// Owner of a response: the shard in the branch of its top Via. `None`: not ours, stray.
    #[must_use]
    pub fn of_response(&self, top_branch: Option<&[u8]>) -> Option<ShardId> {
        let handle = Handle::from_branch(top_branch?)?;
        (handle.shard.0 < self.shards).then_some(handle.shard)
    }

    fn of_call_id(&self, call_id: &[u8]) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        let wide = u128::from(self.key.hash(call_id)) * u128::from(self.shards);
        ShardId(u8::try_from(wide >> 64).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn handles_survive_their_text(shard: u8, slot: u32, nonce: u64) {
            let handle = Handle { shard: ShardId(shard), slot, nonce };
            prop_assert_eq!(Handle::from_tag(&handle.tag()), Some(handle));
            prop_assert_eq!(Handle::from_branch(&handle.branch()), Some(handle));
            prop_assert_eq!(Handle::from_branch(&handle.tag()), None);
        }

        #[test]
        fn foreign_text_is_no_handle_or_has_that_very_text(text in "[0-9a-gA-G]{24,28}") {
            if let Some(handle) = Handle::from_tag(text.as_bytes()) {
                prop_assert_eq!(&handle.tag()[..], text.as_bytes());
            }
        }

        #[test]
        fn a_tag_names_its_owner_whatever_the_call_id(
            seed: [u8; 32], shards in 1..=16_u8, shard in 0..16_u8, slot: u32, nonce: u64,
            call_id: Vec<u8>,
        ) {
            let owners = Owners::new(&Seed(seed), shards);
            let tag = Handle { shard: ShardId(shard), slot, nonce }.tag();
            let owner = owners.of_request(Some(&tag), &call_id);
            if shard < shards {
                prop_assert_eq!(owner, ShardId(shard));
            } else {
                prop_assert_eq!(owner, owners.of_request(None, &call_id));
            }
            prop_assert!(owner.0 < shards);
        }
    }

    #[test]
    fn call_ids_spread_over_the_shards() {
        let owners = Owners::new(&Seed([7; 32]), 4);
        let mut count = [0_u32; 4];
        for n in 0..4_000 {
            count[usize::from(owners.of_request(None, format!("{n}@host").as_bytes()).0)] += 1;
        }
        assert!(count.iter().all(|n| (800..1_200).contains(n)), "{count:?}");
    }

    #[test]
    fn identifiers_do_not_repeat_over_shards_or_seeds() {
        let mut seen = HashSet::new();
        for seed in [[1; 32], [2; 32]] {
            for shard in 0..4 {
                let mut generator = Generator::new(&Seed(seed), ShardId(shard));
                for _ in 0..2_000 {
                    assert!(seen.insert(generator.nonce()));
                }
                assert!(generator.call_id().starts_with(format!("{shard:02x}").as_bytes()));
            }
        }
    }

    #[test]
    fn purposes_and_shards_have_keys_of_their_own() {
        let seed = Seed([9; 32]);
        let values: HashSet<u64> = [
            seed.key(b"owner").hash(b""),
            seed.key(b"identifiers").hash(b""),
            seed.shard_key(b"identifiers", ShardId(0)).hash(b""),
            seed.shard_key(b"identifiers", ShardId(1)).hash(b""),
            Seed([8; 32]).key(b"owner").hash(b""),
        ]
        .into();
        assert_eq!(values.len(), 5);
    }
}
