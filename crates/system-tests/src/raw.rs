//! Requests as bytes, for what no well-behaved client sends.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What came back.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// The status; `None` when the connection closed without an answer.
    pub status: Option<u16>,
    /// Everything.
    pub text: String,
}

/// Sends bytes, and reads until the other side closes or is silent for a second.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> RawAnswer {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // A server may refuse and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer)).await
    {
        bytes.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    RawAnswer { status, text }
}

/// `GET` with a request target as given, closing the connection.
pub async fn get(address: SocketAddr, target: &[u8], headers: &[&str]) -> RawAnswer {
    let mut request = b"GET ".to_vec();
    request.extend_from_slice(target);
    request.extend_from_slice(b" HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        request.extend_from_slice(b"Host: lnt.test\r\n");
    }
    for line in headers {
        request.extend_from_slice(line.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    exchange(address, &request).await
}
