//! Puts a stack together and starts it.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Process, Signal, Spec},
    redis_proxy::RedisProxy,
    services::{Database, binary, local, path_text},
};

use super::{
    Stack, disks, run,
    servers::{start_nginx, start_own_postgres, start_redis},
};

/// The origin of short URLs in tests. Nothing listens there: it only appears in answers.
pub const BASE_URL: &str = "http://lnt.test";

/// Waits that are longer here than in the product, see [`Builder::default`].
const PATIENCE: [&str; 4] = [
    "LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS",
    "LINNET__POSTGRES__LOCK_TIMEOUT_MS",
    "LINNET__POSTGRES__STATEMENT_TIMEOUT_MS",
    "LINNET__RESOLVE__DATABASE_TIMEOUT_MS",
];

/// Where the database is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Postgres {
    /// In the server of `DATABASE_URL`, or in an own one when that is not set.
    #[default]
    Shared,
    /// In an own server, which the test may stop.
    Own,
}

/// What a stack is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    shorteners: usize,
    gateways: usize,
    workers: usize,
    postgres: Postgres,
    proxied_redis: bool,
    import: Option<PathBuf>,
    upload_disk: Option<&'static str>,
    env: BTreeMap<String, String>,
    nginx_env: BTreeMap<String, String>,
}

