//! Country lookups while the country file is replaced, damaged and deleted.

use std::{fs, path::Path};

use linnet_system_tests::{Stack, expected::log, within};
use serde_json::json;
use tokio::sync::Mutex;

use super::support::{DRAIN_TIMEOUT, builder, create_link, wait_until_drained};

/// A `MaxMind` database that maps every address to one country. The format is described at
/// <https://maxmind.github.io/MaxMind-DB/>.
fn mmdb(country: &str) -> Vec<u8> {
    const DATA_AFTER: u8 = 16;
    // One node, whose records both point to the first entry of the data section.
    let record = [0, 0, 1 + DATA_AFTER];
    let mut file = [record, record].concat();
    file.extend([0; DATA_AFTER as usize]);
    file.extend(map(&[("country", map(&[("iso_code", text(country))]))]));
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.extend(map(&[
        ("node_count", number(6, 1)),
        ("record_size", number(5, 24)),
        ("ip_version", number(5, 4)),
        ("database_type", text("Test-Country")),
        ("languages", vec![0, 11 - 7]),
        ("binary_format_major_version", number(5, 2)),
        ("binary_format_minor_version", number(5, 0)),
        // Extended type 9, an unsigned 64-bit number, here in one byte.
        ("build_epoch", vec![1, 9 - 7, 1]),
        ("description", map(&[])),
    ]));
    file
}

fn control(kind: u8, size: usize) -> u8 {
    assert!(size < 29);
    kind << 5 | u8::try_from(size).unwrap()
}

fn text(text: &str) -> Vec<u8> {
    [&[control(2, text.len())], text.as_bytes()].concat()
}

fn number(kind: u8, number: u8) -> Vec<u8> {
    vec![control(kind, 1), number]
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![control(7, pairs.len())];
    for (key, value) in pairs {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

/// Replaces a file atomically, by renaming.
fn replace_file(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// Visits a link until a click from this country is recorded.
async fn visit_until_recorded_from(stack: &Stack, code: &str, country: &str) {
    let database = Mutex::new(stack.database().await);
    within(DRAIN_TIMEOUT, &format!("clicks from {country}"), || async {
        assert_eq!(stack.client().resolve(code).await.0, 302);
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM click_values WHERE kind = 2 AND parts[1] = $1)",
        )
        .bind(country)
        .fetch_one(&mut *database.lock().await)
        .await
        .unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn country_file_is_reloaded_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("country.mmdb");
    replace_file(&file, &mmdb("CH"));
    let stack =
        builder().shorteners(1).env("LINNET__CLICKS__COUNTRY_FILE", file.display()).start().await;
    let (id, code) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    visit_until_recorded_from(&stack, &code, "CH").await;
    replace_file(&file, &mmdb("JP"));
    visit_until_recorded_from(&stack, &code, "JP").await;

    // A damaged file is ignored, and the last valid one stays in use.
    replace_file(&file, &mmdb("FR")[..40]);
    within(DRAIN_TIMEOUT, "a log line about the damaged file", || async {
        stack.shorteners[0].log().contains(log::COUNTRY_FILE_UNREADABLE)
    })
    .await;
    fs::remove_file(&file).unwrap();
    wait_until_drained(&stack).await;
    let japan = async || {
        let path = format!("/api/v1/urls/{id}/stats?top=10");
        let stats = stack.client().get(&path).send().await.json();
        let top = stats["top"]["country"].as_array().unwrap().clone();
        assert!(top.iter().all(|line| line["value"] != "FR"), "{top:?}");
        top.iter().find(|line| line["value"] == "JP").unwrap()["clicks"].as_i64().unwrap()
    };
    let before = japan().await;
    assert_eq!(stack.client().resolve(&code).await.0, 302);
    within(DRAIN_TIMEOUT, "one more click from Japan", || async { japan().await == before + 1 })
        .await;
    replace_file(&file, &mmdb("KE"));
    visit_until_recorded_from(&stack, &code, "KE").await;
}
