//! Tests PRIVACY.md: a marked address, user agent and e-mail address are stored in the named places only.

mod deleted_user;
mod redis;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use linnet_clicks::DEAD_LETTERS;
use linnet_system_tests::{Client, Postgres, Process, Stack, client::Method, eventually};
use serde_json::json;
use sqlx::Row as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use self::redis::{damage_a_marked_batch, delete, redis_keys, redis_places};

/// Documentation addresses (RFC 5737, RFC 3849). Their networks may be logged: 203.0.113.0 and 2001:db8:4b1d.
const ADDRESSES: [&str; 2] = ["203.0.113.77", "2001:db8:4b1d:77:a:b:c:d"];
/// The addresses, in forms in which a program could store them. No form is part of the network's.
const ADDRESS_FORMS: [&str; 6] =
    ["203.0.113.77", "cb00714d", "CB00714D", "2001:db8:4b1d:77", "20010db84b1d0077", "3405803853"];
/// The mark comes first: batches are compressed, and later text may be a reference to earlier one.
const AGENT: &str =
    "MarkedAgent Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const AGENT_MARK: &str = "MarkedAgent";
/// Data that must not be stored: path and query of the referring page, the query of a short link, cookies, trace state.
const UNSTORED: [&str; 5] =
    ["MarkedPath", "MarkedQuery", "MarkedLinkQuery", "MarkedCookie", "MarkedTraceState"];
const REFERRER: &str = "https://referrer.example/MarkedPath?x=MarkedQuery#MarkedPath";
const EMAIL: &str = "marked.person@privacy.test";
const EMAIL_MARK: &str = "marked.person";

/// A place where marked data was found: a file of the stack, or a table.
type Places = BTreeSet<String>;

/// Sends every kind of request from one address.
async fn send_marked_requests(stack: &Stack, address: &str) {
    let marked = |client: &Client, method: Method, path: &str| {
        let request = client.request(method, path).header("x-forwarded-for", address);
        let request = request.header("referer", REFERRER).header("cookie", "c=MarkedCookie");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request =
            request.header("traceparent", trace).header("tracestate", "x=MarkedTraceState");
        request.user_agent(AGENT)
    };
    let (admin, visitor) = (stack.client(), stack.client().anonymous());
    let invalid =
        stack.client().with_key("lnt_zzzzzzzz_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
    let get = |client: &Client, path: &str| marked(client, Method::GET, path).send();

    let link = json!({"original_url": "https://example.com/", "title": "t"}).to_string();
    for key in ["one", "two"] {
        let create = marked(&admin, Method::POST, "/api/v1/urls").header("idempotency-key", key);
        let created = create.body("application/json", link.clone()).send().await;
        assert!([200, 201].contains(&created.status), "{}", created.text());
        let anonymous =
            marked(&visitor, Method::POST, "/api/v1/urls").header("idempotency-key", key);
        let created = anonymous.body("application/json", link.clone()).send().await;
        assert!([200, 201, 401].contains(&created.status), "{}", created.text());
        let code = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
        let path = format!("/{}", code["short_code"].as_str().unwrap());
        for _ in 0..5 {
            let visited = format!("{path}?email=MarkedLinkQuery");
            assert_eq!(get(&visitor, &visited).await.status, 302);
        }
    }
    // Failures are logged in more detail than successes.
    for path in ["/unknown77", "/%ff", "/api/v1/nothing", "/api/v1/urls?limit=x", "/metrics"] {
        for client in [&admin, &visitor, &invalid] {
            assert!(get(client, path).await.status >= 400, "{path}");
        }
    }
    let malformed = marked(&admin, Method::POST, "/api/v1/urls").body("application/json", "{");
    assert!(malformed.send().await.status >= 400);
    let oversized = marked(&admin, Method::POST, "/api/v1/urls");
    assert_eq!(oversized.body("application/json", vec![b' '; 3 << 20]).send().await.status, 413);
}

/// Uses the e-mail address in every request that takes one, also where it violates a constraint.
async fn send_marked_email(stack: &Stack) {
    let admin = stack.client();
    let user = json!({"username": "m", "email": EMAIL});
    let upper = json!({"username": "m", "email": EMAIL.to_uppercase()});
    let create = |body: &serde_json::Value, key: &str| {
        admin.post("/api/v1/users", body).header("idempotency-key", key).send()
    };
    assert_eq!(create(&user, "first").await.status, 201);
    assert_eq!(create(&user, "second").await.status, 409);
    assert_eq!(admin.post("/api/v1/users", &upper).send().await.status, 409);
    let (other, _) = stack.create_user("other", &["urls:read"]).await;
    let path = format!("/api/v1/users/{other}");
    assert_eq!(admin.patch(&path, &json!({"email": EMAIL})).send().await.status, 409);
    for path in ["/api/v1/users/bulk", "/api/v1/users/bulk?on_conflict=update"] {
        let rows = format!("username,email\na,{EMAIL}\nb,other.{EMAIL}\nc,{EMAIL_MARK}\n");
        let response = admin.request(Method::POST, path).body("text/csv", rows).send().await;
        assert_eq!(response.status, 202, "{}", response.text());
        let job = format!("/api/v1/jobs/{}", response.json()["job"]["id"]);
        eventually(Duration::from_secs(20), "the import ends", || async {
            let job = admin.get(&job).send().await.json();
            (job["state"] == "succeeded").then_some(())
        })
        .await;
    }
    let command = ["admin", "create-key", "--username", "x", "--email", EMAIL];
    let (_, _, _) = stack.cli(&command).await;
}

/// Sends marked data that users store intentionally: details of events, and a job that is rejected.
async fn send_marked_events(client: &Client) {
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let event =
        json!({"url_id": link["id"], "event_type": "x", "details": {"mark": "MarkedDetails"}});
    assert_eq!(client.post("/api/v1/events", &event).send().await.status, 201);
    let path = format!("/api/v1/events?url_id={}", link["id"]);
    assert!(client.get(&path).send().await.text().contains("MarkedDetails"));
    let export = client.get("/api/v1/urls/export").send().await;
    assert_eq!(export.status, 200);
}

/// Receives traces. Returns the endpoint, and everything that arrives.
async fn start_collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let bytes = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    // A request has ended when the client waits.
                    let pause = Duration::from_millis(100);
                    match tokio::time::timeout(pause, stream.read(&mut buffer)).await {
                        Ok(Ok(count @ 1..)) => bytes.lock().unwrap().extend(&buffer[..count]),
                        Ok(_) => return,
                        Err(_) => {
                            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                            let _ = stream.write_all(response).await;
                            // The next request, or the end of the connection.
                            let _ = stream.readable().await;
                        }
                    }
                }
            });
        }
    });
    (endpoint, received)
}

