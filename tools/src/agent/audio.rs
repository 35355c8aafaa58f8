//! RTP whose content can be checked: every payload is computed from the sender's name and the
//! packet's number, so that the receiver knows what it must be, octet by octet.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ravelin_wire::rtp::Header;

/// G.711 mu-law: 8,000 octets a second.
const PAYLOAD_TYPE: u8 = 0;
const PAYLOAD_BYTES: usize = 160;
/// One packet each.
pub(crate) const PACKET_EVERY: Duration = Duration::from_millis(20);
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// After so long without a packet nothing more is on its way: a loaded machine may stop any of the
/// threads between here and there for some hundred milliseconds.
const QUIET: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The sender's part of a call: which octets it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voice(pub(crate) u64);

impl Voice {
    fn first_sequence(self) -> u16 {
        self.block(u64::MAX).to_le_bytes().first_chunk().copied().map_or(0, u16::from_le_bytes)
    }

    fn ssrc(self) -> u32 {
        self.block(u64::MAX - 1).to_le_bytes().first_chunk().copied().map_or(0, u32::from_le_bytes)
    }

    /// Eight octets of the stream (the mixing function of SplitMix64).
    fn block(self, number: u64) -> u64 {
        let mut x = self.0.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn payload(self, packet: u16) -> [u8; PAYLOAD_BYTES] {
        let mut payload = [0; PAYLOAD_BYTES];
        for (chunk, number) in payload.chunks_exact_mut(8).zip(0..) {
            chunk.copy_from_slice(&self.block(u64::from(packet) * 64 + number).to_le_bytes());
        }
        payload
    }

    fn packet(self, number: u16) -> Vec<u8> {
        let sequence = self.first_sequence().wrapping_add(number);
        let timestamp = u32::from(number) * u32::try_from(PAYLOAD_BYTES).unwrap_or(0);
        let mut packet = vec![0x80, PAYLOAD_TYPE];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc().to_be_bytes());
        packet.extend(self.payload(number));
        packet
    }

    /// Number of the packet if it is one of this voice, whole and unchanged.
    fn recognise(self, packet: &[u8]) -> Option<u16> {
        let header = Header::parse(packet)?;
        let number = header.sequence.wrapping_sub(self.first_sequence());
        let is_ours = header.payload_type == PAYLOAD_TYPE
            && header.timestamp == u32::from(number) * u32::try_from(PAYLOAD_BYTES).ok()?
            && header.payload == self.payload(number);
        is_ours.then_some(number)
    }
}

/// What one end of a call heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Packets of the other end with the right content, each counted once.
    pub(crate) verified: usize,
    /// Packets that are not what the other end sent.
    pub(crate) foreign: usize,
    pub(crate) repeated: usize,
}

/// One end's RTP socket, sending and receiving.
#[derive(Debug)]
pub(crate) struct Audio {
    socket: UdpSocket,
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<(Heard, BTreeSet<u16>)>>,
    receiver: Option<JoinHandle<()>>,
    sender: Option<JoinHandle<usize>>,
}

impl Audio {
    /// Opens an RTP port on `ip` and listens for `other`.
    pub(crate) fn open(ip: IpAddr, other: Voice) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new((Heard::default(), BTreeSet::new())));
        let (listening, ended, book) = (socket.try_clone()?, Arc::clone(&stop), Arc::clone(&heard));
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, _)) = listening.recv_from(&mut buffer) else { continue };
                let number = buffer.get(..length).and_then(|packet| other.recognise(packet));
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                match number {
                    None => book.0.foreign += 1,
                    Some(number) if book.1.insert(number) => book.0.verified += 1,
                    Some(_) => book.0.repeated += 1,
                }
            }
        });
        Ok(Self { socket, stop, heard, receiver: Some(receiver), sender: None })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Begins to speak: `packets` packets to `to`.
    pub(crate) fn speak(&mut self, voice: Voice, to: SocketAddr, packets: u16) -> io::Result<()> {
        let (socket, stop) = (self.socket.try_clone()?, Arc::clone(&self.stop));
        self.sender = Some(std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            for number in 0..packets {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if socket.send_to(&voice.packet(number), to).is_ok() {
                    sent += 1;
                }
                let next = start + PACKET_EVERY * (u32::from(number) + 1);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            sent
        }));
        Ok(())
    }

    /// Waits until everything is said; returns how many packets were sent.
    pub(crate) fn finish_speaking(&mut self) -> usize {
        self.sender.take().and_then(|sender| sender.join().ok()).unwrap_or(0)
    }

    /// Waits until `packets` packets were heard or no more come; `meanwhile` is told for how long to do
    /// something else.
    pub(crate) fn hear_out(
        &self,
        packets: u16,
        mut meanwhile: impl FnMut(Duration) -> io::Result<()>,
    ) -> io::Result<Heard> {
        let mut heard = self.heard();
        let mut last = Instant::now();
        while heard.verified < usize::from(packets) && last.elapsed() < QUIET {
            meanwhile(LOOK_EVERY)?;
            let now = self.heard();
            if now != heard {
                last = Instant::now();
            }
            heard = now;
        }
        Ok(heard)
    }

    /// What was heard until now.
    fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Drop for Audio {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Voice;

    #[test]
    fn only_the_unchanged_packets_of_a_voice_are_recognised() {
        let voice = Voice(7);
        for number in [0, 1, 999, u16::MAX] {
            assert_eq!(voice.recognise(&voice.packet(number)), Some(number));
            assert_eq!(Voice(8).recognise(&voice.packet(number)), None);
        }
        let packet = voice.packet(5);
        for at in 12..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(voice.recognise(&changed), None, "octet {at}");
        }
        assert_eq!(voice.recognise(&packet[..packet.len() - 1]), None);
    }
}
