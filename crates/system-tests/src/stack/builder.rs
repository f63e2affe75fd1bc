//! Configures a stack and starts its processes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    certificates::Certificates,
    client::Client,
    process::Process,
    redis_proxy::RedisProxy,
    services::{Database, local, path_text},
};

use super::{
    Stack,
    containers::{CONTAINER_LIMITS, CONTAINER_NGINX, CONTAINER_SETTINGS, MemoryLimits},
    disks,
    folder::short_folder,
    kind::{GATEWAY, Kind, RedisAt, SHORTENER, UPLOAD_DIR, WORKER, insert_stores, sockets},
    layout::{Postgres, PostgresPath, RedisServers, Standbys, UploadDirs},
    redis_cluster::{self, RedisCluster},
    redis_group::RedisGroup,
    run,
    servers::{TLS_DIR, start_nginx, start_own_postgres, start_redis},
};

/// The origin of short URLs in tests. It appears only in responses; no server listens there.
pub const BASE_URL: &str = "http://lnt.test";

/// Timeouts that are longer than the product's defaults, except with [`Postgres::Own`].
const LONGER_TIMEOUTS: [&str; 4] = [
    "LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS",
    "LINNET__POSTGRES__LOCK_TIMEOUT_MS",
    "LINNET__POSTGRES__STATEMENT_TIMEOUT_MS",
    "LINNET__RESOLVE__DATABASE_TIMEOUT_MS",
];

/// Variables that [`Builder::product_defaults`] keeps.
const NECESSARY: [&str; 2] = ["LINNET__PUBLIC__BASE_URL", "LINNET__SERVICE__TOKEN"];

/// The configuration of a stack.
#[derive(Debug, Clone)]
pub struct Builder {
    shorteners: usize,
    gateways: usize,
    workers: usize,
    postgres: Postgres,
    proxied_redis: bool,
    pub(super) redis: RedisServers,
    pub(super) standbys: Standbys,
    pub(super) postgres_path: PostgresPath,
    import: Option<PathBuf>,
    uploads: UploadDirs,
    tls: bool,
    env: BTreeMap<String, String>,
    nginx_env: BTreeMap<String, String>,
    redis_env: BTreeMap<String, String>,
    memory_limits: MemoryLimits,
}

impl Default for Builder {
    fn default() -> Self {
        let env = [
            ("LINNET__PUBLIC__BASE_URL", BASE_URL),
            ("LINNET__SERVICE__TOKEN", "system-tests-0123456789abcdef0123456789"),
            ("LINNET__SHORTENER__SERVER_THREADS", "2"),
            ("LINNET__GATEWAY__SERVER_THREADS", "2"),
            // The limits are far above what tests reach. Tests of limits set their own.
            ("LINNET__LIMITS__KEY_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__KEY_BURST", "1000000"),
            ("LINNET__LIMITS__USER_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__USER_BURST", "1000000"),
            ("LINNET__LIMITS__ADDRESS_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__ADDRESS_BURST", "1000000"),
            ("LINNET__RESOLVE__MISSES_PER_MINUTE", "60000000"),
            ("LINNET__RESOLVE__MISSES_BURST", "1000000"),
            // Many stacks share one PostgreSQL server.
            ("LINNET__POSTGRES__MAX_CONNECTIONS", "16"),
            // Unoptimized processes of several stacks share a few cores, so statements may exceed the
            // product's timeouts. Tests of faults use `Postgres::Own` and keep the product's.
            ("LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__LOCK_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__STATEMENT_TIMEOUT_MS", "4000"),
            ("LINNET__RESOLVE__DATABASE_TIMEOUT_MS", "4500"),
            // Otherwise concurrent tests would throttle every job.
            ("LINNET__JOBS__THROTTLE_PERCENT", "100"),
            // Tests of shutdown set a realistic drain.
            ("LINNET__SHUTDOWN__DRAIN_MS", "100"),
            ("LINNET__SHUTDOWN__GRACE_S", "5"),
            ("LINNET__TELEMETRY__LOG_LEVEL", "info"),
        ];
        Self {
            shorteners: 1,
            gateways: 1,
            workers: 0,
            postgres: Postgres::Shared,
            proxied_redis: false,
            redis: RedisServers::One,
            standbys: Standbys::None,
            postgres_path: PostgresPath::Direct,
            import: None,
            uploads: UploadDirs::Shared,
            tls: false,
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            nginx_env: BTreeMap::from([("LINNET__PUBLIC__BASE_URL".into(), BASE_URL.into())]),
            redis_env: BTreeMap::new(),
            memory_limits: MemoryLimits::default(),
        }
    }
}

