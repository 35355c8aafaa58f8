//! Frames on a byte stream: four octets of length, then JSON (contract `link`).

use std::io;

use ravelin_contract::link::{Down, FRAME_MAX_BYTES, Up};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest first frame, in octets: before a node has said who it is, it gets little memory.
pub(super) const HELLO_MAX_BYTES: u32 = 16 * 1024;

/// Reads one frame of at most `max` octets. `None` when the peer ended the stream between frames.
pub(super) async fn read<R: AsyncRead + Unpin>(
    stream: &mut R,
    max: u32,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Up>> {
    let mut head = [0; 4];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes(head);
    if length > max.min(FRAME_MAX_BYTES) {
        return Err(invalid(format!("frame of {length} octets, at most {max} are taken")));
    }
    buffer.clear();
    // Memory follows what really arrives, not what the length promises.
    stream.take(u64::from(length)).read_to_end(buffer).await?;
    if u32::try_from(buffer.len()) != Ok(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(buffer).map(Some).map_err(|error| invalid(format!("frame: {error}")))
}

/// Writes one frame.
pub(super) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Down) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(|error| invalid(error.to_string()))?;
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    if length > FRAME_MAX_BYTES {
        return Err(invalid(format!("frame of {length} octets is too large to send")));
    }
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&bytes).await?;
    stream.flush().await
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
