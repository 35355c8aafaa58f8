//! Signalling datagrams that met a full send queue.

use crate::driver::{SendError, Stats};
use crate::sockets::Sockets;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// Datagrams kept. The send queue itself holds megabytes: whoever fills it and this too is not
/// being drained, and the transaction layer retransmits.
pub(crate) const BACKLOG_MAX: usize = 256;

struct Waiting {
    socket: u32,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<Waiting>,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Deals with a datagram that the kernel had no room for: kept if it is signalling, else, or
    /// if there is no room here either, dropped and counted.
    pub(crate) fn push(
        &mut self,
        sockets: &Sockets,
        socket: u32,
        to: SocketAddr,
        bytes: &[u8],
        stats: &mut Stats,
    ) {
        // Media is worth nothing once it is late.
        if sockets.is_listener(socket) && self.waiting.len() < BACKLOG_MAX {
            stats.tx_backlogged += 1;
            self.waiting.push_back(Waiting { socket, to, bytes: bytes.to_vec() });
        } else {
            stats.count_send_error(SendError::WouldBlock);
        }
    }

    /// Sends what there is room for now. `send` is asked until it answers that it would block.
    pub(crate) fn flush(
        &mut self,
        stats: &mut Stats,
        mut send: impl FnMut(u32, SocketAddr, &[u8]) -> io::Result<()>,
    ) {
        while let Some(first) = self.waiting.front() {
            match send(first.socket, first.to, &first.bytes) {
                Ok(()) => stats.count_sent(1, first.bytes.len()),
                Err(error) => match SendError::of(&error) {
                    SendError::WouldBlock => return,
                    other => stats.count_send_error(other),
                },
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Options;
    use ravelin_engine::port::{ListenerId, MediaPortId};

    fn would_block() -> io::Error {
        io::Error::from_raw_os_error(libc::EAGAIN)
    }

    #[test]
    fn signalling_waits_in_order_and_in_bounds_and_media_does_not_wait() {
        let mut sockets = Sockets::new(&Options::default());
        let at = "127.5.0.7:0".parse().unwrap();
        let (listener, _) = sockets.open_listener(ListenerId(0), at).unwrap();
        let (media, to) = sockets.open_media(MediaPortId(0), at).unwrap();
        let (mut backlog, mut stats) = (Backlog::default(), Stats::default());

        backlog.push(&sockets, media, to, b"rtp", &mut stats);
        assert!(backlog.is_empty());
        for number in 0..=BACKLOG_MAX {
            backlog.push(&sockets, listener, to, &number.to_be_bytes(), &mut stats);
        }
        assert_eq!(stats.tx_backlogged, BACKLOG_MAX as u64);
        assert_eq!(stats.tx_errors[SendError::WouldBlock as usize], 2);

        let mut sent = Vec::new();
        backlog.flush(&mut stats, |_, _, bytes| {
            if sent.len() == 3 {
                return Err(would_block());
            }
            sent.push(bytes.to_vec());
            Ok(())
        });
        backlog.flush(&mut stats, |_, _, bytes| {
            sent.push(bytes.to_vec());
            Ok(())
        });
        let expected: Vec<_> = (0..BACKLOG_MAX).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(sent, expected);
        assert!(backlog.is_empty());
        assert_eq!(stats.tx_datagrams, BACKLOG_MAX as u64);
    }

    #[test]
    fn a_datagram_that_cannot_be_sent_does_not_hold_up_the_others() {
        let mut sockets = Sockets::new(&Options::default());
        let at = "127.5.0.8:0".parse().unwrap();
        let (listener, to) = sockets.open_listener(ListenerId(0), at).unwrap();
        let (mut backlog, mut stats) = (Backlog::default(), Stats::default());
        backlog.push(&sockets, listener, to, b"bad", &mut stats);
        backlog.push(&sockets, listener, to, b"good", &mut stats);
        let mut sent = Vec::new();
        backlog.flush(&mut stats, |_, _, bytes| {
            if bytes == b"bad" {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            sent.push(bytes.to_vec());
            Ok(())
        });
        assert_eq!(sent, [b"good"]);
        assert_eq!(stats.tx_errors[SendError::Denied as usize], 1);
    }
}