impl Builder {
    /// Removes the test's own limits and timeouts, so that the product's defaults apply.
    #[must_use]
    pub fn product_defaults(mut self) -> Self {
        self.env.retain(|key, _| NECESSARY.contains(&key.as_str()));
        self
    }

    /// Sets the number of shorteners.
    #[must_use]
    pub fn shorteners(mut self, count: usize) -> Self {
        self.shorteners = count;
        self
    }

    /// Sets the number of gateways.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Sets the number of workers; the default is 0.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Sets the PostgreSQL server.
    #[must_use]
    pub fn postgres(mut self, postgres: Postgres) -> Self {
        self.postgres = postgres;
        if postgres == Postgres::Own {
            for timeout in LONGER_TIMEOUTS {
                self.env.remove(timeout);
            }
        }
        self
    }

    /// Starts a proxy between each process and Redis, which can disconnect only this process.
    #[must_use]
    pub fn proxied_redis(mut self) -> Self {
        self.proxied_redis = true;
        self
    }

    /// Imports `users.csv`, `urls.csv` and `events.csv` from a folder before the first key is created.
    #[must_use]
    pub fn import(mut self, folder: &Path) -> Self {
        self.import = Some(folder.to_owned());
        self
    }

    /// Gives each shortener an upload area on its own disk of this size, such as `2m`. Other processes
    /// do not see the disk. The machine must allow user and mount namespaces.
    #[must_use]
    pub fn upload_disk(mut self, size: &'static str) -> Self {
        self.uploads = UploadDirs::Disk(size);
        self
    }

    /// Gives each process an upload directory of its own, `uploads-` and the name of the process, as on several machines.
    #[must_use]
    pub fn own_upload_dirs(mut self) -> Self {
        self.uploads = UploadDirs::Own;
        self
    }

