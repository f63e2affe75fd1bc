//! Two standbys of a stack's PostgreSQL, as processes on free ports, and a proxy in front of each server.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use sqlx::{Connection, PgConnection};

use crate::{process::Process, redis_proxy::RedisProxy as Proxy, services::local, wait::within};

use super::{Builder, Postgres, Stack, layout::Standbys, servers::start_own_postgres};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The servers of a stack with [`Builder::standbys`](super::Builder::standbys). Server 0 begins as the primary and is
/// the stack's own `postgres`; servers 1 and 2 begin as standbys. The primary acknowledges a commit when one of them has
/// it.
#[derive(Debug)]
pub struct PostgresGroup {
    /// Servers 1 and 2.
    pub standbys: Vec<Process>,
    /// Between the processes of Linnet and each server.
    pub proxies: Vec<Proxy>,
    /// The server that the test has made the primary.
    primary: usize,
    ports: Vec<u16>,
    /// Of the role `linnet` and of the superuser, which are the same on all servers.
    password: String,
    superuser_password: String,
}

impl PostgresGroup {
    /// Starts the standbys of the primary at `url`, whose files are in `folder`.
    pub(super) async fn start(folder: &Path, url: &str, env: &BTreeMap<String, String>) -> Self {
        let secret = |name: &str| {
            let path = folder.join("postgres").join(name);
            fs::read_to_string(path).expect("a password").trim().to_owned()
        };
        let mut group = Self {
            standbys: Vec::new(),
            proxies: Vec::new(),
            primary: 0,
            ports: vec![port_of(url)],
            password: secret("password"),
            superuser_password: secret("superuser-password"),
        };
        let mut env = env.clone();
        env.insert("LINNET_PG_STANDBY_OF".into(), group.superuser_url(0));
        for number in 1..=2 {
            let folder = folder.join(format!("standby{number}"));
            fs::create_dir_all(folder.join("postgres")).expect("a folder");
            fs::write(folder.join("postgres/password"), &group.password).expect("a password");
            let (process, url) = start_own_postgres(&folder, &env).await;
            group.standbys.push(process);
            group.ports.push(port_of(&url));
        }
        group.proxies = group.ports.iter().map(|port| Proxy::start(local(*port))).collect();
        group.synchronize().await;
        group
    }

    /// Waits until both standbys stream from the primary, which then waits for one of them at each commit.
    async fn synchronize(&self) {
        let names = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'";
        for statement in [names, "SELECT pg_reload_conf()"] {
            self.execute(0, statement).await;
        }
        within(START_TIMEOUT, "both standbys to be in sync", || async {
            let count = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
            let count = sqlx::query_scalar::<_, i64>(count);
            count.fetch_one(&mut self.superuser(0).await).await.unwrap() == 2
        })
        .await;
    }

    /// The URL for the processes of Linnet, with all servers.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        format!(
            "postgres://linnet:{}@{}/linnet?target_session_attrs=read-write",
            self.password,
            hosts.join(",")
        )
    }

    /// The URL of server 1 for the processes of Linnet, as the replica.
    pub(super) fn replica_url(&self) -> String {
        let port = self.proxies[1].port();
        format!("postgres://linnet:{}@127.0.0.1:{port}/linnet", self.password)
    }

    /// The URL of one server, without its proxy.
    pub fn url_of(&self, server: usize) -> String {
        format!("postgres://linnet:{}@127.0.0.1:{}/linnet", self.password, self.ports[server])
    }

    fn superuser_url(&self, server: usize) -> String {
        let (password, port) = (&self.superuser_password, self.ports[server]);
        format!("postgres://postgres:{password}@127.0.0.1:{port}/linnet")
    }

    /// A connection as superuser to one server.
    pub async fn superuser(&self, server: usize) -> PgConnection {
        PgConnection::connect(&self.superuser_url(server)).await.expect("a connection")
    }

    async fn execute(&self, server: usize, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&mut self.superuser(server).await).await.unwrap();
    }

    /// All processes but the stack's own `postgres`.
    pub(super) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.standbys.iter_mut()
    }
}

impl Builder {
    /// Starts two standbys of the stack's own PostgreSQL. The processes reach all three servers, each through a proxy.
    #[must_use]
    pub fn standbys(mut self) -> Self {
        self.standbys = Standbys::Two;
        self.postgres(Postgres::Own)
    }

    /// The same as [`Self::standbys`], and server 1 is the replica for reads.
    #[must_use]
    pub fn replica(self) -> Self {
        let mut builder = self.standbys();
        builder.standbys = Standbys::TwoAndReads;
        builder
    }

    pub(super) async fn start_standbys(
        &self,
        folder: &Path,
        url: &str,
        env: &BTreeMap<String, String>,
    ) -> Option<PostgresGroup> {
        if self.standbys == Standbys::None {
            return None;
        }
        Some(PostgresGroup::start(folder, url, env).await)
    }

    /// The variables for the servers of the group, if there is one.
    pub(super) fn insert_hosts(
        &self,
        env: &mut BTreeMap<String, String>,
        group: Option<&PostgresGroup>,
    ) {
        let Some(group) = group else { return };
        env.insert("LINNET__POSTGRES__URL".into(), group.url());
        if self.standbys == Standbys::TwoAndReads {
            env.insert("LINNET__POSTGRES__REPLICA_URL".into(), group.replica_url());
        }
    }
}

impl Stack {
    /// The servers, with [`Builder::standbys`](super::Builder::standbys).
    pub fn postgres_group(&self) -> &PostgresGroup {
        self.postgres_group.as_ref().expect("Builder::standbys")
    }

    /// Promotes a standby. [`Self::database`] then connects to it. The old primary is not notified.
    pub async fn promote(&mut self, server: usize) {
        let group = self.postgres_group.as_mut().expect("Builder::standbys");
        group.execute(server, "SELECT pg_promote()").await;
        group.primary = server;
        self.database_url = group.url_of(server);
    }

    /// Starts server 0 again, which the test has stopped, as a standby of the current primary.
    pub async fn return_as_standby(&mut self) {
        let group = self.postgres_group.as_ref().expect("Builder::standbys");
        let (of, url) = (group.superuser_url(group.primary), group.url_of(0));
        let server = self.postgres.as_mut().expect("Postgres::Own");
        server.set_env("LINNET_PG_STANDBY_OF", &of);
        server.start();
        within(START_TIMEOUT, "the old primary to be a standby", || async {
            let Ok(mut connection) = PgConnection::connect(&url).await else { return false };
            let recovery = sqlx::query_scalar("SELECT pg_is_in_recovery()");
            recovery.fetch_one(&mut connection).await.unwrap_or(false)
        })
        .await;
    }
}

fn port_of(url: &str) -> u16 {
    url::Url::parse(url).ok().and_then(|url| url.port()).expect("a URL with a port")
}
