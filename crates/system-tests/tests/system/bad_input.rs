//! Every route with every kind of bad input: a 4xx problem that names the field.
//!
//! Routes and fields come from the OpenAPI document, so a new one is tested without a word here; a
//! route whose valid body is not known here fails the test.

use http::Method;
use linnet_system_tests::{Answer, Client, Stack, client::Request};
use serde_json::{Value, json};

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    parameters: Vec<Value>,
    body: Option<Value>,
}

/// The document, and what its placeholders stand for.
struct Api {
    client: Client,
    document: Value,
    /// `/api/v1/urls` and the like, and an id that exists there.
    ids: Vec<(&'static str, String)>,
}

impl Api {
    async fn of(stack: &Stack) -> Self {
        let client = stack.client();
        let document = client.get("/openapi.json").send().await.json();
        let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
        let user = json!({"username": "bad-input", "email": "bad-input@example.test"});
        let user = client.post("/api/v1/users", &user).send().await.json();
        let event = json!({"url_id": link["id"], "event_type": "x"});
        let event = client.post("/api/v1/events", &event).send().await.json();
        let key = json!({"name": "bad-input", "scopes": ["urls:read"]});
        let key = client.post("/api/v1/api-keys", &key).send().await.json();
        let job = client.post("/api/v1/urls/bulk", &json!([])).send().await.json();
        let ids = vec![
            ("/api/v1/jobs/", job["job"]["id"].to_string()),
            ("/api/v1/urls/", link["id"].to_string()),
            ("/api/v1/users/", user["id"].to_string()),
            ("/api/v1/events/", event["id"].to_string()),
            ("/api/v1/api-keys/", key["id"].as_str().unwrap().to_owned()),
        ];
        Self { client, document, ids }
    }

    fn operations(&self) -> Vec<Operation> {
        let mut found = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
                let body = &operation["requestBody"]["content"]["application/json"]["schema"];
                found.push(Operation {
                    method,
                    path: path.clone(),
                    parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                    // Files of rows have tests of their own.
                    body: (!body.is_null())
                        .then(|| self.resolved(body))
                        .filter(|body| body["type"] != "array"),
                });
            }
        }
        assert!(found.len() >= 20, "the document has {} operations", found.len());
        found
    }

    /// The operation's path with an id that exists.
    fn path(&self, operation: &Operation) -> String {
        if !operation.path.contains('{') {
            return operation.path.clone();
        }
        let known = self.ids.iter().find(|(prefix, _)| operation.path.starts_with(prefix));
        let (_, id) = known.unwrap_or_else(|| panic!("{} is new: no id for it", operation.path));
        operation.path.replace("{id}", id)
    }

    /// A body that would be accepted.
    fn valid_body(&self, operation: &Operation) -> Value {
        match (operation.method.as_str(), operation.path.as_str()) {
            ("POST", "/api/v1/urls") => json!({"original_url": "https://example.com/"}),
            ("POST", "/api/v1/users") => json!({"username": "x", "email": "x@example.test"}),
            ("POST", "/api/v1/events") => {
                let id: i64 = self.ids[1].1.parse().unwrap();
                json!({"url_id": id, "event_type": "x"})
            }
            ("POST", "/api/v1/api-keys") => json!({"name": "x", "scopes": ["urls:read"]}),
            ("PATCH", "/api/v1/urls/bulk") => json!({"ids": [i64::MAX], "change": {}}),
            ("DELETE", "/api/v1/urls/bulk") => json!({"ids": [i64::MAX]}),
            ("PUT" | "PATCH", "/api/v1/api-keys/{id}") => json!({"name": "x"}),
            ("PUT" | "PATCH", "/api/v1/urls/{id}" | "/api/v1/users/{id}") => json!({}),
            (method, path) => panic!("{method} {path} is new: no valid body for it"),
        }
    }

    /// A schema without its `$ref`, and with `oneOf` of one schema and null made flat.
    fn resolved(&self, schema: &Value) -> Value {
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

    fn request(&self, operation: &Operation) -> Request {
        self.client.request(operation.method.clone(), &self.path(operation))
    }
}

