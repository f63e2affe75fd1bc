//! PgBouncer in transaction mode, between the processes of a stack and their PostgreSQL.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use url::Url;

use crate::{
    process::{Process, Signal, Spec},
    services::{path_text, workspace},
};

use super::{
    Builder, Stack,
    layout::PostgresPath,
    run,
    servers::{pooler_responds, start_pooler},
};

/// The database of workers, whose sessions have other parameters than those of shorteners.
const OF_WORKERS: &str = "linnet_worker";
/// Server connections for the shorteners, and as many for the workers. The clients have more, so they share sessions.
const SERVER_CONNECTIONS: usize = 6;

/// A PgBouncer in front of the PostgreSQL of a stack.
#[derive(Debug)]
pub struct Pooler {
    /// The process.
    pub process: Process,
    port: u16,
    folder: PathBuf,
    server: Url,
    env: BTreeMap<String, String>,
}

impl Pooler {
    /// Starts a pooler in front of the database at `url`. `env` has the settings of Linnet's processes.
    pub(super) async fn start(folder: &Path, url: &str, env: &BTreeMap<String, String>) -> Self {
        let server = Url::parse(url).expect("a URL");
        let folder = folder.join("pooler");
        fs::create_dir_all(&folder).expect("a folder");
        let databases = databases(&server, env).await;
        let (process, port) = start_pooler(|port| {
            let configuration = configuration(&databases, port, "");
            fs::write(folder.join("pgbouncer.ini"), configuration).expect("a configuration");
            spawn(&folder)
        })
        .await;
        Self { process, port, folder, server, env: env.clone() }
    }

    /// The variables for Linnet's processes, and for workers.
    pub(super) fn env(&self, is_worker: bool) -> [(String, String); 2] {
        let database = if is_worker { OF_WORKERS } else { "linnet" };
        let pooled = format!("postgres://linnet@127.0.0.1:{}/{database}", self.port);
        [
            ("LINNET__POSTGRES__URL".to_owned(), pooled),
            ("LINNET__POSTGRES__DIRECT_URL".to_owned(), self.server.to_string()),
        ]
    }

    /// Restarts the pooler with more lines in its configuration. With `query`, `connect_query` is that.
    pub async fn restart(&mut self, query: Option<&str>, lines: &str) {
        let mut databases = databases(&self.server, &self.env).await;
        if let Some(query) = query {
            databases = database("linnet", &self.server, query);
        }
        self.process.stop().await;
        let configuration = configuration(&databases, self.port, lines);
        fs::write(self.folder.join("pgbouncer.ini"), configuration).expect("a configuration");
        self.process.start();
        let port = self.port;
        crate::wait::within(super::START_TIMEOUT, "the pooler", || pooler_responds(port)).await;
    }
}

fn spawn(folder: &Path) -> Process {
    Process::spawn(Spec {
        name: "pgbouncer".into(),
        program: program().into(),
        args: vec![path_text(&folder.join("pgbouncer.ini"))],
        env: BTreeMap::new(),
        // `SIGTERM` waits for the clients.
        stop_signal: Signal::QUIT,
        log: folder.join("log"),
        admin: None,
        memory_limit: None,
    })
}

/// The path of the program, which the script builds if no suitable one is installed.
fn program() -> String {
    let output = Command::new(workspace().join("scripts/pgbouncer")).output().expect("a script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The section `[databases]`, with the parameters that the shortener and the worker demand.
async fn databases(server: &Url, env: &BTreeMap<String, String>) -> String {
    let of_shorteners = run(env, &["pooler-query"]).await;
    let of_workers = run(env, &["pooler-query", "--worker"]).await;
    database("linnet", server, of_shorteners.trim())
        + &database(OF_WORKERS, server, of_workers.trim())
}

fn database(name: &str, server: &Url, query: &str) -> String {
    format!(
        "{name} = host=127.0.0.1 port={} dbname={} user={} password={} max_db_connections={SERVER_CONNECTIONS} \
         connect_query='{query}'\n",
        server.port().unwrap_or(5432),
        server.path().trim_start_matches('/'),
        server.username(),
        server.password().unwrap_or_default(),
    )
}

/// The configuration. Tests need no password for the pooler.
fn configuration(databases: &str, port: u16, lines: &str) -> String {
    let user = if rustix::process::geteuid().is_root() { "user = daemon\n" } else { "" };
    format!(
        "[databases]\n{databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\nmax_prepared_statements = 200\n\
         max_client_conn = 500\n{user}{lines}\n"
    )
}

impl Builder {
    /// Starts the pooler, if the stack has one, and sets its variables. Returns those of workers, too.
    pub(super) async fn start_pooler(
        &self,
        folder: &Path,
        url: &str,
        env: &mut BTreeMap<String, String>,
    ) -> (Option<Pooler>, BTreeMap<String, String>) {
        let mut worker_env = env.clone();
        if self.postgres_path == PostgresPath::Direct {
            return (None, worker_env);
        }
        let pooler = Pooler::start(folder, url, env).await;
        env.extend(pooler.env(false));
        worker_env.extend(pooler.env(true));
        (Some(pooler), worker_env)
    }

    /// Starts PgBouncer in transaction mode between the processes and PostgreSQL. Only locks, migrations and commands
    /// reach PostgreSQL directly.
    #[must_use]
    pub fn pooler(mut self) -> Self {
        self.postgres_path = PostgresPath::Pooled;
        self
    }
}

impl Stack {
    /// The pooler, with [`Builder::pooler`].
    pub fn pooler(&mut self) -> &mut Pooler {
        self.pooler.as_mut().expect("Builder::pooler")
    }
}
