//! `docs/openapi.json` is the document of the API.

use std::{fs, path::Path};

use linnet_shortener::http::openapi;

/// Run with `LINNET_WRITE_SNAPSHOTS=1` after a change of the API, and review the difference.
#[test]
fn the_snapshot_equals_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let document = openapi::document().unwrap();
    if std::env::var_os("LINNET_WRITE_SNAPSHOTS").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let snapshot = fs::read_to_string(&path).unwrap();
    assert!(snapshot == document, "docs/openapi.json is stale: LINNET_WRITE_SNAPSHOTS=1");
}
