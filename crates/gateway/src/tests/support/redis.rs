//! A Redis server for one test.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use linnet_protocol::invalidation::{CHANNEL, Invalidation};

use super::eventually;

/// A running server; dropping it ends the server.
pub(in crate::tests) struct Redis {
    child: Child,
    pub(in crate::tests) url: String,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    pub(in crate::tests) async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let child = launch(dir.path(), port);
        let redis = Self { child, url: format!("redis://127.0.0.1:{port}/0"), port, dir };
        redis.is_up().await;
        redis
    }

    async fn is_up(&self) {
        eventually("Redis responds", || async { self.connection().await.is_ok() }).await;
    }

    async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let _: String = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    }

    /// Kills the server; [`Self::restart`] starts it again.
    pub(in crate::tests) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(in crate::tests) async fn restart(&mut self) {
        self.child = launch(self.dir.path(), self.port);
        self.is_up().await;
    }

    pub(in crate::tests) async fn publish(&self, invalidation: &Invalidation) {
        let mut connection = self.connection().await.unwrap();
        let subscribers: i64 = redis::cmd("PUBLISH")
            .arg(CHANNEL)
            .arg(invalidation.encode())
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(subscribers > 0, "no gateway is subscribed");
    }

    pub(in crate::tests) async fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connection().await.unwrap();
        let names: Vec<String> =
            redis::cmd("KEYS").arg("linnet:rate:*").query_async(&mut connection).await.unwrap();
        let mut keys = Vec::new();
        for name in names {
            let ttl: i64 =
                redis::cmd("PTTL").arg(&name).query_async(&mut connection).await.unwrap();
            keys.push((name, ttl));
        }
        keys
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The script ends in `exec`, so the child process is the server.
fn launch(dir: &Path, port: u16) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/service");
    Command::new(script)
        .arg("redis")
        .arg(dir)
        .arg(port.to_string())
        .env("LINNET_REDIS_OPEN", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("scripts/service runs")
}
