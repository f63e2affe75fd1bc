//! Statistics and click events.
//!
//! These tests write the roll-ups themselves; `pipeline` tests the workers that normally do.

use linnet_system_tests::{Client, Response, Stack};
use serde_json::{Value, json};
use sqlx::PgConnection;

const SCOPES: &[&str] = &["urls:read", "urls:write"];

/// Writes roll-ups of two days, with hostile referrers.
async fn write_roll_ups(database: &mut PgConnection, link: i64, user: i64) {
    sqlx::query(
        "INSERT INTO click_days (subject, day, clicks, bots, visitors)
         SELECT subject, '2026-03-01'::date + n, 10 + n, 2, 5
           FROM unnest(ARRAY[$1, -$2, 0]) AS subject, generate_series(0, 1) AS n",
    )
    .bind(link)
    .bind(user)
    .execute(&mut *database)
    .await
    .unwrap();
    sqlx::query(
        "WITH made AS (INSERT INTO click_values (kind, parts)
                       VALUES (3, ARRAY['=HYPERLINK(\"//evil\")']), (3, ARRAY['<script>alert(1)</script>'])
                       RETURNING id)
         INSERT INTO click_days_by_value (subject, day, value_id, clicks)
         SELECT subject, '2026-03-01', id, 4 FROM unnest(ARRAY[$1, -$2, 0]) AS subject, made",
    )
    .bind(link)
    .bind(user)
    .execute(database)
    .await
    .unwrap();
}

/// The lines of a CSV response.
fn csv_lines(response: &Response) -> Vec<String> {
    let text = response.text();
    let lines = text.strip_suffix("\r\n").expect("a line break at the end");
    lines.split("\r\n").map(ToOwned::to_owned).collect()
}

/// Asserts the headers of a downloaded CSV file.
fn assert_csv_file(response: &Response, name: &str) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.header("content-type").unwrap().starts_with("text/csv; charset=utf-8"));
    let disposition = format!("attachment; filename=\"{name}\"");
    assert_eq!(response.header("content-disposition"), Some(disposition.as_str()));
    assert_eq!(response.headers.get_all("x-content-type-options").iter().count(), 1);
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn statistics_contain_totals_a_series_and_top_lists() {
    let stack = Stack::start().await;
    let (user, client) = stack.create_user("counts", SCOPES).await;
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let id = link["id"].as_i64().unwrap();
    write_roll_ups(&mut stack.database().await, id, user).await;
    let query = "from=2026-03-01&to=2026-03-04";
    let stats = client.get(&format!("/api/v1/urls/{id}/stats?{query}")).send().await;
    assert_eq!(stats.status, 200, "{}", stats.text());
    let stats = stats.json();
    let point = |start: &str, clicks: i64, visitors: i64, bots: i64| {
        json!({"start": start, "clicks": clicks, "unique_visitors": visitors, "bots": bots,
            "prefetches": 0, "heads": 0})
    };
    let script = "<script>alert(1)</script>";
    let referrers = json!([{"value": "direct", "clicks": 13},
        {"value": script, "clicks": 4}, {"value": "=HYPERLINK(\"//evil\")", "clicks": 4}]);
    assert_eq!(stats["url_id"], id);
    assert!(stats.get("user_id").is_none());
    assert_eq!(stats["from"], "2026-03-01T00:00:00Z");
    assert_eq!(stats["to"], "2026-03-04T00:00:00Z");
    assert_eq!((&stats["interval"], &stats["tz"]), (&json!("day"), &json!("UTC")));
    assert_eq!(stats["totals"]["clicks"], 21);
    assert_eq!(stats["totals"]["unique_visitors"], 10);
    let series = json!([
        point("2026-03-01T00:00:00Z", 10, 5, 2),
        point("2026-03-02T00:00:00Z", 11, 5, 2),
        point("2026-03-03T00:00:00Z", 0, 0, 0)
    ]);
    assert_eq!(stats["series"], series);
    let mut listed = stats["top"]["referrer"].as_array().unwrap().clone();
    listed.sort_by_key(|line| (-line["clicks"].as_i64().unwrap(), line["value"].to_string().len()));
    let mut wanted = referrers.as_array().unwrap().clone();
    wanted.sort_by_key(|line| (-line["clicks"].as_i64().unwrap(), line["value"].to_string().len()));
    assert_eq!(listed, wanted);
    assert_eq!(stats["top"]["browser"], json!([{"value": "unknown", "clicks": 21}]));
    assert_eq!(stats["top"]["utm_source"], json!([]));
    assert_eq!(stats["top"].as_object().unwrap().len(), 9);

    // The statistics of the owner's links, and of all links.
    let own = client.get(&format!("/api/v1/stats?{query}")).send().await.json();
    assert_eq!((&own["user_id"], &own["totals"]), (&json!(user), &stats["totals"]));
    let all = stack.client().get(&format!("/api/v1/stats?{query}")).send().await.json();
    assert_eq!((&all["user_id"], &all["totals"]), (&Value::Null, &stats["totals"]));
    let named = stack.client().get(&format!("/api/v1/stats?{query}&user_id={user}")).send().await;
    assert_eq!(named.json(), own);
    let head = client.head(&format!("/api/v1/stats?{query}")).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    // Without parameters, the defaults apply.
    assert_eq!(
        client.get("/api/v1/stats").send().await.json()["series"].as_array().unwrap().len(),
        30
    );
}

