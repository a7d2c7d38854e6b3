//! SPDY/3.1 frames: bytes in, bytes out, header blocks through one compression state per direction.

use std::io;

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::dictionary::dictionary;

const VERSION: u16 = 3;
/// The longest frame taken.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// The longest header block taken, unpacked.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
const FIN: u8 = 1;

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// A frame as far as it matters here.
#[derive(Debug, PartialEq)]
pub enum Frame {
    SynStream {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    Data {
        stream: u32,
        bytes: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, window updates, replies: of no consequence here.
    Other,
}

/// Reads frames.
pub struct Reader<R> {
    io: R,
    decompress: Decompress,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R) -> Self {
        Reader { io, decompress: Decompress::new(true) }
    }

    /// The next frame; none when the client closed between frames.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 8];
        match self.io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (flags, length) = (head[4], usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]));
        if length > FRAME_BYTES_MAX {
            return Err(invalid("a frame is too long"));
        }
        let mut body = BytesMut::zeroed(length);
        self.io.read_exact(&mut body).await?;
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if word & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: word, bytes: body.freeze(), fin: flags & FIN != 0 }));
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(invalid("not SPDY/3"));
        }
        self.control(word as u16, flags, &body).map(Some)
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<Frame> {
        let word = |at: usize| -> io::Result<u32> {
            let bytes = body.get(at..at + 4).ok_or_else(|| invalid("a frame is too short"))?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        Ok(match kind {
            1 => {
                let block = body.get(10..).ok_or_else(|| invalid("a frame is too short"))?;
                let headers = read_headers(&self.inflate(block)?)?;
                Frame::SynStream { stream: word(0)? & 0x7fff_ffff, headers, fin: flags & FIN != 0 }
            }
            // Header blocks that do not matter still move the compression state.
            2 | 8 => {
                self.inflate(body.get(4..).ok_or_else(|| invalid("a frame is too short"))?)?;
                Frame::Other
            }
            3 => Frame::Reset { stream: word(0)? & 0x7fff_ffff },
            6 => Frame::Ping { id: word(0)? },
            7 => Frame::GoAway,
            _ => Frame::Other,
        })
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(4096);
        loop {
            if out.len() >= HEADERS_BYTES_MAX {
                return Err(invalid("a header block is too long"));
            }
            out.reserve(4096);
            let (read, written) = (self.decompress.total_in(), self.decompress.total_out());
            match self.decompress.decompress_vec(block, &mut out, FlushDecompress::Sync) {
                Ok(status) => {
                    block = &block[(self.decompress.total_in() - read) as usize..];
                    let moved = self.decompress.total_out() != written;
                    if status == Status::StreamEnd || (block.is_empty() && (!moved || out.len() < out.capacity())) {
                        return Ok(out);
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    block = &block[(self.decompress.total_in() - read) as usize..];
                    self.decompress.set_dictionary(dictionary()).map_err(io::Error::other)?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn read_headers(mut block: &[u8]) -> io::Result<Headers> {
    let number = |block: &mut &[u8]| -> io::Result<usize> {
        let (head, rest) = block.split_first_chunk::<4>().ok_or_else(|| invalid("a header block is too short"))?;
        *block = rest;
        Ok(u32::from_be_bytes(*head) as usize)
    };
    let mut headers = Headers::new();
    for _ in 0..number(&mut block)? {
        let text = |block: &mut &[u8]| -> io::Result<String> {
            let length = number(block)?;
            let (head, rest) = block.split_at_checked(length).ok_or_else(|| invalid("a header block is too short"))?;
            *block = rest;
            Ok(String::from_utf8_lossy(head).into_owned())
        };
        headers.push((text(&mut block)?, text(&mut block)?));
    }
    Ok(headers)
}

/// The compression state of what this side sends.
pub struct Compressor(Compress);

impl Compressor {
    pub fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(dictionary()).map_err(io::Error::other)?;
        Ok(Compressor(compress))
    }

    fn deflate(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(rest, &mut packed, FlushCompress::Sync).map_err(io::Error::other)?;
            rest = &rest[(self.0.total_in() - before) as usize..];
            if rest.is_empty() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(256);
        }
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind)).to_be_bytes().to_vec();
    frame.extend((u32::from(flags) << 24 | body.len() as u32).to_be_bytes());
    frame.extend(body);
    frame
}

/// The answer to a stream that the client opened.
pub fn syn_reply(stream: u32, compressor: &mut Compressor) -> io::Result<Vec<u8>> {
    let mut body = stream.to_be_bytes().to_vec();
    body.extend(compressor.deflate(&[])?);
    Ok(control(2, 0, &body))
}

pub fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

/// What stands before `length` bytes of data.
pub fn data_head(stream: u32, length: usize, fin: bool) -> [u8; 8] {
    let flags = if fin { FIN } else { 0 };
    let second = (u32::from(flags) << 24 | length as u32).to_be_bytes();
    let first = stream.to_be_bytes();
    [first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]]
}

/// A stream as a client opens it; names of headers have to be in small letters.
pub fn syn_stream(stream: u32, headers: &[(&str, &str)], compressor: &mut Compressor) -> io::Result<Vec<u8>> {
    let mut body = stream.to_be_bytes().to_vec();
    // It belongs to no other stream and has no priority.
    body.extend([0; 6]);
    body.extend(compressor.deflate(headers)?);
    Ok(control(1, 0, &body))
}
