//! Reads the memory limit of this process's control group.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The lowest memory limit, in bytes, of this process's control group and the groups that contain it. `None` without a
/// limit, or where it cannot be read.
pub fn control_group_limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// The same for a file system whose root is `root`.
fn limit_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    // Version 2 has one line with an empty list of controllers. Version 1 has a line for each hierarchy. A machine can
    // have both; the memory controller is in one of them.
    groups
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            if controllers.is_empty() {
                lowest(&root.join("sys/fs/cgroup"), path, "memory.max")
            } else if controllers.split(',').any(|name| name == "memory") {
                lowest(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
            } else {
                None
            }
        })
        .min()
}

/// The lowest number in `file` of the group and of its parents. In a container, `path` can be the group's path on the
/// host. Then only the root of the mount exists, and it is the container's group.
fn lowest(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let mut folders: Vec<PathBuf> = vec![mount.to_owned()];
    for name in path.split('/').filter(|name| !name.is_empty() && *name != "..") {
        let below = folders.last().map(|folder| folder.join(name));
        folders.extend(below);
    }
    let limits = folders.iter().filter_map(|folder| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        // Without a limit, version 2 has `max` and version 1 a number near 2^63.
        text.trim().parse::<u64>().ok().filter(|bytes| *bytes < u64::MAX / 4)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[track_caller]
    fn limit_is(files: &[(&str, &str)], limit: Option<u64>) {
        assert_eq!(limit_below(machine(files).path()), limit);
    }

    #[test]
    fn lowest_limit_of_a_group_and_its_parents_counts() {
        let group = ("proc/self/cgroup", "0::/system.slice/linnet.service\n");
        let own = "sys/fs/cgroup/system.slice/linnet.service/memory.max";
        let parent = "sys/fs/cgroup/system.slice/memory.max";
        limit_is(&[group, (own, "96\n"), (parent, "200\n")], Some(96));
        limit_is(&[group, (own, "96\n"), (parent, "50\n")], Some(50));
        limit_is(&[group, (own, "max\n"), (parent, "50\n")], Some(50));
        limit_is(&[group, (own, "max\n"), (parent, "max\n")], None);
    }

    #[test]
    fn container_finds_its_limit_at_the_root_of_the_mount() {
        let max = ("sys/fs/cgroup/memory.max", "96\n");
        limit_is(&[("proc/self/cgroup", "0::/\n"), max], Some(96));
        limit_is(&[("proc/self/cgroup", "0::/../../a.slice\n"), max], Some(96));
    }

    #[test]
    fn version_1_is_read_where_it_has_the_memory_controller() {
        let group = ("proc/self/cgroup", "5:cpu:/\n4:memory:/docker/a\n0::/\n");
        let own = "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes";
        limit_is(&[group, (own, "96\n")], Some(96));
        limit_is(&[group, (own, "9223372036854771712\n")], None);
        // In the container, the mount is the group itself.
        limit_is(&[group, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "96\n")], Some(96));
    }

    #[test]
    fn machine_without_control_groups_has_no_limit() {
        limit_is(&[], None);
        limit_is(&[("proc/self/cgroup", "0::/a\n")], None);
    }
}