#[tokio::test]
async fn must_16_statistics_of_another_user_are_not_found() {
    let stack = Stack::start().await;
    let (owner_id, owner) = stack.create_user("owner", SCOPES).await;
    let (_, thief) = stack.create_user("thief", SCOPES).await;
    let (_, weak) = stack.create_user("weak", &["users:read"]).await;
    let link = owner.shorten(&json!({"original_url": "https://example.com/"})).await["id"].clone();
    let link = format!("/api/v1/urls/{link}/stats");
    let user = format!("/api/v1/stats?user_id={owner_id}");
    for (path, absent) in
        [(&link, "/api/v1/urls/987654321/stats"), (&user, "/api/v1/stats?user_id=987654321")]
    {
        assert_eq!(owner.get(path).send().await.status, 200);
        assert_eq!(stack.client().get(path).send().await.status, 200);
        stack.client().get(absent).send().await.problem(404);
        let (theirs, missing) = (thief.get(path).send().await, thief.get(absent).send().await);
        let (mut theirs, mut missing) = (theirs.problem(404), missing.problem(404));
        for problem in [&mut theirs, &mut missing] {
            problem.as_object_mut().unwrap().remove("request_id");
        }
        assert_eq!(theirs, missing, "{path}: differs from a missing resource");
        let csv = thief.get(path).header("accept", "text/csv").send().await;
        assert_eq!(csv.problem(404)["code"], "not_found", "errors are problems, not CSV");
        weak.get(path).send().await.problem(403);
        stack.client().anonymous().get(path).send().await.problem(401);
    }
}