    /// Lets every process reach its own PostgreSQL and Redis with TLS only, and verify their certificates. Tests still
    /// connect without TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self.postgres(Postgres::Own)
    }

    /// Sets a variable for shorteners, gateways and workers.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.insert(key.into(), value.to_string());
        self
    }

    /// Sets a variable for nginx.
    #[must_use]
    pub fn nginx_env(mut self, key: &str, value: impl ToString) -> Self {
        self.nginx_env.insert(key.into(), value.to_string());
        self
    }

    /// Sets a variable for `scripts/service redis`.
    #[must_use]
    pub fn redis_env(mut self, key: &str, value: impl ToString) -> Self {
        self.redis_env.insert(key.into(), value.to_string());
        self
    }

    /// Runs each process in a memory control group of its own.
    #[must_use]
    pub fn memory_limits(mut self, limits: MemoryLimits) -> Self {
        self.memory_limits = limits;
        self
    }

    /// Runs each process with the memory limit and the settings of its container.
    #[must_use]
    pub fn containers(mut self) -> Self {
        for (key, value) in CONTAINER_SETTINGS {
            self.env.insert((*key).into(), (*value).into());
        }
        for (key, value) in CONTAINER_NGINX {
            self.nginx_env.insert((*key).into(), (*value).into());
        }
        self.memory_limits(CONTAINER_LIMITS)
    }

    /// Starts all processes and waits until they are ready.
    // Long because it starts every kind of process, in the order of their dependencies.
    pub async fn start(self) -> Stack {
        let folder = short_folder();
        let path = folder.path();
        let tls = self.tls.then(|| Certificates::create(path.join("tls")));
        let tls_env: BTreeMap<String, String> =
            tls.iter().map(|tls| (TLS_DIR.to_owned(), path_text(tls.folder()))).collect();
        let (postgres, database, database_url) = self.start_postgres(path, &tls_env).await;
        let postgres_group = self.start_standbys(path, &database_url, &tls_env).await;
        let mut redis_env: BTreeMap<String, String> =
            self.redis_env.clone().into_iter().chain(tls_env).collect();
        if self.redis == RedisServers::Cluster {
            redis_env.extend(redis_cluster::node_env());
        }
        let (redis, redis_port, redis_tls_port) = start_redis(path, &redis_env).await;
        let redis_group = if self.redis == RedisServers::Sentinels {
            Some(RedisGroup::start(path, redis_port, &redis_env).await)
        } else {
            None
        };
        let redis_cluster = if self.redis == RedisServers::Cluster {
            Some(RedisCluster::start(path, redis_port, &redis_env).await)
        } else {
            None
        };
        let redis_at =
            &RedisAt::new(redis_group.as_ref(), redis_cluster.as_ref(), redis_port, redis_tls_port);
        let mut env = self.env.clone();
        insert_stores(&mut env, path, &database_url, redis_at, tls.as_ref());
        self.insert_hosts(&mut env, postgres_group.as_ref());
        let (pooler, worker_env) = self.start_pooler(path, &database_url, &mut env).await;
        let admin_key = self.prepare_database(&env).await;

        let resolve = sockets(path, "r", self.shorteners);
        let listen = sockets(path, "g", self.gateways);
        let api = sockets(path, "a", self.shorteners);
        env.insert("LINNET__UPSTREAM__SHORTENERS".into(), api.join(","));
        let limits = self.memory_limits;
        let (shorteners, shortener_redis) =
            self.spawn((&SHORTENER, self.shorteners, limits.shortener), path, &env, redis_at);
        let (gateways, gateway_redis) =
            self.spawn((&GATEWAY, self.gateways, limits.gateway), path, &env, redis_at);
        let (workers, worker_redis) =
            self.spawn((&WORKER, self.workers, limits.worker), path, &worker_env, redis_at);
        let (nginx, port) =
            start_nginx(path, &resolve, &listen, &self.nginx_env, self.memory_limits.nginx).await;

        let client = Client::new(local(port)).with_key(&admin_key);
        let mut stack = Stack {
            nginx,
            gateways,
            shorteners,
            workers,
            redis,
            redis_group,
            redis_cluster,
            postgres,
            postgres_group,
            pooler,
            shortener_redis,
            gateway_redis,
            worker_redis,
            admin_key,
            admin_id: 0,
            client,
            redis_port,
            tls,
            database_url,
            env,
            _database: database,
            folder,
        };
        stack.wait_until_ready().await;
        let id = "SELECT user_id FROM api_keys ORDER BY created_at LIMIT 1";
        stack.admin_id = sqlx::query_scalar(id)
            .fetch_one(&mut stack.database().await)
            .await
            .expect("the administrator's id");
        stack
    }

    /// Runs the migrations and the import, and returns a new administrator's key.
    async fn prepare_database(&self, env: &BTreeMap<String, String>) -> String {
        run(env, &["migrate"]).await;
        if let Some(data) = &self.import {
            let file = |name: &str| path_text(&data.join(name));
            let (users, urls, events) = (file("users.csv"), file("urls.csv"), file("events.csv"));
            let files = ["--users", &users, "--urls", &urls, "--events", &events];
            run(env, &[&["admin", "import"][..], &files].concat()).await;
        }
        let create_key =
            ["admin", "create-key", "--username", "root", "--email", "root@example.test"];
        run(env, &create_key).await.trim().to_owned()
    }

    /// Starts processes of one kind, each with its memory limit and its own proxy to Redis if the stack has proxies.
    fn spawn(
        &self,
        (kind, count, memory_limit): (&Kind, usize, Option<u64>),
        folder: &Path,
        env: &BTreeMap<String, String>,
        redis_at: &RedisAt,
    ) -> (Vec<Process>, Vec<RedisProxy>) {
        let mut proxies = Vec::new();
        let processes = (0..count).map(|number| {
            let mut redis_at = redis_at.clone();
            if self.proxied_redis {
                for port in &mut redis_at.ports {
                    let proxy = RedisProxy::start(local(*port));
                    *port = proxy.port();
                    proxies.push(proxy);
                }
            }
            let mut spec = kind.spec(folder, number, env, &redis_at.url(folder, kind.redis_role));
            spec.memory_limit = memory_limit;
            match self.uploads {
                UploadDirs::Own => {
                    let dir = folder.join(format!("uploads-{}", spec.name));
                    spec.env.insert(UPLOAD_DIR.into(), path_text(&dir));
                }
                UploadDirs::Disk(size) if kind.has_upload_disk => {
                    disks::mount_for(&mut spec, &folder.join("uploads"), size);
                }
                UploadDirs::Disk(_) | UploadDirs::Shared => {}
            }
            Process::spawn(spec)
        });
        let processes = processes.collect();
        (processes, proxies)
    }

    async fn start_postgres(
        &self,
        folder: &Path,
        env: &BTreeMap<String, String>,
    ) -> (Option<Process>, Option<Database>, String) {
        match std::env::var("DATABASE_URL") {
            Ok(url) if self.postgres == Postgres::Shared => {
                let database = Database::create(&url).await;
                let url = database.url();
                (None, Some(database), url)
            }
            _ => {
                let (server, url) = start_own_postgres(folder, env).await;
                (Some(server), None, url)
            }
        }
    }
}