/// A 4xx problem with a stable code that names one of these fields, or what is in it.
fn refused(answer: &Answer, fields: &[&str], what: &str) {
    let shown: String = answer.text().chars().take(400).collect();
    assert!((400..500).contains(&answer.status), "{what}: {} {shown}", answer.status);
    answer.problem(answer.status);
    let named = answer.problem_fields();
    let is_in = |name: &str, field: &str| {
        name.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    assert!(fields.iter().any(|field| named.iter().any(|n| is_in(n, field))), "{what}: {shown}");
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    let with_body = api.operations().into_iter().filter(|operation| operation.body.is_some());
    for operation in with_body {
        let valid = api.valid_body(&operation).to_string();
        let truncated = format!("{{\"a\": {}", &valid[..valid.len() - 1]);
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * 1024 * 1024 - 64));
        let not_text = b"{\"a\":\"\xff\xfe\"}".to_vec();
        let bodies: Vec<(&str, &str, Vec<u8>)> = vec![
            ("no body", "application/json", Vec::new()),
            ("array", "application/json", b"[]".to_vec()),
            ("array of the body", "application/json", format!("[{valid}]").into_bytes()),
            ("string", "application/json", b"\"x\"".to_vec()),
            ("number", "application/json", b"1".to_vec()),
            ("null", "application/json", b"null".to_vec()),
            ("truncated", "application/json", truncated.into_bytes()),
            ("two objects", "application/json", format!("{valid}{valid}").into_bytes()),
            ("deep", "application/json", deep.into_bytes()),
            ("no UTF-8", "application/json", not_text),
            ("NUL bytes", "application/json", vec![0; 64]),
            ("2 MiB", "application/json", large.into_bytes()),
            ("text", "text/plain", valid.clone().into_bytes()),
            (
                "form",
                "application/x-www-form-urlencoded",
                b"original_url=https://example.com/".to_vec(),
            ),
            ("odd type", ";;;", valid.clone().into_bytes()),
            ("no type", "", valid.clone().into_bytes()),
            ("neither", "", Vec::new()),
        ];
        for (name, content_type, body) in bodies {
            let what = format!("{} {} {name}", operation.method, operation.path);
            let mut request = api.request(&operation).body(content_type, body);
            if name == "2 MiB" {
                // Refused before it is read: nginx closes the connection after the answer.
                request = request.header("connection", "close");
            }
            let answer = request.try_send().await;
            let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
            refused(&answer, &["body", "Content-Type"], &what);
        }
    }
}

#[tokio::test]
async fn unknown_repeated_and_missing_fields_are_named() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    for operation in api.operations() {
        let Some(schema) = &operation.body else { continue };
        let what = format!("{} {}", operation.method, operation.path);
        for unknown in ["no_such", "Original_Url", "id ", "", "a\u{0}b", "created_at"] {
            let mut body = api.valid_body(&operation);
            body[unknown] = json!(1);
            let answer = api.request(&operation).json(&body).send().await;
            refused(&answer, &[unknown], &format!("{what} with {unknown:?}"));
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for field in required.iter().filter_map(Value::as_str) {
            let mut body = api.valid_body(&operation);
            body.as_object_mut().unwrap().remove(field);
            let answer = api.request(&operation).json(&body).send().await;
            refused(&answer, &[field], &format!("{what} without {field}"));
        }
    }
}