// Long because it lists the invalid values.
#[tokio::test]
async fn invalid_parameters_are_named() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await["id"].clone();
    for path in ["/api/v1/stats".to_owned(), format!("/api/v1/urls/{link}/stats")] {
        for (query, field) in [
            ("from=yesterday", "from"),
            ("from=2026-02-30", "from"),
            ("from=1", "from"),
            ("from=2026-03-01T00:00:00", "from"),
            ("from=0001-01-01", "from"),
            ("to=99999-01-01", "to"),
            ("to=9999-12-31T23:59:59Z", "to"),
            ("from=2026-03-02&to=2026-03-02", "from"),
            ("from=2026-03-02&to=2026-03-01", "from"),
            ("from=2026-03-02T01:00:00%2B01:00&to=2026-03-02", "from"),
            ("from=2999-01-01", "from"),
            ("interval=month", "interval"),
            ("interval=Day", "interval"),
            ("interval=hour&from=2020-01-01&to=2021-01-01", "interval"),
            ("from=1970-01-01&to=9998-01-01&interval=week", "interval"),
            ("tz=Europe/Nowhere", "tz"),
            ("tz=Europe/Nowhere&interval=hour&from=2026-03-01T00:00:00Z", "tz"),
            ("tz=UTC%2B3", "tz"),
            ("tz=IST", "tz"),
            ("tz=PST", "tz"),
            ("tz=posixrules", "tz"),
            ("tz=Z", "tz"),
            ("tz=%2B03", "tz"),
            ("tz=%00", "tz"),
            ("tz=../../etc/passwd", "tz"),
            ("tz='", "tz"),
            ("top=-1", "top"),
            ("top=101", "top"),
            ("top=ten", "top"),
            ("dimension=color", "dimension"),
            ("format=xml", "format"),
            ("no_such=1", "no_such"),
            ("tz=UTC&tz=UTC", "tz"),
        ] {
            let response = client.get(&format!("{path}?{query}")).send().await;
            response.problem(422);
            assert_eq!(response.problem_fields(), [field], "{path}?{query}");
        }
        for good in [
            "tz=europe/berlin&from=2026-03-29&to=2026-03-30&interval=hour",
            "tz=Etc/GMT%2B5&interval=week",
            "from=9998-12-30&to=9998-12-31&tz=Pacific/Kiritimati",
            "from=1970-01-01T00:00:00Z&to=1970-01-01T00:00:00.000001Z&tz=America/Los_Angeles",
            "top=0",
            "top=100",
        ] {
            let response = client.get(&format!("{path}?{good}")).send().await;
            assert_eq!(response.status, 200, "{good}: {}", response.text());
        }
    }
    let response = client.get("/api/v1/stats?user_id=0").send().await;
    response.problem(422);
    assert_eq!(response.problem_fields(), ["user_id"]);
    let url_stats = format!("/api/v1/urls/{link}/stats?user_id=1");
    client.get(&url_stats).send().await.problem(422);
}

#[tokio::test]
async fn must_10_must_09_csv_contains_no_formula_and_is_downloaded() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let id = link["id"].as_i64().unwrap();
    write_roll_ups(&mut stack.database().await, id, stack.admin_id).await;
    let path = format!("/api/v1/urls/{id}/stats?from=2026-03-01&to=2026-03-03");

    let series = [
        "start,clicks,unique_visitors,bots,prefetches,heads",
        "2026-03-01T00:00:00Z,10,5,2,0,0",
        "2026-03-02T00:00:00Z,11,5,2,0,0",
    ];
    for response in [
        client.get(&format!("{path}&format=csv")).send().await,
        client.get(&path).header("accept", "text/csv").send().await,
    ] {
        assert_csv_file(&response, &format!("url-{id}-stats.csv"));
        assert_eq!(csv_lines(&response), series);
    }
    let json = client.get(&format!("{path}&format=json")).header("accept", "text/csv").send().await;
    assert_eq!(json.json()["totals"]["clicks"], 21, "`format` overrides `Accept`");
    let hours = format!("{path}&interval=hour&format=csv");
    assert_eq!(csv_lines(&client.get(&hours).send().await)[1], "2026-03-01T00:00:00Z,0,,0,0,0");

    let referrers = client.get(&format!("{path}&format=csv&dimension=referrer")).send().await;
    assert_csv_file(&referrers, &format!("url-{id}-referrer.csv"));
    let mut lines = csv_lines(&referrers);
    assert_eq!(lines[..2], ["value,clicks", "direct,13"]);
    lines[2..].sort_unstable();
    assert_eq!(lines[2..], ["\"'=HYPERLINK(\"\"//evil\"\")\",4", "<script>alert(1)</script>,4"]);
    for (path, name) in [
        ("/api/v1/stats?format=csv".to_owned(), "stats.csv".to_owned()),
        (
            format!("/api/v1/stats?format=csv&user_id={}&dimension=os", stack.admin_id),
            format!("user-{}-os.csv", stack.admin_id),
        ),
    ] {
        assert_csv_file(&client.get(&path).send().await, &name);
    }

    // The events have a formula as type, and quotes and line breaks in the details.
    let details = json!({"text": "a,\"b\"\r\n=1+1"});
    let event = json!({"url_id": id, "event_type": "-1", "details": details});
    let event = client.post("/api/v1/events", &event).send().await.json();
    let response = client.get("/api/v1/events?event_type=-1&limit=1&format=csv").send().await;
    assert_csv_file(&response, "events.csv");
    assert!(response.header("link").unwrap().contains("format=csv"));
    let (names, row) =
        response.text().split_once("\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(names, "id,url_id,user_id,event_type,timestamp,details");
    let quoted = details.to_string().replace('"', "\"\"");
    let time = event["timestamp"].as_str().unwrap();
    assert_eq!(row, format!("{},{id},{},'-1,{time},\"{quoted}\"\r\n", event["id"], stack.admin_id));
}

