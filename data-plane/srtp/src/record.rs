//! Keys and packet indices as octets, for a call record that outlives the process, and back.
//!
//! Between its last record and its end a process may have protected packets that no record tells of.
//! An index that comes twice under one key gives the difference of two payloads away (RFC 3711 9.1),
//! and under GCM the key of the tags with it (RFC 5116 5.1.1). So a record claims more indices than
//! were used: [`RTP_LEAD`] beyond the highest one of each source, and [`RTCP_LEAD`] SRTCP indices. A
//! sealer that has used up its claim says so ([`Sealer::take_outrun`]), and whoever keeps the record
//! writes a new one before that packet is sent. A sealer made of a record counts the whole claim as
//! used. SRTCP indices jump over it, for they are in the packet; RTP indices follow from the sequence
//! numbers of whoever is relayed, so that his packets within the claim are refused, at most
//! [`RTP_LEAD`] of them. The length of the claim weighs that gap against the number of records.

use smallvec::SmallVec;

use crate::{
    keys::{Keys, Master, MasterKey, Mki},
    limits::{MASTER_KEYS_MAX, RTCP_LEAD, RTCP_LIFETIME, RTP_LEAD, SOURCES_MAX},
    open::Opener,
    replay::{Sources, Window},
    seal::{Active, Sealer},
    suite::Suite,
};

/// Suites by their number in records, which never changes.
const SUITES: [Suite; 5] = [
    Suite::AesCm128HmacSha1_80,
    Suite::AesCm128HmacSha1_32,
    Suite::AesCm256HmacSha1_80,
    Suite::AeadAes128Gcm,
    Suite::AeadAes256Gcm,
];

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

fn u8_of(from: &mut &[u8]) -> Option<u8> {
    take::<1>(from).map(|[octet]| octet)
}

fn u64_of(from: &mut &[u8]) -> Option<u64> {
    take(from).map(u64::from_le_bytes)
}

