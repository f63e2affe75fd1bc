//! Gives one process a small disk: a tmpfs in its own mount namespace, which needs no privilege.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::Spec, services::path_text};

/// Mounts a tmpfs and replaces the shell with the program, which keeps the process id.
const MOUNT: &str = "mount -t tmpfs -o \"size=$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"";

fn unshare(folder: &Path, size: &str) -> Vec<String> {
    let args = ["--user", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh", size];
    args.into_iter().map(ToOwned::to_owned).chain([path_text(folder)]).collect()
}

/// Changes `spec` so that its process finds a disk of `size` at `folder`.
pub(super) fn mount_for(spec: &mut Spec, folder: &Path, size: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut args = unshare(folder, size);
    let trial = Command::new("unshare").args(&args).arg("true").output();
    let trial = trial.expect("`unshare`, of util-linux");
    assert!(
        trial.status.success(),
        "this machine does not allow user and mount namespaces: {}",
        String::from_utf8_lossy(&trial.stderr)
    );
    args.push(path_text(&spec.program));
    args.append(&mut spec.args);
    spec.args = args;
    spec.program = PathBuf::from("unshare");
}
