//! Bodies and their fields.

use linnet_system_tests::Stack;
use serde_json::{Value, json};

use super::api::{Api, assert_rejected};

#[tokio::test]
async fn bodies_other_than_json_objects_are_rejected() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
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
                // nginx rejects the body before it has read it and then closes the connection.
                request = request.header("connection", "close");
            }
            let response = request.try_send().await;
            let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_rejected(&response, &["body", "Content-Type"], &what);
        }
    }
}

#[tokio::test]
async fn unknown_and_missing_fields_are_named() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
    for operation in api.operations() {
        let Some(schema) = &operation.body else { continue };
        let what = format!("{} {}", operation.method, operation.path);
        for unknown in ["no_such", "Original_Url", "id ", "", "a\u{0}b", "created_at"] {
            let mut body = api.valid_body(&operation);
            body[unknown] = json!(1);
            let response = api.request(&operation).json(&body).send().await;
            assert_rejected(&response, &[unknown], &format!("{what} with {unknown:?}"));
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for field in required.iter().filter_map(Value::as_str) {
            let mut body = api.valid_body(&operation);
            body.as_object_mut().unwrap().remove(field);
            let response = api.request(&operation).json(&body).send().await;
            assert_rejected(&response, &[field], &format!("{what} without {field}"));
        }
    }
}

/// Whether a value of the test below is valid by a schema. Blank strings and NUL are always invalid.
fn is_valid(schema: &Value, value: &Value) -> bool {
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
            // A number is an address and a word is a name, and so both are hosts.
            let is_label = length <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric());
            let is_formatted =
                schema["format"].is_null() || (schema["format"] == "host" && is_label);
            bounded && !text.trim().is_empty() && !text.contains('\0') && is_formatted
        }
        Value::Number(number) => {
            let minimum = schema["minimum"].as_i64().unwrap_or(i64::MIN);
            number.as_i64().is_some_and(|number| number >= minimum)
        }
        Value::Array(items) => {
            !items.is_empty() && items.iter().all(|item| is_valid(&schema["items"], item))
        }
        other => !other.to_string().contains("\\u0000"),
    }
}

#[tokio::test]
async fn fields_of_the_wrong_type_or_size_are_named() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
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
            for value in values.iter().filter(|value| !is_valid(&schema, value)) {
                let mut body = api.valid_body(&operation);
                body[field] = value.clone();
                let shown: String = value.to_string().chars().take(40).collect();
                let what = format!("{} {} {field} = {shown}", operation.method, operation.path);
                let response = api.request(&operation).json(&body).send().await;
                assert_rejected(&response, &[field], &what);
                assert_eq!(response.status, 422, "{what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "only {tried} bodies were tried");
}

#[tokio::test]
async fn must_25_repeated_members_are_named_and_large_bodies_rejected_on_every_route() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
    for operation in api.operations() {
        let Some(schema) = &operation.body else { continue };
        let what = format!("{} {}", operation.method, operation.path);
        let valid = api.valid_body(&operation).to_string();
        for field in schema["properties"].as_object().unwrap().keys() {
            let rest = valid.trim_start_matches('{');
            let comma = if rest == "}" { "" } else { "," };
            let body = format!("{{\"{field}\":null,\"{field}\":null{comma}{rest}");
            let response = api.request(&operation).body("application/json", body).send().await;
            response.problem(422);
            let errors = response.json()["errors"].clone();
            let is_repeated =
                |error: &Value| error["field"] == *field && error["code"] == "repeated";
            assert!(errors.as_array().unwrap().iter().any(is_repeated), "{what} {field}: {errors}");
        }
        let limit = if operation.path.ends_with("/bulk") { 1024 * 1024 } else { 64 * 1024 };
        let hostile = format!("{{{}\"\":0}}", "\"\":0,".repeat(limit / 5));
        let response = api.request(&operation).body("application/json", hostile).try_send().await;
        let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
        response.problem(413);
        let unknown = format!("{{{}\"\":0}}", "\"\":0,".repeat(limit / 5 - 10));
        let response = api.request(&operation).body("application/json", unknown).send().await;
        response.problem(422);
        assert!(response.json()["errors"].as_array().unwrap().len() < 30, "{what}");
    }
}

#[tokio::test]
async fn must_25_events_with_the_largest_details_can_be_listed() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let event = |details: Value| {
        client.post(
            "/api/v1/events",
            &json!({"url_id": link["id"], "event_type": "x", "details": details}),
        )
    };
    let hostile = json!({ "a": vec![json!({"": 0}); 5_000] });
    let rejected = event(hostile).send().await;
    rejected.problem(422);
    assert_eq!(rejected.problem_fields(), ["details"]);
    let largest = json!({ "a": vec![json!({"": 0}); 1_600] });
    for _ in 0..100 {
        let made = event(largest.clone()).send().await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let mut path = "/api/v1/events?event_type=x&limit=200".to_owned();
    let (mut seen, mut pages) = (0, 0);
    loop {
        let page = client.get(&path).send().await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.body.len() < 2 * 1024 * 1024);
        seen += page.json().as_array().unwrap().len();
        pages += 1;
        let Some(link) = page.header("link") else { break };
        path = link.split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(seen, 100);
    assert!(pages > 1, "the details have more than 1 MiB");
    for (path, vary) in [("/api/v1/events", "accept"), ("/openapi.json", "accept-encoding")] {
        let response = client.get(path).send().await;
        assert_eq!(response.header("vary"), Some(vary), "{path}");
    }
}

/// PostgreSQL prints every digit of a number. Reading them back must neither change it nor overflow.
#[tokio::test]
async fn details_of_events_keep_the_largest_and_smallest_numbers() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let details = json!({"numbers": [f64::MAX, f64::MIN, f64::MIN_POSITIVE]});
    let event = json!({"url_id": link["id"], "event_type": "x", "details": details});
    let created = client.post("/api/v1/events", &event).send().await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.json()["details"], details);
}
