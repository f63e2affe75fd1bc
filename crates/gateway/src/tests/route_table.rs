//! The route table and the OpenAPI document that the gateway serves contain the same operations.

use std::collections::BTreeSet;

use linnet_protocol::routes::{ROUTES, Route};
use serde_json::Value;

use crate::pages::OPENAPI;

/// Methods that an OpenAPI path item may have.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// The gateway derives `HEAD` from `GET`, and responds to `OPTIONS` for every route.
const IMPLIED_METHODS: [&str; 2] = ["HEAD", "OPTIONS"];

/// Paths outside `/api/v1`: the gateway's pages, which neither the table nor the document contains.
const PAGES: [&str; 5] = ["/", "/docs", "/docs/{file}", "/health", "/openapi.json"];

/// A method and a path.
type Operation = (String, String);

fn is_explicit(method: &str) -> bool {
    METHODS.contains(&method) && !IMPLIED_METHODS.contains(&method)
}

fn routed_operations() -> BTreeSet<Operation> {
    let operations = |route: &'static Route| {
        route.methods.iter().map(|(method, _)| (method.to_string(), route.path.to_owned()))
    };
    ROUTES.iter().flat_map(operations).filter(|(method, _)| is_explicit(method)).collect()
}

fn documented_operations() -> BTreeSet<Operation> {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        // Other keys, such as `parameters`, apply to the whole path.
        let keys = item.as_object().unwrap().keys().map(|key| key.to_uppercase());
        operations.extend(keys.filter(|key| is_explicit(key)).map(|method| (method, path.clone())));
    }
    operations
}

#[test]
fn route_table_and_openapi_document_have_the_same_operations() {
    let (routed, documented) = (routed_operations(), documented_operations());
    assert!(!routed.is_empty());
    let undocumented: Vec<_> = routed.difference(&documented).collect();
    let unrouted: Vec<_> = documented.difference(&routed).collect();
    assert!(undocumented.is_empty(), "only in protocol::routes::ROUTES: {undocumented:#?}");
    assert!(unrouted.is_empty(), "only in docs/openapi.json: {unrouted:#?}");
}

#[test]
fn only_pages_are_outside_the_api() {
    for (_, path) in routed_operations().iter().chain(&documented_operations()) {
        assert!(path.starts_with("/api/v1/") && !PAGES.contains(&path.as_str()), "{path}");
    }
}
