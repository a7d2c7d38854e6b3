//! Compression of large answers, for clients that ask for it.
//!
//! Small answers cost more to compress than to send, and streams must not wait for a block to fill, so both go out plain.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, header};

use super::{Body, Response};

/// Below this length, in bytes, an answer is sent as it is.
const COMPRESS_BYTES_MIN: u64 = 128 * 1024;

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
    let mut encoder = GzEncoder::new(Vec::with_capacity(length as usize / 8), Compression::fast());
    for slice in &slices {
        if encoder.write_all(slice).is_err() {
            return Response::from_parts(parts, Body::Slices(slices, length));
        }
    }
    let Ok(compressed) = encoder.finish() else { return Response::from_parts(parts, Body::Slices(slices, length)) };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Bytes::from(compressed).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_large_answers_only() {
        let large = compress(super::super::json(vec![b'x'; 300_000]));
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(large.body().known_length().unwrap() < 10_000);
        let small = compress(super::super::json("{}"));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn reads_accept_encoding() {
        assert!(accepts_gzip("gzip") && accepts_gzip("br, gzip;q=0.5"));
        assert!(!accepts_gzip("") && !accepts_gzip("identity") && !accepts_gzip("gzip;q=0"));
    }
}
