//! A client of our own framing: headers through the shared dictionary, data both ways, pings.

use super::*;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn streams_carry_headers_and_data_both_ways() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let (mut streams, connection) = serve(server);
    let connection = tokio::spawn(connection);
    let mut compressor = Compressor::new().unwrap();
    let mut sent = frame::syn_stream(1, &[("streamtype", "stdin"), ("host", "x")], &mut compressor).unwrap();
    sent.extend(frame::syn_stream(3, &[("streamtype", "stdout")], &mut compressor).unwrap());
    sent.extend(frame::data_head(1, 5, false));
    sent.extend(b"hello");
    sent.extend(frame::data_head(1, 0, true));
    sent.extend(frame::ping(7));
    client.write_all(&sent).await.unwrap();
    let mut stdin = streams.recv().await.unwrap();
    let stdout = streams.recv().await.unwrap();
    assert_eq!((stdin.header("streamType"), stdout.header("streamtype")), ("stdin", "stdout"));
    assert_eq!(stdin.inbound.recv().await.unwrap(), "hello");
    assert_eq!(stdin.inbound.recv().await, None, "the client is done");
    assert!(stdout.outlet.send(Bytes::from_static(b"out")).await);
    drop((stdin, stdout));
    drop(streams);
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    connection.await.unwrap().unwrap();
    let find = |needle: &[u8]| got.windows(needle.len()).any(|window| window == needle);
    assert!(find(&frame::ping(7)), "pings are answered");
    let mut data = frame::data_head(3, 3, false).to_vec();
    data.extend(b"out");
    assert!(find(&data));
    assert!(find(&frame::data_head(3, 0, true)), "a dropped outlet closes its stream");
}

#[tokio::test]
async fn frames_that_are_too_long_or_no_spdy_end_the_connection() {
    for bytes in [&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..], &[0x80, 9, 0, 1, 0, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n"] {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (streams, connection) = serve(server);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        drop(streams);
        let outcome = connection.await;
        assert!(outcome.is_err(), "{bytes:?}");
    }
}