/// Inserts five clicks on 2020-03-01, of which two are a person's, and their roll-ups.
async fn insert_clicks(database: &mut PgConnection, link: i64, user: i64) {
    // No partition for the day exists yet.
    sqlx::raw_sql(
        "CREATE TABLE raw_clicks_20200301 PARTITION OF raw_clicks
         FOR VALUES FROM ('2020-03-01 00:00Z') TO ('2020-03-02 00:00Z');
         INSERT INTO click_values (kind, parts) VALUES (1, '{Firefox,Linux,\"\"}')",
    )
    .execute(&mut *database)
    .await
    .unwrap();
    sqlx::query(
        "WITH made AS (
           INSERT INTO raw_clicks (url_id, clicked_at, agent_and_kind)
           SELECT $1, '2020-03-01 10:00Z', 4 * (SELECT id FROM click_values LIMIT 1) + n % 2
             FROM generate_series(1, 5) AS n), hours AS (
           INSERT INTO click_hours (subject, hour, clicks, bots)
           SELECT subject, '2020-03-01 10:00Z', 2, 3 FROM unnest(ARRAY[-$2, 0]) AS subject)
         INSERT INTO click_link_days
         SELECT $1, '2020-03-01', 2, 3, 0, 0, 0, '{10,2,3,0,0}', '{}', '{}'",
    )
    .bind(link)
    .bind(user)
    .execute(database)
    .await
    .unwrap();
}

/// All events that the client can list, from pages of two.
async fn read_all_events(client: &Client) -> Vec<Value> {
    let mut path = Some("/api/v1/events?limit=2".to_owned());
    let mut seen: Vec<Value> = Vec::new();
    while let Some(here) = path {
        let response = client.get(&here).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
        seen.extend(response.json().as_array().unwrap().clone());
        path = response
            .header("link")
            .map(|link| link.trim_start_matches('<').split('>').next().unwrap().to_owned());
    }
    seen
}

