//! Packets and keys for the tests.
#![allow(dead_code, reason = "each test uses its part")]

use ravelin_srtp::{Keys, MasterKey, Opener, Refusal, Sealer, Suite};

pub(crate) fn key(suite: Suite, seed: u8) -> MasterKey {
    let octets: Vec<u8> =
        (0..suite.keying_bytes()).map(|at| seed ^ (at as u8).wrapping_mul(37)).collect();
    MasterKey::new(suite, &octets).unwrap()
}

pub(crate) fn pair(suite: Suite, seed: u8) -> (Sealer, Opener) {
    let keys = Keys::single(key(suite, seed));
    (Sealer::new(&keys), Opener::new(&keys))
}

pub(crate) fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 8];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A receiver report without blocks and an SDES with a CNAME.
pub(crate) fn rtcp(ssrc: u32, name: &[u8; 6]) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 202, 0, 4]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 6]);
    packet.extend(name);
    packet.extend([0; 4]);
    packet
}

pub(crate) fn seal_rtp(sealer: &mut Sealer, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + sealer.rtp_overhead(), 0xa5);
    let length = sealer.seal_rtp(&mut buffer, packet.len())?;
    buffer.truncate(length);
    Ok(buffer)
}

pub(crate) fn seal_rtcp(sealer: &mut Sealer, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + sealer.rtcp_overhead(), 0xa5);
    let length = sealer.seal_rtcp(&mut buffer, packet.len())?;
    buffer.truncate(length);
    Ok(buffer)
}

pub(crate) fn open_rtp(opener: &mut Opener, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = vec![0x5a; packet.len()];
    let length = opener.open_rtp(packet, &mut out)?;
    out.truncate(length);
    Ok(out)
}

pub(crate) fn open_rtcp(opener: &mut Opener, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = vec![0x5a; packet.len()];
    let length = opener.open_rtcp(packet, &mut out)?;
    out.truncate(length);
    Ok(out)
}
