//! Compression of large answers, for clients that ask for it.
//!
//! Small answers cost more to compress than to send, and streams must not wait for a block to fill, so both go out plain.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::{HeaderValue, header};

use super::body::StreamError;
use super::{Body, Response};

/// Below this length, in bytes, an answer is sent as it is.
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

/// Compresses a large answer of known length; leaves others alone.
pub fn compress(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Body::Slices(slices, length) = body else { return Response::from_parts(parts, body) };
    if length < COMPRESS_BYTES_MIN || parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Response::from_parts(parts, Body::Slices(slices, length));
    }
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(Vec::with_capacity(2 * PIECE_BYTES), Compression::fast());
    let start: Option<Compressing> = Some((encoder, slices));
    let chunks = futures::stream::unfold(start, |state| std::future::ready(state.and_then(next_chunk)));
    Response::from_parts(parts, Body::Stream(chunks.boxed()))
}

type Compressing = (GzEncoder<Vec<u8>>, VecDeque<Bytes>);

/// Compresses piece by piece, so that neither a long list holds up other requests nor its compressed form is held whole.
fn next_chunk((mut encoder, mut slices): Compressing) -> Option<(Result<Bytes, StreamError>, Option<Compressing>)> {
    let mut taken = 0;
    while taken < PIECE_BYTES {
        let Some(mut slice) = slices.pop_front() else {
            let last = encoder.finish().map(Bytes::from).map_err(StreamError::from);
            return Some((last, None));
        };
        let piece = slice.split_to(slice.len().min(PIECE_BYTES - taken));
        taken += piece.len();
        if !slice.is_empty() {
            slices.push_front(slice);
        }
        if let Err(error) = encoder.write_all(&piece) {
            return Some((Err(error.into()), None));
        }
    }
    let chunk = std::mem::take(encoder.get_mut());
    Some((Ok(chunk.into()), Some((encoder, slices))))
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
        let small = compress(super::super::json("{}"));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn reads_accept_encoding() {
        assert!(accepts_gzip("gzip") && accepts_gzip("br, gzip;q=0.5"));
        assert!(!accepts_gzip("") && !accepts_gzip("identity") && !accepts_gzip("gzip;q=0"));
    }
}
