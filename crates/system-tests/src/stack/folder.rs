//! The folder of a stack.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use crate::services::{path_text, workspace};

/// A folder that servers of other users can enter, with a path short enough for Unix sockets. As root, files in it belong
/// to nginx's group, so that its worker processes can connect to the sockets.
pub fn short_folder() -> TempDir {
    let parent = std::env::temp_dir();
    let parent = if parent.as_os_str().len() < 60 { parent } else { PathBuf::from("/tmp") };
    let folder = tempfile::Builder::new().prefix("lnt-").tempdir_in(parent).expect("a folder");
    let group = nginx_group();
    if let Some(group) = group {
        std::os::unix::fs::chown(folder.path(), None, Some(group)).expect("the folder's group");
    }
    let mode = if group.is_some() { 0o2711 } else { 0o711 };
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode))
        .expect("the folder's permissions");
    folder
}

/// The group of nginx's worker processes, if this process may give files to it.
fn nginx_group() -> Option<u32> {
    let script = ". \"$1/scripts/lib.sh\" && nginx_group";
    let output = std::process::Command::new("bash")
        .args(["-c", script, "bash", &path_text(&workspace())])
        .output()
        .expect("bash");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
