//! Reads event streams line by line.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::Client;

/// Longest wait for a line of an event stream.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An event stream of the API.
#[derive(Debug)]
pub struct EventStream {
    lines: BufReader<TcpStream>,
    /// The id of the last event that had one.
    pub id: String,
}

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The event's type.
    pub name: String,
    /// The event's id, if it has one.
    pub id: Option<String>,
    /// The event's JSON data.
    pub data: Value,
}

impl EventStream {
    /// Opens a stream that begins after the event `last`. An empty key sends none. Returns the status line if the status is
    /// not 200.
    pub async fn try_open(
        client: &Client,
        key: &str,
        path: &str,
        last: Option<&str>,
    ) -> Result<Self, String> {
        let error = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(client.address()).await.map_err(error)?;
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let key =
            if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
        // A response to HTTP/1.0 has no chunk sizes, which could split a line.
        let head = format!("GET {path} HTTP/1.0\r\nHost: x\r\n{key}{last}\r\n");
        stream.write_all(head.as_bytes()).await.map_err(error)?;
        let mut events = Self { lines: BufReader::new(stream), id: String::new() };
        let status = events.line().await.ok_or("no response")?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(status);
        }
        let mut is_stream = false;
        loop {
            let line = events.line().await.ok_or("no head")?.to_ascii_lowercase();
            is_stream |= line == "content-type: text/event-stream";
            if line.is_empty() {
                break;
            }
        }
        assert!(is_stream, "the response is not an event stream");
        Ok(events)
    }

    /// Opens a stream. Panics if the status is not 200.
    pub async fn open(client: &Client, key: &str, path: &str, last: Option<&str>) -> Self {
        Self::try_open(client, key, path, last).await.expect("an event stream")
    }

    /// The next line; `None` at the end of the stream or of the connection.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(TIMEOUT, self.lines.read_line(&mut line)).await;
        let read = read.expect("a line in time").unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None` at the end. Skips comments and other fields.
    pub async fn try_event(&mut self) -> Option<Event> {
        let mut name = String::new();
        let mut event_id = None;
        loop {
            let line = self.line().await?;
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.id);
                event_id = Some(id.to_owned());
            } else if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                // A connection may break in the middle of a line.
                let data = serde_json::from_str(data).ok()?;
                return Some(Event { name, id: event_id, data });
            }
        }
    }

    /// The next event. Panics at the end of the stream.
    pub async fn event(&mut self) -> Event {
        self.try_event().await.expect("another event")
    }
}
