//! Compression of large answers, for clients that ask for it.
//!
//! Small answers cost more to compress than to send, and streams must not wait for a block to fill, so both go out plain.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, header};

use super::body::{Chunks, StreamError};
use super::{Body, Response};

/// Below this length, in bytes, an answer is sent as it is. One that is made in chunks is longer.
const COMPRESS_BYTES_MIN: u64 = 128 * 1024;
/// How much is compressed at a time, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether an `Accept-Encoding` header allows gzip.
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|part| {
        let mut words = part.split(';').map(str::trim);
        words.next() == Some("gzip") && words.all(|word| !matches!(word, "q=0" | "q=0.0"))
    })
}

/// Compresses a large answer; leaves others alone.
pub fn compress(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let chunks: Chunks = match body {
        _ if parts.headers.contains_key(header::CONTENT_ENCODING) => return Response::from_parts(parts, body),
        Body::Chunks(chunks) => chunks,
        Body::Slices(slices, length) if length >= COMPRESS_BYTES_MIN => Box::new(slices.into_iter().map(Ok)),
        body => return Response::from_parts(parts, body),
    };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(Vec::with_capacity(2 * PIECE_BYTES), Compression::fast());
    let compressing = Compressing { encoder: Some(encoder), chunks, rest: Bytes::new() };
    Response::from_parts(parts, Body::Chunks(Box::new(compressing)))
}

/// Compresses piece by piece, so that neither a long list holds up other requests nor its compressed form is held whole.
struct Compressing {
    /// None at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
    chunks: Chunks,
    /// What is left of a chunk.
    rest: Bytes,
}

impl Iterator for Compressing {
    type Item = Result<Bytes, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut encoder = self.encoder.take()?;
        let mut taken = 0;
        while taken < PIECE_BYTES {
            if self.rest.is_empty() {
                self.rest = match self.chunks.next() {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Some(Err(error)),
                    None => return Some(encoder.finish().map(Bytes::from).map_err(StreamError::from)),
                };
            }
            let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES - taken));
            taken += piece.len();
            if let Err(error) = encoder.write_all(&piece) {
                return Some(Err(error.into()));
            }
        }
        let made = std::mem::take(encoder.get_mut());
        self.encoder = Some(encoder);
        Some(Ok(made.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn compresses_large_answers_only_and_loses_nothing() {
        use http_body_util::BodyExt;
        use std::io::Read;
        let slices: Vec<Bytes> =
            (0..3000u32).map(|n| Bytes::from(format!("{n:0>100}"))).chain([vec![b'x'; 200_000].into()]).collect();
        let whole = slices.concat();
        let large = compress(super::super::answer(http::StatusCode::OK, "text/plain", slices));
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        let sent = large.into_body().collect().await.unwrap().to_bytes();
        assert!(sent.len() < whole.len() / 5, "{}", sent.len());
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut back).unwrap();
        assert!(back == whole, "the content changed");
        let chunks = Body::Chunks(Box::new([Ok(Bytes::from_static(b"a")), Err("broken".into())].into_iter()));
        let broken = compress(super::super::answer(http::StatusCode::OK, "text/plain", chunks));
        assert_eq!(broken.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(broken.into_body().collect().await.is_err(), "a body that broke off must not look whole");
        let small = compress(super::super::json("{}"));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn reads_accept_encoding() {
        assert!(accepts_gzip("gzip") && accepts_gzip("br, gzip;q=0.5"));
        assert!(!accepts_gzip("") && !accepts_gzip("identity") && !accepts_gzip("gzip;q=0"));
    }
}
