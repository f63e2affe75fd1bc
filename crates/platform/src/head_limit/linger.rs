//! Closes a connection whose client may still be sending.
//!
//! The HTTP library closes a connection at once after a request that it cannot parse. If bytes of the request arrive later
//! or are unread, the kernel resets the connection: nginx loses the response, or cannot send the rest of the body, and
//! responds 502. So the sending side is closed first, and what arrives is discarded until the client closes too.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    runtime::Handle,
};

/// How long a client may continue to send.
const LINGER: Duration = Duration::from_secs(2);
/// Connections of the process that linger; further ones are closed at once. Each takes about 4 KiB.
const MAX_LINGERING: usize = 64;
/// Bytes that are discarded at once.
const PIECE_BYTES: usize = 1024;

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// A place among the connections that linger.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = LINGERING.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        // Dropping the place gives it back.
        (taken < MAX_LINGERING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LINGERING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes the connection in a task. Outside a runtime it is closed at once.
pub(super) fn close<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut io: T) {
    let (Ok(runtime), Some(place)) = (Handle::try_current(), Place::take()) else { return };
    runtime.spawn(async move {
        let discard = async {
            let _ = io.shutdown().await;
            let mut piece = [0; PIECE_BYTES];
            while let Ok(1..) = io.read(&mut piece).await {}
        };
        let _ = tokio::time::timeout(LINGER, discard).await;
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::{super::HeadLimited, *};

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

    /// A connection that the server closes after `request` and its response.
    async fn closed_after(request: &[u8]) -> UnixStream {
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut server = HeadLimited::new(server);
        client.write_all(request).await.unwrap();
        let mut read = vec![0; request.len()];
        server.read_exact(&mut read).await.unwrap();
        server.write_all(RESPONSE).await.unwrap();
        drop(server);
        client
    }

    #[tokio::test]
    async fn client_that_is_still_sending_gets_the_response() {
        let mut client = closed_after(HEAD).await;
        for _ in 0..100 {
            client.write_all(&[b'a'; 1_000]).await.unwrap();
        }
        let mut response = Vec::new();
        client.read_to_end(&mut response).await.unwrap();
        assert_eq!(response, RESPONSE);
    }

    #[tokio::test]
    async fn connection_without_a_request_in_progress_is_closed_at_once() {
        let mut client = closed_after(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let error = client.write_all(b"GET").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn number_of_places_is_bounded() {
        let places: Vec<_> = std::iter::from_fn(Place::take).collect();
        assert!((1..=MAX_LINGERING).contains(&places.len()), "{}", places.len());
        let mut client = closed_after(HEAD).await;
        assert!(client.write_all(&[b'a'; 1_000]).await.is_err(), "closed at once");
        drop(places);
        assert!(Place::take().is_some());
    }
}
