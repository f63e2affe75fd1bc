//! `docs/CONFIGURATION.md` lists exactly the keys that the gateway reads, with their defaults.
//!
//! The shortener's keys are compared by the shortener's test of the same name.

use linnet_gateway::config::Settings;
use linnet_platform::testing::assert_documented;

/// Sections of the document that only other processes read.
const OTHER_SECTIONS: [&str; 9] =
    ["acme", "cache", "clicks", "jobs", "links", "postgres", "resolve", "shortener", "worker"];

#[test]
fn the_document_has_every_key_with_its_default() {
    let settings = Settings::default();
    let secrets = [
        ("redis.url", &settings.redis.url),
        ("redis.sentinel_password", &settings.redis.sentinel_password),
        ("service.token", &settings.service.token),
    ];
    assert_documented::<Settings>(&secrets, &OTHER_SECTIONS);
}