impl Default for Builder {
    fn default() -> Self {
        let env = [
            ("LINNET__PUBLIC__BASE_URL", BASE_URL),
            ("LINNET__SERVICE__TOKEN", "system-tests-0123456789abcdef0123456789"),
            ("LINNET__SHORTENER__SERVER_THREADS", "2"),
            ("LINNET__GATEWAY__SERVER_THREADS", "2"),
            // Tests of limits set their own; the others are not to meet any.
            ("LINNET__LIMITS__KEY_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__KEY_BURST", "1000000"),
            ("LINNET__LIMITS__ADDRESS_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__ADDRESS_BURST", "1000000"),
            ("LINNET__RESOLVE__MISSES_PER_MINUTE", "60000000"),
            ("LINNET__RESOLVE__MISSES_BURST", "1000000"),
            // Many stacks share one server.
            ("LINNET__POSTGRES__MAX_CONNECTIONS", "16"),
            // Unoptimised processes, several stacks at once, two cores: waits that the product would
            // rightly give up are allowed to end. Tests of faults keep the product's own.
            ("LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__LOCK_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__STATEMENT_TIMEOUT_MS", "4000"),
            ("LINNET__RESOLVE__DATABASE_TIMEOUT_MS", "4500"),
            // The other tests are always waiting for a processor.
            ("LINNET__JOBS__THROTTLE_PERCENT", "100"),
            // Tests of stopping set the real one.
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
            import: None,
            upload_disk: None,
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            nginx_env: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// How many shorteners.
    #[must_use]
    pub fn shorteners(mut self, count: usize) -> Self {
        self.shorteners = count;
        self
    }

    /// How many gateways.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// How many workers; none unless told otherwise.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Where the database is. With one of its own the product's own timeouts hold.
    #[must_use]
    pub fn postgres(mut self, postgres: Postgres) -> Self {
        self.postgres = postgres;
        if postgres == Postgres::Own {
            for wait in PATIENCE {
                self.env.remove(wait);
            }
        }
        self
    }

    /// Puts a proxy between Redis and each process, so that one alone can be cut off.
    #[must_use]
    pub fn proxied_redis(mut self) -> Self {
        self.proxied_redis = true;
        self
    }

    /// Imports `users.csv`, `urls.csv` and `events.csv` of a folder before anything else is made.
    #[must_use]
    pub fn import(mut self, folder: &Path) -> Self {
        self.import = Some(folder.to_owned());
        self
    }

    /// Gives each shortener an upload area on a disk of its own, of this size (`2m`), that nobody else
    /// sees. The machine must allow namespaces of users and of mounts.
    #[must_use]
    pub fn upload_disk(mut self, size: &'static str) -> Self {
        self.upload_disk = Some(size);
        self
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

    /// Starts everything and waits until all is ready.
    pub async fn start(self) -> Stack {
        let folder = folder();
        let (postgres, database, database_url) = self.start_postgres(folder.path()).await;
        let mut env = self.env.clone();
        env.insert("LINNET__POSTGRES__URL".into(), database_url.clone());
        // Each process takes a folder of its own in it.
        env.insert("LINNET__CLICKS__SPOOL_DIR".into(), path_text(&folder.path().join("spool")));
        env.insert("LINNET__JOBS__UPLOAD_DIR".into(), path_text(&folder.path().join("uploads")));

        let (redis, redis_port) = start_redis(folder.path()).await;
        run(&env, &["migrate"]).await;
        if let Some(data) = &self.import {
            let file = |name: &str| path_text(&data.join(name));
            let (users, urls, events) = (file("users.csv"), file("urls.csv"), file("events.csv"));
            let files = ["--users", &users, "--urls", &urls, "--events", &events];
            run(&env, &[&["admin", "import"][..], &files].concat()).await;
        }
        let create_key =
            ["admin", "create-key", "--username", "root", "--email", "root@example.test"];
        let admin_key = run(&env, &create_key).await.trim().to_owned();

        let mut shortener_redis = Vec::new();
        let mut gateway_redis = Vec::new();
        let mut worker_redis = Vec::new();
        let redis_url = |proxies: &mut Vec<RedisProxy>| {
            let port = if self.proxied_redis {
                proxies.push(RedisProxy::start(local(redis_port)));
                proxies.last().map_or(redis_port, RedisProxy::port)
            } else {
                redis_port
            };
            format!("redis://127.0.0.1:{port}/0")
        };
        let path = folder.path();
        let sockets = |name: &str, count: usize| -> Vec<String> {
            (0..count).map(|n| socket(path, name, n)).collect()
        };
        let resolve = sockets("r", self.shorteners);
        let listen = sockets("g", self.gateways);
        env.insert("LINNET__UPSTREAM__SHORTENERS".into(), sockets("a", self.shorteners).join(","));
        // For the command line; each process has its own below.
        env.insert("LINNET__REDIS__URL".into(), format!("redis://127.0.0.1:{redis_port}/0"));

        let shorteners: Vec<_> = (0..self.shorteners)
            .map(|n| {
                let mut spec = SHORTENER.spec(path, n, &env, &redis_url(&mut shortener_redis));
                if let Some(size) = self.upload_disk {
                    disks::mount_for(&mut spec, &path.join("uploads"), size);
                }
                Process::spawn(spec)
            })
            .collect();
        let gateways: Vec<_> = (0..self.gateways)
            .map(|n| Process::spawn(GATEWAY.spec(path, n, &env, &redis_url(&mut gateway_redis))))
            .collect();
        let workers: Vec<_> = (0..self.workers)
            .map(|n| Process::spawn(WORKER.spec(path, n, &env, &redis_url(&mut worker_redis))))
            .collect();
        let (nginx, port) = start_nginx(path, &resolve, &listen, &self.nginx_env).await;

        let client = Client::new(local(port)).with_key(&admin_key);
        let mut stack = Stack {
            nginx,
            gateways,
            shorteners,
            workers,
            redis,
            postgres,
            shortener_redis,
            gateway_redis,
            worker_redis,
            admin_key,
            admin_id: 0,
            client,
            redis_port,
            database_url,
            env,
            _database: database,
            folder,
        };
        stack.ready().await;
        let id = "SELECT user_id FROM api_keys ORDER BY created_at LIMIT 1";
        stack.admin_id = sqlx::query_scalar(id)
            .fetch_one(&mut stack.database().await)
            .await
            .expect("the administrator's id");
        stack
    }

    async fn start_postgres(&self, folder: &Path) -> (Option<Process>, Option<Database>, String) {
        match std::env::var("DATABASE_URL") {
            Ok(url) if self.postgres == Postgres::Shared => {
                let database = Database::create(&url).await;
                let url = database.url();
                (None, Some(database), url)
            }
            _ => {
                let (server, url) = start_own_postgres(folder).await;
                (Some(server), None, url)
            }
        }
    }
}

/// A folder that servers of other users can reach, with a path short enough for unix sockets.
fn folder() -> TempDir {
    let parent = std::env::temp_dir();
    let parent = if parent.as_os_str().len() < 60 { parent } else { PathBuf::from("/tmp") };
    let folder = tempfile::Builder::new().prefix("lnt-").tempdir_in(parent).expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))
        .expect("the folder's permissions");
    folder
}

/// A kind of process that has its own sockets, log and connection to Redis.
struct Kind {
    name: &'static str,
    program: &'static str,
    command: &'static str,
    /// The variable and the socket's name of its admin listener.
    admin: (&'static str, &'static str),
    /// What else each process of the kind has to itself.
    own: fn(&Path, usize) -> Vec<(&'static str, String)>,
}

const SHORTENER: Kind = Kind {
    name: "linnet-shortener",
    program: "linnet-shortener",
    command: "serve",
    admin: ("LINNET__SHORTENER__ADMIN_LISTEN", "sa"),
    own: shortener_env,
};

const GATEWAY: Kind = Kind {
    name: "linnet-gateway",
    program: "linnet-gateway",
    command: "serve",
    admin: ("LINNET__GATEWAY__ADMIN_LISTEN", "ga"),
    own: |folder, number| vec![("LINNET__GATEWAY__LISTEN", socket(folder, "g", number))],
};

const WORKER: Kind = Kind {
    name: "linnet-worker",
    program: "linnet-shortener",
    command: "worker",
    admin: ("LINNET__WORKER__ADMIN_LISTEN", "wa"),
    own: |_, _| Vec::new(),
};

/// What one shortener may not share with the others. A file or folder of its own goes here.
fn shortener_env(folder: &Path, number: usize) -> Vec<(&'static str, String)> {
    vec![
        ("LINNET__SHORTENER__RESOLVE_LISTEN", socket(folder, "r", number)),
        ("LINNET__SHORTENER__API_LISTEN", socket(folder, "a", number)),
    ]
}

impl Kind {
    fn spec(
        &self,
        folder: &Path,
        number: usize,
        env: &BTreeMap<String, String>,
        redis_url: &str,
    ) -> Spec {
        let name = format!("{}-{number}", self.name);
        let (admin_key, admin) = self.admin;
        let mut env = env.clone();
        env.insert("LINNET__REDIS__URL".into(), redis_url.to_owned());
        env.insert(admin_key.into(), socket(folder, admin, number));
        env.extend((self.own)(folder, number).into_iter().map(|(key, own)| (key.to_owned(), own)));
        Spec {
            log: folder.join(format!("{name}.log")),
            name,
            program: binary(self.program),
            args: vec![self.command.into()],
            env,
            stop_signal: Signal::TERM,
            admin: Some(folder.join(format!("{admin}{number}"))),
        }
    }
}

/// A listener's address.
fn socket(folder: &Path, name: &str, number: usize) -> String {
    format!("unix:{}", path_text(&folder.join(format!("{name}{number}"))))
}
