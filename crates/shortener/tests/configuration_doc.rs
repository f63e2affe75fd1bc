//! `docs/CONFIGURATION.md` lists exactly the keys that the shortener reads, with their defaults.
//!
//! The gateway's keys are compared by the gateway's test of the same name.

use linnet_platform::testing::assert_documented;
use linnet_shortener::config::Settings;

/// Sections of the document that only other processes read.
const OTHER_SECTIONS: [&str; 6] = ["acme", "auth", "cors", "gateway", "limits", "upstream"];

#[test]
fn the_document_has_every_key_with_its_default() {
    let settings = Settings::default();
    let secrets = [
        ("postgres.url", &settings.postgres.url),
        ("postgres.direct_url", &settings.postgres.direct_url),
        ("postgres.replica_url", &settings.postgres.replica_url),
        ("redis.url", &settings.redis.url),
        ("redis.sentinel_password", &settings.redis.sentinel_password),
        ("service.token", &settings.service.token),
    ];
    assert_documented::<Settings>(&secrets, &OTHER_SECTIONS);
}
