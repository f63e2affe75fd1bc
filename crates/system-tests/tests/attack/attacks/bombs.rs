//! Uploads that expand to a multiple of their size.

use std::{io::Write as _, sync::Arc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use linnet_system_tests::client::Method;

use crate::arena::{Arena, Tally, for_each};

const MIB: usize = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Compresses `begin`, about `bytes` bytes of the repeated `part`, and `end` with gzip.
fn packed(begin: &str, part: &str, bytes: usize, end: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let block = part.repeat(64 * 1024 / part.len());
    encoder.write_all(begin.as_bytes()).expect("memory");
    for _ in 0..bytes / block.len() {
        encoder.write_all(block.as_bytes()).expect("memory");
    }
    encoder.write_all(end.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// A gzip file within a gzip file.
fn packed_twice(bytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&packed("original_url\n", "\0", bytes, "")).expect("memory");
    encoder.finish().expect("memory")
}

fn multipart(parts: usize, header: usize) -> Vec<u8> {
    let part = format!(
        "--b\r\nContent-Disposition: form-data; name=\"n\"\r\nX-Filler: {}\r\n\r\nv\r\n",
        "h".repeat(header)
    );
    format!("{}--b--\r\n", part.repeat(parts)).into_bytes()
}

/// A file: its content type, whether it is compressed, and its bytes.
type File = (&'static str, bool, Vec<u8>);

fn files(size: usize) -> Vec<File> {
    let csv = "text/csv";
    let (json, ndjson) = ("application/json", "application/x-ndjson");
    let form = "multipart/form-data; boundary=b";
    vec![
        (csv, true, packed("original_url\n", "\n", size, "")),
        (csv, true, packed("original_url\n", "\0", size, "")),
        (csv, true, packed("original_url\n\"", "x", size, "\"\n")),
        (csv, true, packed("original_url\n", "https://example.com/1\n", size, "")),
        (csv, true, packed("original_url", ",c", size, "\n")),
        (csv, true, packed("original_url\nhttps://example.com/", ",", size, "\n")),
        (csv, true, packed_twice(size)),
        (json, true, packed("", "[", size, "")),
        (json, true, packed("[", r#"{"":0},"#, size, "{}]")),
        (json, true, packed("[{\"original_url\":\"", "x", size, "\"}]")),
        (ndjson, true, packed("", "{\"\":0}\n", size, "")),
        (ndjson, true, packed("", "{\"a\":", size, "")),
        (ndjson, true, packed("", " ", size, "")),
        (json, false, "[".repeat(4 * MIB).into_bytes()),
        (json, false, format!("[{{\"details\":{}", "[".repeat(2 * MIB)).into_bytes()),
        (form, false, multipart(50_000, 10)),
        (form, false, multipart(10, 500_000)),
        (form, false, vec![b'-'; 4 * MIB]),
    ]
}

/// Uploads each file to the import of links and to that of users, from several users at once.
pub(crate) async fn all(arena: &Arena) -> String {
    let tally = Tally::default();
    let size = arena.scale(256, 32) * MIB;
    let files = tokio::task::spawn_blocking(move || files(size)).await.expect("files");
    let files = Arc::new(files);
    let clients: Arc<Vec<_>> =
        Arc::new(arena.users.iter().map(|user| user.client.clone()).collect());
    for_each(files.len() * 2, 8, |number| {
        let (tally, files, clients) = (tally.clone(), files.clone(), clients.clone());
        async move {
            let (content_type, is_packed, body) = &files[number / 2];
            let path = ["/api/v1/urls/bulk", "/api/v1/users/bulk"][number % 2];
            let mut request = clients[number % clients.len()].request(Method::POST, path);
            request = request.body(content_type, body.clone()).timeout(TIMEOUT);
            if *is_packed {
                request = request.header("content-encoding", "gzip");
            }
            match request.try_send().await {
                Ok(response) => tally.add(response.status.to_string()),
                Err(_) => tally.add("closed"),
            }
        }
    })
    .await;
    tally.text()
}