/// Whether a value obeys a schema, as far as the values below go. Blank strings and NUL never do.
fn obeys(schema: &Value, value: &Value) -> bool {
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.iter().any(|allowed| allowed == kind) {
        return false;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return value.is_null() || allowed.contains(value);
    }
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            let bounded = length >= schema["minLength"].as_u64().unwrap_or(0)
                && length <= schema["maxLength"].as_u64().unwrap_or(u64::MAX);
            bounded && !text.trim().is_empty() && !text.contains('\0') && schema["format"].is_null()
        }
        Value::Number(number) => {
            let minimum = schema["minimum"].as_i64().unwrap_or(i64::MIN);
            number.as_i64().is_some_and(|number| number >= minimum)
        }
        Value::Array(items) => {
            !items.is_empty() && items.iter().all(|item| obeys(&schema["items"], item))
        }
        other => !other.to_string().contains("\\u0000"),
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_or_size_are_named() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    let long = "x".repeat(10_000);
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\u{3000}"),
        json!("1"),
        json!("true"),
        json!("x"),
        json!("a\u{0}b"),
        json!("\u{0}"),
        json!(long),
        json!([]),
        json!([7]),
        json!([["x"]]),
        json!(["x", "x\u{0}"]),
        json!({}),
        json!({"a": "\u{0}"}),
        json!({"a\u{0}": [1]}),
        json!({"a": [{"b": "\u{0}"}]}),
    ];
    let mut tried = 0;
    for operation in api.operations() {
        let Some(schema) = &operation.body else { continue };
        for (field, schema) in schema["properties"].as_object().unwrap() {
            let schema = api.resolved(schema);
            for value in values.iter().filter(|value| !obeys(&schema, value)) {
                let mut body = api.valid_body(&operation);
                body[field] = value.clone();
                let shown: String = value.to_string().chars().take(40).collect();
                let what = format!("{} {} {field} = {shown}", operation.method, operation.path);
                let answer = api.request(&operation).json(&body).send().await;
                refused(&answer, &[field], &what);
                assert_eq!(answer.status, 422, "{what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried} bodies were tried");
}

#[tokio::test]
async fn ids_that_are_none_are_named() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    let long = "1".repeat(1_000);
    let ids = [
        "x",
        "-1",
        "0",
        "1.5",
        "+1",
        "01",
        "1e3",
        "0x1",
        "99999999999999999999",
        "-99999999999999999999",
        "%00",
        "1%00",
        "%ff",
        "%20",
        "1%20",
        "%2e%2e",
        "null",
        "true",
        "[]",
        "{id}",
        "%E2%82%AC",
        "%D9%A1",
        "zzzzzzz!",
        "zzzzzzz",
        "zzzzzzzzz",
        long.as_str(),
    ];
    for operation in api.operations().into_iter().filter(|operation| operation.path.contains('{')) {
        for id in ids {
            let path = operation.path.replace("{id}", id);
            let what = format!("{} {path}", operation.method);
            let mut request =
                format!("{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", operation.method);
            request +=
                &format!("X-Api-Key: {}\r\nX-Request-Id: bad-input-0001\r\n", stack.admin_key);
            if operation.body.is_some() {
                let body = api.valid_body(&operation).to_string();
                request += "Content-Type: application/json\r\n";
                request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
            } else {
                request += "\r\n";
            }
            let address = stack.client().address();
            let answer = linnet_system_tests::raw::exchange(address, request.as_bytes()).await;
            let status = answer.status.unwrap_or_else(|| panic!("{what}: no answer"));
            assert!((400..500).contains(&status), "{what}: {}", answer.text);
            // nginx refuses a NUL and `..` in a path before anybody reads an id, and before it knows
            // that the path is the API's.
            let by_nginx = status == 400 && !answer.text.contains("urn:linnet:problem");
            let is_problem = answer.text.contains("application/problem+json");
            assert!(by_nginx || is_problem, "{what}: {}", answer.text);
            assert!(
                by_nginx || answer.text.contains("\"field\":\"id\""),
                "{what}: {}",
                answer.text
            );
        }
        let huge = operation.path.replace("{id}", &i64::MAX.to_string());
        if !operation.path.contains("api-keys") {
            let body = operation.body.is_some().then(|| api.valid_body(&operation));
            let mut request = api.client.request(operation.method.clone(), &huge);
            if let Some(body) = body {
                request = request.json(&body);
            }
            request.send().await.problem(404);
        }
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    let long = "x".repeat(5_000);
    let values = [
        "",
        "-1",
        "0",
        "1.5",
        "x",
        "%20",
        "%00",
        "a%00b",
        "99999999999999999999",
        "1e3",
        "true",
        "[]",
        "====",
        "YWZ0ZXI6",
        "YWZ0ZXI6LTE",
        "YWZ0ZXI6OTk5OTk5OTk5OTk5OTk5OTk5OTk",
        "%F0%9F%92%A9",
        long.as_str(),
    ];
    let mut tried = 0;
    for operation in api.operations() {
        let in_query = |parameter: &&Value| parameter["in"] == "query";
        for parameter in operation.parameters.iter().filter(in_query) {
            let name = parameter["name"].as_str().unwrap();
            let schema = api.resolved(&parameter["schema"]);
            for value in values {
                let fits = match schema["type"].as_str().unwrap() {
                    "integer" => {
                        let minimum = schema["minimum"].as_i64().unwrap();
                        value.parse::<i64>().is_ok_and(|n| n >= minimum)
                    }
                    "boolean" => ["true", "1", "0"].contains(&value),
                    // A search takes any text, an event's type any word; a cursor none of these.
                    _ => match name {
                        "search" => {
                            let text = url::form_urlencoded::parse(format!("v={value}").as_bytes())
                                .next()
                                .map_or_else(String::new, |(_, text)| text.into_owned());
                            (3..=200).contains(&text.chars().count())
                                && !text.chars().any(char::is_control)
                        }
                        "event_type" => {
                            value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
                                && (1..=64).contains(&value.len())
                        }
                        _ => false,
                    },
                };
                if fits {
                    continue;
                }
                let path = format!("{}?{name}={value}", api.path(&operation));
                let answer = api.client.request(operation.method.clone(), &path).send().await;
                let shown: String = path.chars().take(80).collect();
                refused(&answer, &[name], &shown);
                tried += 1;
            }
            let twice = format!("{}?{name}=1&{name}=1", api.path(&operation));
            let answer = api.client.request(operation.method.clone(), &twice).send().await;
            refused(&answer, &[name], &twice);
        }
        if operation.method == Method::GET && !operation.path.contains('{') {
            let path = format!("{}?no_such=1", operation.path);
            refused(&api.client.get(&path).send().await, &["no_such"], &path);
            let path = format!("{}?%ff=1", operation.path);
            refused(&api.client.get(&path).send().await, &["query"], &path);
        }
    }
    assert!(tried > 200, "{tried} parameters were tried");
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_are_problems_too() {
    let stack = Stack::start().await;
    let api = Api::of(&stack).await;
    let operations = api.operations();
    let mut paths: Vec<_> = operations.iter().map(|operation| operation.path.clone()).collect();
    paths.dedup();
    for path in paths {
        let has = |method: &str| {
            operations.iter().any(|o| o.path == path && o.method == method)
                || (method == "HEAD"
                    && operations.iter().any(|o| o.path == path && o.method == "GET"))
        };
        let filled = api.path(operations.iter().find(|o| o.path == path).unwrap());
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "BREW"] {
            let request = api.client.request(method.parse().unwrap(), &filled).json(&json!({}));
            if has(method) {
                continue;
            }
            let answer = request.send().await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            let allow =
                answer.header("allow").unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            for known in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let listed = allow.split(", ").any(|name| name == known);
                assert_eq!(listed, has(known), "{path}: Allow: {allow}");
            }
            if method != "HEAD" {
                assert_eq!(answer.problem(405)["code"], "method_not_allowed");
            }
        }
        for other in
            [format!("{filled}/"), format!("{filled}/more"), filled.replace("/v1/", "/v2/")]
        {
            let answer = api.client.get(&other).send().await;
            // Below a collection there is a thing without an id, or with a bad one.
            let wanted = if other.starts_with(&format!("{path}/")) { answer.status } else { 404 };
            let status = answer.problem(wanted)["status"].clone();
            assert!(status == 404 || status == 422, "{other}: {status}");
        }
    }
}
