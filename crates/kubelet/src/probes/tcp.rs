//! A TCP probe: the port takes a connection.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// Success is a connection within the time; the failure reads as Go words it.
pub async fn probe(host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    connect(host, port, timeout).await.map(drop)
}

/// Connects, with the error in the words of Go's dialer.
pub async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let shown = shown(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {shown}: {}", reason(&error))),
        Err(_) => Err(format!("dial tcp {shown}: i/o timeout")),
    }
}

pub fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_and_closed_ports() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(probe("127.0.0.1", port, Duration::from_secs(5)).await, Ok(()));
        drop(listener);
        let refused = probe("127.0.0.1", port, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
