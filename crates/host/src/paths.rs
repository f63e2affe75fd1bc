//! Where files are on the server. `deploy/host/init.sh` creates the folders.

/// Domain, e-mail address and registry: [`crate::config::HostConfig`].
pub const CONFIG: &str = "/etc/linnet/host.json";
/// Secrets of the containers, made on the server.
pub const SECRETS: &str = "/etc/linnet/secrets";
/// The operator's settings.
pub const SETTINGS: &str = "/etc/linnet/linnet.env";
/// Releases: the unpacked bundle of each.
pub const RELEASES: &str = "/opt/linnet/releases";
/// Has the links `current` and `previous` to the folders of the release that serves and of the one before it.
pub const LINKS: &str = "/opt/linnet";
/// Records of deployments.
pub const RECORDS: &str = "/var/lib/linnet/releases";
/// State of the installation, and the variables of Compose.
pub const STATE: &str = "/var/lib/linnet/state";
/// Metrics that node-exporter reads.
pub const METRICS: &str = "/var/lib/linnet/metrics";
/// Fluent Bit's socket, to which Docker sends logs. It must not move with a release.
pub const LOGS: &str = "/var/lib/linnet/logs";
/// The unit of a deployment. Its name is the lock.
pub const UNIT: &str = "linnet-deploy";
/// The installed program.
pub const PROGRAM: &str = "/usr/local/sbin/linnet-host";
/// The program that prepares a server, and compares it with what it prepared.
pub const INIT: &str = "/usr/local/sbin/linnet-init";
