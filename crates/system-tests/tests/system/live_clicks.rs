//! Event streams of live clicks.

use std::time::Duration;

use linnet_system_tests::{
    Client, EventStream, Signal, Stack,
    services::{free_port, local},
    within,
};
use serde_json::json;

/// The referrer of the next event, which must be a click.
async fn next_referrer(events: &mut EventStream) -> String {
    let event = events.event().await;
    assert_eq!(event.name, "click", "{event:?}");
    event.data["referrer"].as_str().unwrap_or_default().to_owned()
}

async fn visit(client: &Client, code: &str, referrer: &str) {
    let request = client.anonymous().get(&format!("/{code}"));
    let response = request.header("referer", &format!("https://{referrer}/")).send().await;
    assert_eq!(response.status, 302);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_stream_resumes_without_missing_a_click() {
    let mut stack = Stack::builder().shorteners(2).workers(1).start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let other = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let key = stack.admin_key.clone();

    let mut events = EventStream::open(&client, &key, &path, None).await;
    // The shortener begins to read the stream after the first subscription, so visits repeat until one
    // is delivered.
    let delivered = tokio::select! {
        referrer = next_referrer(&mut events) => referrer,
        () = async { loop {
            visit(&client, &code, "first.example").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        } } => unreachable!(),
    };
    assert_eq!(delivered, "first.example");
    visit(&client, other["short_code"].as_str().unwrap(), "elsewhere.example").await;
    visit(&client, &code, "second.example").await;
    let mut next = next_referrer(&mut events).await;
    while next == "first.example" {
        next = next_referrer(&mut events).await;
    }
    assert_eq!(next, "second.example", "no click of the other link");
    let last = events.id.clone();
    drop(events);

    // A resumed stream delivers the clicks since the last event.
    visit(&client, &code, "third.example").await;
    visit(&client, &code, "fourth.example").await;
    let mut events = EventStream::open(&client, &key, &path, Some(&last)).await;
    let first = next_referrer(&mut events).await;
    // The two shorteners may publish their clicks in either order.
    let second = next_referrer(&mut events).await;
    let mut both = [first, second];
    both.sort();
    assert_eq!(both, ["fourth.example", "third.example"]);

    // A stopping process sends `reconnect`.
    for shortener in &mut stack.shorteners {
        shortener.signal(Signal::TERM);
    }
    let event = events.event().await;
    assert_eq!(event.name, "reconnect");
}

#[tokio::test]
async fn old_event_id_yields_a_gap_and_invalid_ids_are_rejected() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let key = stack.admin_key.clone();
    let mut events = EventStream::open(&client, &key, &path, Some("1000-0.0")).await;
    assert_eq!(events.event().await.name, "gap");
    let invalid = client.get(&path).header("last-event-id", "nonsense").send().await;
    assert_eq!(invalid.problem(422)["errors"][0]["field"], "Last-Event-ID");
    client.get("/api/v1/urls/999999/live").send().await.problem(404);
    let (_, other) = stack.create_user("other", &["urls:read"]).await;
    within(Duration::from_secs(10), "404 for another user", || async {
        other.get(&path).send().await.status == 404
    })
    .await;
}

/// An nginx with default settings in front of the stack, as an operator adds it for TLS. Dropping it stops it.
struct PlainNginx {
    port: u16,
    child: std::process::Child,
    _folder: tempfile::TempDir,
}

impl PlainNginx {
    async fn start(stack: &Stack) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let (path, address) = (folder.path().display(), stack.client().address());
        let config = format!(
            "daemon off; pid {path}/pid; error_log stderr; events {{}}
             http {{
                 access_log off; gzip on; gzip_proxied any; gzip_types *; gzip_min_length 0;
                 client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;
                 uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{address}; }} }}
             }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
        let program = program.into_iter().find(|path| std::path::Path::new(path).exists());
        let child = std::process::Command::new(program.unwrap_or("nginx"))
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .spawn()
            .unwrap();
        let nginx = Self { port, child, _folder: folder };
        let client = nginx.client(stack);
        within(Duration::from_secs(10), "the second nginx to respond", || async {
            client.get("/health").try_send().await.is_ok_and(|response| response.status == 200)
        })
        .await;
        nginx
    }

    fn client(&self, stack: &Stack) -> Client {
        Client::new(local(self.port)).with_key(&stack.admin_key)
    }
}

impl Drop for PlainNginx {
    fn drop(&mut self) {
        // The master process stops its worker processes.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn event_streams_pass_a_second_nginx_with_default_settings() {
    let stack = Stack::builder().workers(1).start().await;
    let nginx = PlainNginx::start(&stack).await;
    let (client, key) = (nginx.client(&stack), stack.admin_key.clone());
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    // `open` waits for the head of the response, which needs the first byte of the body behind a proxy.
    let opened =
        tokio::time::timeout(Duration::from_secs(5), EventStream::open(&client, &key, &path, None));
    let mut events = opened.await.expect("the head of the response within 5 s");
    let delivered = tokio::select! {
        referrer = next_referrer(&mut events) => referrer,
        () = async { loop {
            visit(&stack.client(), &code, "proxied.example").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        } } => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(8)) => panic!("no click passed the proxy"),
    };
    assert_eq!(delivered, "proxied.example");
    let response = client.get("/api/v1/urls").send().await;
    assert_eq!(response.header("x-accel-buffering"), None, "only streams need it");
}