/// All files below `folder`, through links to directories of Redis and nginx.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // PostgreSQL's data is compared as a dump. Everything else is searched.
        if path.ends_with("postgres") {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn contains(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Every place that contains one of the marks.
async fn places_of(stack: &Stack, marks: &[&str]) -> Places {
    let mut places = Places::new();
    let mut paths = vec![stack.folder().join("postgres.log")];
    files(stack.folder(), &mut paths);
    for path in paths {
        let Ok(bytes) = fs::read(&path) else { continue };
        if marks.iter().any(|mark| contains(&bytes, mark)) {
            let name =
                path.strip_prefix(stack.folder()).unwrap_or(&path).to_string_lossy().into_owned();
            places.insert(if name.contains("appendonly") {
                "append-only file".into()
            } else {
                name
            });
        }
    }
    let mut database = stack.database().await;
    let tables = "SELECT table_name::text FROM information_schema.tables
                   WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    for table in sqlx::query(tables).fetch_all(&mut database).await.unwrap() {
        let table: String = table.get(0);
        let rows = sqlx::AssertSqlSafe(format!("SELECT t::text FROM \"{table}\" AS t"));
        for row in sqlx::query(rows).fetch_all(&mut database).await.unwrap() {
            let row: String = row.get(0);
            if marks.iter().any(|mark| row.contains(mark)) {
                places.insert(format!("table {table}"));
            }
        }
    }
    places
}

async fn assert_traces_contain_no_mark(traces: &Mutex<Vec<u8>>) {
    eventually(Duration::from_secs(20), "traces arrive", || async {
        contains(&traces.lock().unwrap(), "/api/v1/urls").then_some(())
    })
    .await;
    let traces = traces.lock().unwrap();
    let others = [AGENT_MARK, EMAIL_MARK, "MarkedDetails"];
    // The state of the client's own trace continues in the spans.
    let unstored = UNSTORED.iter().filter(|mark| **mark != "MarkedTraceState");
    for mark in ADDRESS_FORMS.iter().chain(unstored).chain(&others) {
        assert!(!contains(&traces, mark), "traces contain {mark}");
    }
}

/// Lets this process and those that it starts dump core, as on many machines.
fn allow_core_dumps() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Core);
    limit.current = limit.maximum;
    setrlimit(Resource::Core, limit).expect("the highest limit of core dumps");
}

/// Asserts that a crash of the process leaves no core dump.
fn assert_no_core_dumps(process: &Process) {
    let limits = format!("/proc/{}/limits", process.pid().unwrap());
    let limits = fs::read_to_string(limits).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let bytes: Vec<u64> =
        core.split_whitespace().take(2).map(|limit| limit.parse().unwrap_or(u64::MAX)).collect();
    assert!(bytes.iter().all(|limit| *limit <= 1), "{}: {core}", process.name());
}

fn names(places: &[&str]) -> Places {
    places.iter().map(|&place| place.to_owned()).collect()
}

