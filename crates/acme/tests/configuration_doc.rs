//! `docs/CONFIGURATION.md` lists exactly the keys that `linnet-acme` reads, with their defaults.

use linnet_acme::settings::Settings;
use linnet_platform::testing::assert_documented;

/// Sections of the document that only other processes read.
const OTHER_SECTIONS: [&str; 16] = [
    "auth",
    "cache",
    "clicks",
    "cors",
    "gateway",
    "jobs",
    "limits",
    "links",
    "postgres",
    "public",
    "redis",
    "resolve",
    "service",
    "shortener",
    "upstream",
    "worker",
];

#[test]
fn the_document_has_every_key_with_its_default() {
    assert_documented::<Settings>(&[], &OTHER_SECTIONS);
}
