//! Frames on a byte stream between processes of ours: a kind, a length, a payload. What kinds mean is for each protocol to say.
//!
//! ```text
//! kind: 1 byte │ length: 4 bytes, big-endian │ payload: that many bytes
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one frame of at most `bytes_max`; `None` where the stream ends between frames.
///
/// # Errors
/// The stream fails, ends within a frame, or announces a longer one, for which no memory is taken.
pub async fn read(from: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Option<(u8, Vec<u8>)>> {
    let kind = match from.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = from.read_u32().await? as usize;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

/// Writes one frame, in one piece where the stream takes it.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut whole = Vec::with_capacity(5 + payload.len());
    whole.push(kind);
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(payload);
    to.write_all(&whole).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_and_long_ones_not_at_all() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        write(&mut near, 7, b"hi").await.unwrap();
        write(&mut near, 8, b"").await.unwrap();
        write(&mut near, 9, b"too long").await.unwrap();
        assert_eq!(read(&mut far, 4).await.unwrap(), Some((7, b"hi".to_vec())));
        assert_eq!(read(&mut far, 4).await.unwrap(), Some((8, Vec::new())));
        assert_eq!(read(&mut far, 4).await.unwrap_err().to_string(), "a frame of 8 bytes");
    }

    #[tokio::test]
    async fn the_end_between_frames_is_an_end_and_within_one_an_error() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        write(&mut near, 7, b"hi").await.unwrap();
        near.write_all(&[7, 0, 0, 0, 9, 1]).await.unwrap();
        drop(near);
        assert!(read(&mut far, 100).await.unwrap().is_some());
        assert_eq!(read(&mut far, 100).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&mut far, 100).await.unwrap(), None);
    }
}