#[tokio::test]
async fn must_31_personal_data_is_found_only_where_the_privacy_page_names_it() {
    let (endpoint, traces) = start_collector().await;
    let mut stack = Stack::builder()
        .postgres(Postgres::Own)
        .env("LINNET__TELEMETRY__OTLP_ENDPOINT", endpoint)
        .workers(1)
        .redis_env("LINNET_REDIS_APPENDONLY", "yes")
        .nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1")
        // The default. Other tests set `error`.
        .nginx_env("LINNET_NGINX_ERROR_LEVEL", "alert")
        .env("LINNET__TELEMETRY__REDIRECT_LOG_SAMPLE", 1)
        .env("LINNET__GATEWAY__ANONYMOUS", "create")
        // Keys of rates live until their quota is full.
        .env("LINNET__LIMITS__ADDRESS_PER_MINUTE", 60)
        .env("LINNET__LIMITS__ADDRESS_BURST", 1_000)
        .start()
        .await;
    for address in ADDRESSES {
        send_marked_requests(&stack, address).await;
    }
    send_marked_email(&stack).await;
    send_marked_events(&stack.client()).await;
    let keys = redis_keys(&stack).await;
    assert!(keys.iter().any(|key| key.starts_with("linnet:rate:a:")), "{keys:?}");
    // While Redis is down, clicks go to the spool, and failures of it to the logs.
    stack.redis.kill().await;
    send_marked_requests(&stack, ADDRESSES[0]).await;
    eventually(Duration::from_secs(10), "clicks are spooled", || async {
        let places = places_of(&stack, &[AGENT_MARK]).await;
        places.iter().any(|place| place.starts_with("spool/")).then_some(())
    })
    .await;
    stack.start_redis().await;
    stack.wait_until_ready().await;
    eventually(Duration::from_secs(20), "the spool is published", || async {
        let places = places_of(&stack, &[AGENT_MARK]).await;
        (!places.iter().any(|place| place.starts_with("spool/"))).then_some(())
    })
    .await;

    assert_eq!(places_of(&stack, &ADDRESS_FORMS).await, Places::new(), "addresses");
    let agents = places_of(&stack, &[AGENT_MARK]).await;
    assert_eq!(agents, names(&["append-only file"]), "user agents");
    let emails = places_of(&stack, &[EMAIL_MARK, &EMAIL_MARK.to_uppercase()]).await;
    let named = names(&["table idempotency_keys", "table job_row_errors", "table users"]);
    assert!(emails.is_subset(&named), "e-mail addresses: {emails:?}");
    assert!(emails.contains("table users"), "the test finds nothing: {emails:?}");
    assert_eq!(places_of(&stack, &UNSTORED).await, Places::new(), "data that must not be stored");
    let details = places_of(&stack, &["MarkedDetails"]).await;
    assert_eq!(details, names(&["table events"]), "details of events");
    assert_traces_contain_no_mark(&traces).await;
    // The search itself works: the log contains what it may.
    let all = ADDRESS_FORMS.iter().chain(&UNSTORED).copied().collect::<Vec<_>>();
    assert_eq!(redis_places(&stack, &all).await, Places::new(), "Redis");
    let networks = places_of(&stack, &["203.0.113.0"]).await;
    assert_eq!(networks, names(&["nginx/logs/access.log"]), "networks");
}

#[tokio::test]
async fn must_31_dead_letters_and_crashes_leave_data_only_where_the_privacy_page_names_it() {
    allow_core_dumps();
    let stack = Stack::builder()
        .postgres(Postgres::Own)
        .workers(1)
        .redis_env("LINNET_REDIS_APPENDONLY", "yes")
        .nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1")
        .nginx_env("LINNET_NGINX_ERROR_LEVEL", "alert")
        .start()
        .await;
    let linnet = stack.gateways.iter().chain(&stack.shorteners).chain(&stack.workers);
    for process in linnet.chain([&stack.nginx, &stack.redis]).chain(&stack.postgres) {
        assert_no_core_dumps(process);
    }
    send_marked_requests(&stack, ADDRESSES[0]).await;
    damage_a_marked_batch(&stack).await;
    // The stream keeps what has been written for 10 s.
    eventually(Duration::from_secs(40), "only the dead letter is left", || async {
        let places = redis_places(&stack, &[AGENT_MARK]).await;
        (places == names(&[DEAD_LETTERS])).then_some(())
    })
    .await;
    let everything = ADDRESS_FORMS.iter().chain(&UNSTORED).copied().collect::<Vec<_>>();
    assert_eq!(redis_places(&stack, &everything).await, Places::new());
    assert_eq!(places_of(&stack, &everything).await, Places::new());
    assert_eq!(places_of(&stack, &[AGENT_MARK]).await, names(&["append-only file"]));
    delete(&stack, DEAD_LETTERS).await;
    assert_eq!(redis_places(&stack, &[AGENT_MARK]).await, Places::new());
}
