//! Describes shorteners, gateways and workers: program, variables, sockets.

use std::{collections::BTreeMap, path::Path};

use super::{
    redis_cluster::RedisCluster,
    redis_group::{MASTER_NAME, RedisGroup},
};
use crate::{
    certificates::Certificates,
    process::{Signal, Spec},
    services::{binary, path_text},
};

/// The variable of the directory of uploads.
pub(super) const UPLOAD_DIR: &str = "LINNET__JOBS__UPLOAD_DIR";

/// A kind of process. Each process of a kind has its own sockets, log and connection to Redis.
pub(super) struct Kind {
    name: &'static str,
    program: &'static str,
    command: &'static str,
    /// The user of Redis.
    pub(super) redis_role: &'static str,
    /// The variable of the admin listener and the prefix of its socket's name.
    admin: (&'static str, &'static str),
    /// Variables that differ between processes of the kind.
    env: fn(&Path, usize) -> Vec<(&'static str, String)>,
    /// Whether [`super::Builder::upload_disk`] applies.
    pub(super) has_upload_disk: bool,
}

pub(super) const SHORTENER: Kind = Kind {
    name: "linnet-shortener",
    program: "linnet-shortener",
    command: "serve",
    redis_role: "shortener",
    admin: ("LINNET__SHORTENER__ADMIN_LISTEN", "sa"),
    env: shortener_env,
    has_upload_disk: true,
};

pub(super) const GATEWAY: Kind = Kind {
    name: "linnet-gateway",
    program: "linnet-gateway",
    command: "serve",
    redis_role: "gateway",
    admin: ("LINNET__GATEWAY__ADMIN_LISTEN", "ga"),
    env: |folder, number| vec![("LINNET__GATEWAY__LISTEN", socket(folder, "g", number))],
    has_upload_disk: false,
};

pub(super) const WORKER: Kind = Kind {
    name: "linnet-worker",
    program: "linnet-shortener",
    command: "worker",
    redis_role: "worker",
    admin: ("LINNET__WORKER__ADMIN_LISTEN", "wa"),
    env: |_, _| Vec::new(),
    has_upload_disk: false,
};

/// Variables that differ between shorteners. Add a shortener's own files and folders here.
fn shortener_env(folder: &Path, number: usize) -> Vec<(&'static str, String)> {
    vec![
        ("LINNET__SHORTENER__RESOLVE_LISTEN", socket(folder, "r", number)),
        ("LINNET__SHORTENER__API_LISTEN", socket(folder, "a", number)),
    ]
}

impl Kind {
    /// How to start process `number` of the kind.
    pub(super) fn spec(
        &self,
        folder: &Path,
        number: usize,
        env: &BTreeMap<String, String>,
        redis_url: &str,
    ) -> Spec {
        let name = format!("{}-{number}", self.name);
        let (admin_variable, admin_prefix) = self.admin;
        let mut env = env.clone();
        env.insert("LINNET__REDIS__URL".into(), redis_url.to_owned());
        env.insert(admin_variable.into(), socket(folder, admin_prefix, number));
        env.extend(
            (self.env)(folder, number).into_iter().map(|(key, value)| (key.to_owned(), value)),
        );
        Spec {
            log: folder.join(format!("{name}.log")),
            name,
            program: binary(self.program),
            args: vec![self.command.into()],
            env,
            stop_signal: Signal::TERM,
            admin: Some(folder.join(format!("{admin_prefix}{number}"))),
            memory_limit: None,
        }
    }
}

/// The addresses of the listeners of `count` processes.
pub(super) fn sockets(folder: &Path, name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| socket(folder, name, number)).collect()
}

/// The address of one process's listener.
fn socket(folder: &Path, name: &str, number: usize) -> String {
    format!("unix:{}", path_text(&folder.join(format!("{name}{number}"))))
}

/// The URL of Redis without a password, which only the Redis of tests accepts.
pub(super) fn open_redis_url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

/// Where processes find Redis.
#[derive(Debug, Clone)]
pub(super) struct RedisAt {
    scheme: &'static str,
    /// The port of the server, or those of the sentinels or nodes.
    pub(super) ports: Vec<u16>,
    path: String,
}

impl RedisAt {
    pub(super) fn server(scheme: &'static str, port: u16) -> Self {
        Self { scheme, ports: vec![port], path: "0".into() }
    }

    /// The sentinels or nodes if there are some, else the server, by TLS if it has a port for that.
    pub(super) fn new(
        group: Option<&RedisGroup>,
        cluster: Option<&RedisCluster>,
        port: u16,
        tls_port: Option<u16>,
    ) -> Self {
        match (group, cluster, tls_port) {
            (Some(group), ..) => Self::sentinels(group),
            (None, Some(cluster), _) => {
                Self { scheme: "redis+cluster", ports: cluster.ports(), path: String::new() }
            }
            (None, None, Some(port)) => Self::server("rediss", port),
            (None, None, None) => Self::server("redis", port),
        }
    }

    fn sentinels(group: &RedisGroup) -> Self {
        let ports = group.sentinels.iter().map(|(_, port)| *port).collect();
        Self { scheme: "redis+sentinel", ports, path: format!("{MASTER_NAME}/0") }
    }

    /// The URL for a role of `scripts/redis-acl.sh`.
    pub(super) fn url(&self, folder: &Path, role: &str) -> String {
        let file = folder.join("redis").join(format!("{role}-password"));
        let password =
            std::fs::read_to_string(&file).expect("the password that `scripts/service` wrote");
        let hosts: Vec<String> =
            self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("{}://{role}:{password}@{}/{}", self.scheme, hosts.join(","), self.path)
    }
}

/// The variables for both stores with their CA, and for the folders of files.
pub(super) fn insert_stores(
    env: &mut BTreeMap<String, String>,
    folder: &Path,
    database_url: &str,
    redis_at: &RedisAt,
    tls: Option<&Certificates>,
) {
    // For the command line. `Kind::spec` sets another URL for each process.
    env.insert("LINNET__REDIS__URL".into(), redis_at.url(folder, SHORTENER.redis_role));
    // Each process creates its own folder in the spool folder.
    env.insert("LINNET__CLICKS__SPOOL_DIR".into(), path_text(&folder.join("spool")));
    env.insert(UPLOAD_DIR.into(), path_text(&folder.join("uploads")));
    let mode = if tls.is_some() { "?sslmode=verify-full" } else { "" };
    env.insert("LINNET__POSTGRES__URL".into(), format!("{database_url}{mode}"));
    if let Some(tls) = tls {
        env.insert("LINNET__POSTGRES__CA_FILE".into(), tls.ca_file());
        env.insert("LINNET__REDIS__CA_FILE".into(), tls.ca_file());
    }
}