#[tokio::test]
async fn clicks_are_listed_as_events_and_cannot_be_forged() {
    let stack = Stack::start().await;
    let (_, owner) = stack.create_user("owner", SCOPES).await;
    let (_, thief) = stack.create_user("thief", SCOPES).await;
    let link = owner.shorten(&json!({"original_url": "https://example.com/"})).await;
    let (id, user) = (link["id"].as_i64().unwrap(), link["user_id"].as_i64().unwrap());
    insert_clicks(&mut stack.database().await, id, user).await;

    for client in [&owner, &stack.client()] {
        let seen = read_all_events(client).await;
        let types: Vec<_> =
            seen.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
        assert_eq!(types, ["click", "click", "click", "click", "click", "created"]);
        assert!(seen[..5].is_sorted_by_key(|event| event["id"].as_i64()));
        assert_eq!((&seen[0]["url_id"], &seen[0]["user_id"]), (&json!(id), &Value::Null));
        let details = json!({"kind": "bot", "browser": "Firefox", "os": "Linux"});
        assert_eq!(seen[0]["details"], details);
        assert_eq!(seen[0]["timestamp"], "2020-03-01T10:00:00Z");
    }
    let count = async |client: &Client, query: &str| {
        let response = client.get(&format!("/api/v1/events?{query}")).send().await;
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        response.json().as_array().unwrap().len()
    };
    for (query, wanted) in [
        ("event_type=click", 5),
        ("event_type=created", 1),
        ("to=2020-03-01T10:00:00Z", 0),
        ("to=2020-03-01T10:00:01Z", 5),
        ("from=2020-03-01T10:00:00Z&to=2020-03-01T11:00:00Z", 5),
        ("from=2020-03-01T11:00:00Z", 1),
        ("per_page=4&page=2", 2),
    ] {
        assert_eq!(count(&owner, query).await, wanted, "{query}");
    }
    assert_eq!(count(&owner, &format!("user_id={user}")).await, 1);
    for query in ["event_type=click".to_owned(), format!("url_id={id}")] {
        assert_eq!(count(&thief, &query).await, 0, "{query}");
    }

    for forged in ["click", "created", "updated", "deleted", "taken_down", "restored"] {
        let forged = json!({"url_id": id, "event_type": forged});
        let rejected = owner.post("/api/v1/events", &forged).send().await;
        rejected.problem(422);
        assert_eq!(rejected.problem_fields(), ["event_type"]);
    }
    for (query, field) in [
        // This cursor is for lists in the order of ids.
        ("cursor=YWZ0ZXI6Mg", "cursor"),
        ("cursor=YXQ6OTk5OTk5OTk5OTk5OTk5OTk5OjE", "cursor"),
        ("from=2026-03-01", "from"),
        ("to=x", "to"),
        ("format=pdf", "format"),
    ] {
        let response = owner.get(&format!("/api/v1/events?{query}")).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), [field], "{query}");
    }
}

#[tokio::test]
async fn intervals_have_labels_of_the_time_zone_that_is_given() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let range = "from=2026-10-24&to=2026-10-26&tz=Europe/Berlin";
    for path in
        [format!("/api/v1/urls/{}/stats?{range}", link["id"]), format!("/api/v1/stats?{range}")]
    {
        let stats = client.get(&path).send().await.json();
        let series = stats["series"].as_array().unwrap();
        let labels: Vec<_> = series.iter().map(|bucket| &bucket["label"]).collect();
        assert_eq!(labels, ["2026-10-24", "2026-10-25"], "{stats}");
        assert_eq!(series[0]["start"], "2026-10-23T22:00:00Z");
        let csv = client.get(&format!("{path}&format=csv&bom=true")).send().await;
        assert_eq!(
            csv.text().lines().collect::<Vec<_>>(),
            [
                "\u{feff}start,clicks,unique_visitors,bots,prefetches,heads,label",
                "2026-10-23T22:00:00Z,0,0,0,0,0,2026-10-24",
                "2026-10-24T22:00:00Z,0,0,0,0,0,2026-10-25",
            ]
        );
        let week = client.get(&format!("{path}&interval=week")).send().await.json();
        assert_eq!(week["series"][0]["label"], "2026-10-19");
        let hours = client.get(&format!("{path}&interval=hour")).send().await.json();
        let hours = hours["series"].as_array().unwrap();
        assert_eq!(hours.len(), 49);
        assert_eq!(hours[26]["label"], "2026-10-25T02:00:00+02:00");
        assert_eq!(hours[27]["label"], "2026-10-25T02:00:00+01:00");
        let utc = client.get(&path.replace("&tz=Europe/Berlin", "")).send().await.json();
        assert!(utc["series"][0].get("label").is_none(), "{utc}");
    }
}