fn flag_of(from: &mut &[u8]) -> Option<bool> {
    match u8_of(from)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

impl Keys {
    /// Appends the keys themselves: for memory that nobody else can read.
    pub fn save(&self, out: &mut Vec<u8>) {
        let suite = SUITES.iter().position(|suite| *suite == self.suite()).unwrap_or(SUITES.len());
        out.extend([count(suite), u8::from(self.unencrypted_rtcp), count(self.masters().len())]);
        for master in self.masters() {
            out.extend_from_slice(master.key.key_and_salt());
            // An MKI has one octet at least.
            out.push(master.mki.map_or(0, |mki| count(mki.bytes())));
            if let Some(mki) = master.mki {
                out.extend(mki.value().to_le_bytes());
            }
            out.push(u8::from(master.lifetime.is_some()));
            if let Some(lifetime) = master.lifetime {
                out.extend(lifetime.to_le_bytes());
            }
        }
    }

    /// Takes what [`Self::save`] wrote off the front of `from`. `None`: it is something else.
    #[must_use]
    pub fn load(from: &mut &[u8]) -> Option<Self> {
        let suite = *SUITES.get(usize::from(u8_of(from)?))?;
        let unencrypted_rtcp = flag_of(from)?;
        let masters = usize::from(u8_of(from)?);
        if masters > MASTER_KEYS_MAX {
            return None;
        }
        let mut read = |_| {
            let (key, rest) = from.split_at_checked(suite.keying_bytes())?;
            *from = rest;
            let key = MasterKey::new(suite, key)?;
            let mki = match usize::from(u8_of(from)?) {
                0 => None,
                bytes => Some(Mki::new(u64_of(from)?, bytes)?),
            };
            let lifetime = if flag_of(from)? { Some(u64_of(from)?) } else { None };
            Some(Master { key, mki, lifetime })
        };
        let masters: Option<SmallVec<[Master; 1]>> = (0..masters).map(&mut read).collect();
        let mut keys = Self::several(masters?)?;
        keys.unencrypted_rtcp = unencrypted_rtcp;
        Some(keys)
    }
}

/// What master keys may still do, `lead` less.
fn save_left(masters: &[Active], lead: [u64; 2], out: &mut Vec<u8>) {
    out.push(count(masters.len()));
    let [rtp, rtcp] = lead;
    for master in masters {
        out.extend(master.rtp_left.saturating_sub(rtp).to_le_bytes());
        out.extend(master.rtcp_left.saturating_sub(rtcp).to_le_bytes());
    }
}

fn load_left(masters: &mut [Active], from: &mut &[u8]) -> Option<()> {
    if usize::from(u8_of(from)?) != masters.len() {
        return None;
    }
    for master in masters {
        master.rtp_left = master.rtp_left.min(u64_of(from)?);
        master.rtcp_left = master.rtcp_left.min(u64_of(from)?);
    }
    Some(())
}

fn save_windows(sources: &Sources, out: &mut Vec<u8>) {
    out.push(count(sources.windows().count()));
    for (ssrc, window) in sources.windows() {
        out.extend(ssrc.to_le_bytes());
        out.extend(window.highest().to_le_bytes());
        out.extend(window.used().to_le_bytes());
    }
}

fn sources_of(
    from: &mut &[u8],
    behind: bool,
    mut window: impl FnMut(&mut &[u8]) -> Option<Window>,
) -> Option<Sources> {
    let known = usize::from(u8_of(from)?);
    if known > SOURCES_MAX {
        return None;
    }
    let mut sources = Sources::default();
    for _ in 0..known {
        let ssrc = u32::from_le_bytes(take(from)?);
        if sources.find(ssrc).is_some() {
            return None;
        }
        sources.insert(ssrc, window(from)?, behind);
    }
    Some(sources)
}

impl Opener {
    /// Appends what it knows besides its keys.
    pub fn save(&self, out: &mut Vec<u8>) {
        save_left(&self.masters, [0, 0], out);
        save_windows(&self.rtp, out);
        save_windows(&self.rtcp, out);
    }

    /// The opener that [`Self::save`] told of. What came between the record and now is not in it: of
    /// these packets a copy would be let in once more, until the source's first packet beyond the
    /// record, behind which they all count as taken. To claim indices ahead, as a sealer does, would
    /// refuse the party's own packets for as long as the claim reaches. `None`: `from` does not begin
    /// with what it wrote.
    #[must_use]
    pub fn load(keys: &Keys, from: &mut &[u8]) -> Option<Self> {
        let mut opener = Self::new(keys);
        load_left(&mut opener.masters, from)?;
        let mut window =
            |from: &mut &[u8]| Some(Window::of(u64_of(from)?, u128::from_le_bytes(take(from)?)));
        opener.rtp = sources_of(from, true, &mut window)?;
        opener.rtcp = sources_of(from, true, &mut window)?;
        Some(opener)
    }
}

impl Sealer {
    /// Appends what it knows besides its keys, and what the record claims.
    pub fn save(&self, out: &mut Vec<u8>) {
        save_left(&self.masters, [RTP_LEAD, RTCP_LEAD], out);
        out.extend(self.rtcp_index.saturating_add(RTCP_LEAD).min(RTCP_LIFETIME).to_le_bytes());
        out.push(count(self.sources.windows().count()));
        for (ssrc, window) in self.sources.windows() {
            out.extend(ssrc.to_le_bytes());
            out.extend(window.highest().saturating_add(RTP_LEAD).to_le_bytes());
        }
    }

    /// What [`Self::save`] wrote last is kept: what it claims may be used.
    pub fn kept(&mut self) {
        self.sources.keep(RTP_LEAD);
        self.rtcp_kept = self.rtcp_index.saturating_add(RTCP_LEAD);
        self.outrun = false;
        self.is_kept = true;
    }

    /// No record is kept any more.
    pub fn not_kept(&mut self) {
        self.is_kept = false;
        self.outrun = false;
    }

    /// Whether an index was used since the last call that no record claims.
    pub fn take_outrun(&mut self) -> bool {
        std::mem::take(&mut self.outrun)
    }

    /// The sealer that [`Self::save`] told of; it uses nothing that the record claimed. `None`:
    /// `from` does not begin with what it wrote.
    #[must_use]
    pub fn load(keys: &Keys, from: &mut &[u8]) -> Option<Self> {
        let mut sealer = Self::new(keys);
        load_left(&mut sealer.masters, from)?;
        sealer.rtcp_index = u64_of(from)?;
        sealer.sources =
            sources_of(from, false, |from| Some(Window::of(u64_of(from)?, u128::MAX)))?;
        Some(sealer)
    }
}

#[cfg(test)]
mod tests;
