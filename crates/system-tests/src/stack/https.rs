//! An nginx with TLS before the processes of a stack, beside its nginx without TLS.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::{Stack, containers::CONTAINER_NGINX_TLS, kind::sockets};
use crate::{
    certificates::Certificates,
    https,
    process::Process,
    services::{self, free_port, local, path_text},
    within,
};

/// An nginx with TLS. Dropping it stops it.
#[derive(Debug)]
pub struct HttpsServer {
    /// nginx.
    pub nginx: Process,
    /// The address for HTTPS.
    pub address: SocketAddr,
    /// The address of the server that redirects HTTP.
    pub plain: SocketAddr,
}

impl Stack {
    /// Starts an nginx with TLS and these variables. If the stack runs with the memory limits of the containers, it has
    /// nginx's limit and the settings of `deploy/compose.tls.yaml`.
    pub async fn start_https(&self, env: &[(&str, &str)]) -> HttpsServer {
        let folder = self.folder().join("https");
        let certificates = Certificates::create(folder.join("live"));
        for (from, to) in [("server.crt", "cert.pem"), ("server.key", "key.pem")] {
            let to = certificates.folder().join(to);
            fs::copy(certificates.folder().join(from), &to).expect("a copy");
            // nginx's worker processes read it at each handshake.
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).expect("permissions");
        }
        for folder in [&folder, certificates.folder()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("permissions");
        }
        let limit = self.nginx.memory_group().map(crate::MemoryGroup::limit);
        let address = local(free_port());
        let mut all = BTreeMap::new();
        if limit.is_some() {
            all.extend(self.nginx.env().clone());
            all.extend(CONTAINER_NGINX_TLS.iter().map(|(key, value)| (*key, *value)).map(owned));
        }
        let live = path_text(certificates.folder());
        all.extend(
            [
                ("LINNET__PUBLIC__BASE_URL", super::BASE_URL),
                ("LINNET_NGINX_TLS", "on"),
                ("LINNET_NGINX_TLS_LISTEN", &address.to_string()),
                ("LINNET_NGINX_CERTIFICATE", &live),
            ]
            .map(owned),
        );
        all.extend(env.iter().copied().map(owned));
        let resolve = sockets(self.folder(), "r", self.shorteners.len());
        let gateways = sockets(self.folder(), "g", self.gateways.len());
        all.remove("LINNET_NGINX_LISTEN");
        let plain = free_port();
        let nginx = services::nginx(&folder, plain, &resolve, &gateways, &all, limit);
        within(super::START_TIMEOUT, "nginx with TLS", || async {
            https::connect(address, "localhost", &[]).await.is_ok()
        })
        .await;
        HttpsServer { nginx, address, plain: local(plain) }
    }
}

impl HttpsServer {
    /// The bytes of request bodies that nginx has in files. It deletes their names at once, so the files are found among
    /// those that its processes have open.
    pub fn stored_body_bytes(&self) -> u64 {
        let mut pids: Vec<u32> = self.nginx.pid().into_iter().collect();
        let mut bytes = 0;
        while let Some(pid) = pids.pop() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            pids.extend(
                children.unwrap_or_default().split(' ').filter_map(|pid| pid.parse::<u32>().ok()),
            );
            bytes += open_body_bytes(Path::new(&format!("/proc/{pid}/fd")));
        }
        bytes
    }
}

fn open_body_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let bodies = files
        .filter(|file| fs::read_link(file).is_ok_and(|to| to.to_string_lossy().contains("/body/")));
    bodies.filter_map(|file| fs::metadata(file).ok()).map(|file| file.size()).sum()
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}
