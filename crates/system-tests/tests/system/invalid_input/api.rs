//! Reads operations from the OpenAPI document, and provides valid bodies and existing ids for them.

use http::Method;
use linnet_system_tests::{Client, Response, Stack, client::Request};
use serde_json::{Value, json};

/// An operation of the OpenAPI document.
pub(super) struct Operation {
    pub(super) method: Method,
    /// The path with its placeholders.
    pub(super) path: String,
    pub(super) parameters: Vec<Value>,
    /// The schema of the JSON object that the operation accepts, if any.
    pub(super) body: Option<Value>,
}

/// The OpenAPI document, a client, and an existing resource for each placeholder.
pub(super) struct Api {
    pub(super) client: Client,
    document: Value,
    /// The prefix of the paths of a collection, and the id of a resource in it.
    ids: Vec<(&'static str, String)>,
}

impl Api {
    /// Reads the document from the stack and creates the resources.
    pub(super) async fn load(stack: &Stack) -> Self {
        let client = stack.client();
        let document = client.get("/openapi.json").send().await.json();
        let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
        let user = json!({"username": "invalid-input", "email": "invalid-input@example.test"});
        let user = client.post("/api/v1/users", &user).send().await.json();
        let event = json!({"url_id": link["id"], "event_type": "x"});
        let event = client.post("/api/v1/events", &event).send().await.json();
        let key = json!({"name": "invalid-input", "scopes": ["urls:read"]});
        let key = client.post("/api/v1/api-keys", &key).send().await.json();
        let job = client.post("/api/v1/urls/bulk", &json!([])).send().await.json();
        let host = json!({"host": "banned.example"});
        let host = client.post("/api/v1/banned-hosts", &host).send().await.json();
        let code = json!({"short_code": "banned-code"});
        let code = client.post("/api/v1/banned-codes", &code).send().await.json();
        let ids = vec![
            ("/api/v1/jobs/", job["job"]["id"].to_string()),
            ("/api/v1/urls/", link["id"].to_string()),
            ("/api/v1/users/", user["id"].to_string()),
            ("/api/v1/events/", event["id"].to_string()),
            ("/api/v1/api-keys/", key["id"].as_str().unwrap().to_owned()),
            ("/api/v1/banned-hosts/", host["id"].to_string()),
            ("/api/v1/banned-codes/", code["id"].to_string()),
        ];
        Self { client, document, ids }
    }

    /// All operations of the document.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let mut found = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
                let body = &operation["requestBody"]["content"]["application/json"]["schema"];
                found.push(Operation {
                    method,
                    path: path.clone(),
                    parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                    // Uploads of rows are tested in `jobs`.
                    body: (!body.is_null())
                        .then(|| self.resolved(body))
                        .filter(|body| body["type"] != "array"),
                });
            }
        }
        assert!(found.len() >= 20, "the document has {} operations", found.len());
        found
    }

    /// The operation's path with the id of an existing resource.
    pub(super) fn path(&self, operation: &Operation) -> String {
        if !operation.path.contains('{') {
            return operation.path.clone();
        }
        let known = self.ids.iter().find(|(prefix, _)| operation.path.starts_with(prefix));
        let (_, id) =
            known.unwrap_or_else(|| panic!("add a resource for the new path {}", operation.path));
        operation.path.replace("{id}", id)
    }

    /// A body that the operation accepts.
    pub(super) fn valid_body(&self, operation: &Operation) -> Value {
        match (operation.method.as_str(), operation.path.as_str()) {
            ("POST", "/api/v1/urls") => json!({"original_url": "https://example.com/"}),
            ("POST", "/api/v1/users") => json!({"username": "x", "email": "x@example.test"}),
            ("POST", "/api/v1/events") => {
                let id: i64 = self.ids[1].1.parse().unwrap();
                json!({"url_id": id, "event_type": "x"})
            }
            ("POST", "/api/v1/stream-tokens") => {
                json!({"path": format!("/api/v1/urls/{}/live", self.ids[1].1)})
            }
            ("POST", "/api/v1/api-keys") => json!({"name": "x", "scopes": ["urls:read"]}),
            ("PUT", "/api/v1/urls/{id}/takedown") => json!({"reason": "x"}),
            ("POST", "/api/v1/banned-hosts") => json!({"host": "banned.example"}),
            ("POST", "/api/v1/banned-codes") => json!({"short_code": "banned-code"}),
            ("PATCH", "/api/v1/urls/bulk") => json!({"ids": [i64::MAX], "change": {}}),
            ("DELETE", "/api/v1/urls/bulk") => json!({"ids": [i64::MAX]}),
            ("PUT" | "PATCH", "/api/v1/api-keys/{id}") => json!({"name": "x"}),
            ("PUT" | "PATCH", "/api/v1/urls/{id}" | "/api/v1/users/{id}") => json!({}),
            (method, path) => panic!("add a valid body for the new operation {method} {path}"),
        }
    }

    /// A schema with `$ref` resolved, and with `oneOf` of a schema and null replaced by a nullable schema.
    pub(super) fn resolved(&self, schema: &Value) -> Value {
        if let Some(pointer) = schema["$ref"].as_str() {
            let found = self.document.pointer(pointer.trim_start_matches('#')).unwrap();
            return self.resolved(found);
        }
        let Some(options) = schema["oneOf"].as_array() else { return schema.clone() };
        let nullable = options.iter().any(|option| option["type"] == "null");
        let Some(other) = options.iter().find(|option| option["type"] != "null") else {
            return schema.clone();
        };
        let mut other = self.resolved(other);
        if nullable {
            let kind = other["type"].clone();
            other["type"] = match kind {
                Value::Array(mut kinds) => {
                    kinds.push(json!("null"));
                    Value::Array(kinds)
                }
                kind => json!([kind, "null"]),
            };
        }
        other
    }

    /// Starts a request to an existing resource.
    pub(super) fn request(&self, operation: &Operation) -> Request {
        self.client.request(operation.method.clone(), &self.path(operation))
    }
}

/// Asserts that a response is a 4xx problem that names one of these fields, or a field in one of them.
pub(super) fn assert_rejected(response: &Response, fields: &[&str], what: &str) {
    let shown: String = response.text().chars().take(400).collect();
    assert!((400..500).contains(&response.status), "{what}: {} {shown}", response.status);
    response.problem(response.status);
    let named = response.problem_fields();
    let is_in = |name: &str, field: &str| {
        name.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    assert!(fields.iter().any(|field| named.iter().any(|n| is_in(n, field))), "{what}: {shown}");
}
