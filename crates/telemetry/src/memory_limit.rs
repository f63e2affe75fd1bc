//! The memory limit of this process's control group.
//!
//! A group is limited by its own value and by those of all groups above it, so the smallest counts. Inside a container
//! the mount shows the container's own group as the root.

use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// Version 1 reports "no limit" as the largest multiple of a page.
const UNLIMITED: u64 = 1 << 60;

/// The limit of the control group of this process, in bytes. `None` without a limit or without control groups.
pub(crate) fn memory_limit_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    smallest_limit(Path::new(MOUNT), &groups)
}

/// The smallest limit of the groups in `groups` (the text of `/proc/self/cgroup`) and of those above them.
fn smallest_limit(mount: &Path, groups: &str) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of(mount, line)).min()
}

fn limit_of(mount: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    let (root, file) = if controllers.is_empty() {
        (mount.to_owned(), "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (mount.join("memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    let own: PathBuf = root.join(group.trim_start_matches('/'));
    own.ancestors()
        .take_while(|folder| folder.starts_with(&root))
        .filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .filter(|bytes| (1..UNLIMITED).contains(bytes))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mount: &Path, file: &str, text: &str) {
        let path = mount.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_smallest_limit_of_the_group_and_its_parents_counts() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "linnet.slice/memory.max", "52428800\n");
        write(mount.path(), "linnet.slice/gateway/memory.max", "max\n");
        let limit = |groups| smallest_limit(mount.path(), groups);
        assert_eq!(limit("0::/linnet.slice/gateway\n"), Some(52_428_800));
        write(mount.path(), "linnet.slice/gateway/memory.max", "10485760\n");
        assert_eq!(limit("0::/linnet.slice/gateway\n"), Some(10_485_760));
        assert_eq!(limit("0::/elsewhere\n"), None);
    }

    #[test]
    fn version_1_has_a_number_for_no_limit() {
        let mount = tempfile::tempdir().unwrap();
        let groups = "9:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n";
        write(mount.path(), "memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(smallest_limit(mount.path(), groups), None);
        // In a container the path of the host does not exist, and the mount's root is the container's group.
        write(mount.path(), "memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(smallest_limit(mount.path(), "4:memory:/not/visible\n"), Some(67_108_864));
    }
}
