//! Sends requests as bytes, including malformed ones that an HTTP client would reject.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The bytes of a response.
#[derive(Debug, Clone)]
pub struct RawResponse {
    /// The status; `None` if the connection closed without a response.
    pub status: Option<u16>,
    /// All bytes as text.
    pub text: String,
}

/// Sends bytes and reads until the server closes the connection or sends nothing for a second.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> RawResponse {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // A server may reject the request and close before it has read all bytes.
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
    RawResponse { status, text }
}

/// Sends `GET` with `Connection: close` and an unchecked request target.
pub async fn get(address: SocketAddr, target: &[u8], headers: &[&str]) -> RawResponse {
    send(address, "GET", target, headers).await
}

/// Sends the head of a request with this method, `Connection: close` and an unchecked request target.
pub async fn send(
    address: SocketAddr,
    method: &str,
    target: &[u8],
    headers: &[&str],
) -> RawResponse {
    let mut request = format!("{method} ").into_bytes();
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
