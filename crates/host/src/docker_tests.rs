//! Tests of what is read from Docker's output.

use super::*;

#[test]
fn description_has_what_a_verdict_needs() {
    let value: Value = serde_json::json!({
        "State": {"Running": true, "Restarting": false, "OOMKilled": true, "StartedAt": "2026-11-27T16:00:00Z"},
        "RestartCount": 2,
        "HostConfig": {"Memory": 50_331_648},
        "Image": "sha256:ab",
        "NetworkSettings": {"Networks": {"a": {"IPAddress": ""}, "b": {"IPAddress": "10.201.0.2"}}},
    });
    let found = describe("x", &value);
    assert!(found.is_running && found.is_out_of_memory);
    assert_eq!((found.restarts, found.memory_limit), (2, 50_331_648));
    assert_eq!(found.address.as_deref(), Some("10.201.0.2"));
    assert!(!describe("x", &Value::Null).is_running);
}

#[test]
fn mounts_are_read_with_their_service() {
    let text = "nginx /opt/linnet/releases/v1/nginx/slots.sh\n\npostgres /opt/a b\n\n";
    let wanted = [("nginx", "/opt/linnet/releases/v1/nginx/slots.sh"), ("postgres", "/opt/a b")]
        .map(|(service, source)| Mount { service: service.to_owned(), source: source.to_owned() });
    assert_eq!(mounts_of(text), wanted);
}

#[test]
fn running_containers_are_read_with_their_service() {
    let found = running_of("nginx ab\nshortener-blue cd\n\n");
    assert_eq!(found.get("nginx").map(String::as_str), Some("ab"));
    assert_eq!((found.len(), found.get("shortener-green")), (2, None));
}

#[test]
fn images_of_linnet_and_old_versions_of_others_are_removed_and_nothing_else() {
    let listed = "a ghcr.io/x/gateway\nb linnet-transfer/shortener\nc postgres\nd postgres\ne <none>\nf alpine\n";
    let kept = ["b".to_owned(), "d".to_owned()];
    let others = ["postgres:17.11-trixie@sha256:ab".to_owned()];
    assert_eq!(unneeded(listed, &kept, &others), ["a", "c"]);
}

#[test]
fn repository_is_the_reference_without_tag_and_digest() {
    for (image, repository) in [
        ("postgres:17@sha256:ab", "postgres"),
        ("localhost:5000/x/gateway", "localhost:5000/x/gateway"),
        ("localhost:5000/x/gateway:v1", "localhost:5000/x/gateway"),
    ] {
        assert_eq!(repository_of(image), repository);
    }
}
