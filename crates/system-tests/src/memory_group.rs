//! Runs a process in a memory control group of its own, like a container with `mem_limit`.
//!
//! * Control groups of version 2 are used where they have the memory controller, otherwise version 1. Both need root.
//! * The limit holds for the process and its children together, with the kernel's memory for them, and without swap.
//! * A process that exceeds it is killed by the kernel, which [`MemoryGroup::oom_kills`] counts.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Enters the group and replaces the shell with the program, which keeps the process id.
const ENTER: &str = "echo $$ > \"$1\" && shift && exec \"$@\"";

/// With the value `yes`, tests that need memory control groups are skipped where root cannot create one.
const SKIP_VARIABLE: &str = "LINNET_SKIP_MEMORY_TESTS";

/// The files of a version of control groups.
#[derive(Debug, Clone, Copy)]
struct Version {
    parent: &'static str,
    /// A file of the parent that names the memory controller.
    controllers: &'static str,
    /// The limit.
    limit: &'static str,
    /// The limit with swap, which is the same number in version 1, and 0 in version 2. Kernels without swap lack it.
    swap: (&'static str, Option<u64>),
    current: &'static str,
    peak: &'static str,
    /// A list of counters, with `oom_kill`.
    events: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        parent: "/sys/fs/cgroup",
        controllers: "cgroup.controllers",
        limit: "memory.max",
        swap: ("memory.swap.max", Some(0)),
        current: "memory.current",
        peak: "memory.peak",
        events: "memory.events",
    },
    Version {
        parent: "/sys/fs/cgroup/memory",
        controllers: "memory.stat",
        limit: "memory.limit_in_bytes",
        swap: ("memory.memsw.limit_in_bytes", None),
        current: "memory.usage_in_bytes",
        peak: "memory.max_usage_in_bytes",
        events: "memory.oom_control",
    },
];

/// A memory control group. Dropping it removes it, once its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    version: Version,
    limit: u64,
}

impl MemoryGroup {
    /// Whether this machine lets this user create groups. Prints the reason if not, for tests that then do nothing.
    pub fn is_available() -> bool {
        match Self::try_create(1 << 30) {
            Ok(_) => true,
            Err(error) => {
                let reason = format!("no memory control group can be created: {error}");
                // A test that is skipped looks like one that passes, so root must ask for that.
                let is_allowed =
                    std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "yes");
                assert!(
                    is_allowed || !rustix::process::geteuid().is_root(),
                    "{reason}; {SKIP_VARIABLE}=yes skips these tests"
                );
                eprintln!("SKIPPED: {reason}");
                false
            }
        }
    }

    /// Creates a group with a limit in bytes.
    pub fn create(limit: u64) -> Self {
        Self::try_create(limit).expect("a memory control group; check `is_available` first")
    }

    fn try_create(limit: u64) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for version in VERSIONS {
            let parent = Path::new(version.parent);
            // The folder can be the root of both versions, where new files would be ordinary files.
            let controllers = fs::read_to_string(parent.join(version.controllers));
            let has_memory = match version.controllers {
                "cgroup.controllers" => controllers.is_ok_and(|names| names.contains("memory")),
                _ => controllers.is_ok(),
            };
            if !has_memory {
                continue;
            }
            // In version 2, children have only the controllers that their parent passes on.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            let folder = parent.join(format!("linnet-test-{:016x}", rand::random::<u64>()));
            if let Err(error) = fs::create_dir(&folder) {
                last = error;
                continue;
            }
            let group = Self { folder, version, limit };
            match group.set_limit(limit) {
                Ok(()) => return Ok(group),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn set_limit(&self, bytes: u64) -> io::Result<()> {
        self.write(self.version.limit, bytes)?;
        let (swap, value) = self.version.swap;
        if self.folder.join(swap).exists() {
            self.write(swap, value.unwrap_or(bytes))?;
        }
        Ok(())
    }

    /// Writes to a file that the kernel has made.
    fn write(&self, file: &str, bytes: u64) -> io::Result<()> {
        let path = self.folder.join(file);
        fs::File::options().write(true).open(path)?.write_all(bytes.to_string().as_bytes())
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The program and arguments that run `program` in this group, with the same process id.
    pub fn wrap(&self, program: &Path, args: &[String]) -> (PathBuf, Vec<String>) {
        let procs = self.folder.join("cgroup.procs").display().to_string();
        let start = [
            "-c".to_owned(),
            ENTER.to_owned(),
            "sh".to_owned(),
            procs,
            program.display().to_string(),
        ];
        ("sh".into(), start.into_iter().chain(args.iter().cloned()).collect())
    }

    /// The bytes in use now, with page cache and the kernel's memory.
    pub fn current_bytes(&self) -> u64 {
        self.number(self.version.current)
    }

    /// The peak of the bytes in use.
    pub fn peak_bytes(&self) -> u64 {
        self.number(self.version.peak)
    }

    /// How many processes the kernel has killed because of the limit.
    pub fn oom_kills(&self) -> u64 {
        let events = self.read(self.version.events);
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).expect("a number of killed processes")
    }

    /// The ids of the group's processes.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.read("cgroup.procs").lines().filter_map(|line| line.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    fn number(&self, file: &str) -> u64 {
        self.read(file).trim().parse().unwrap_or_else(|_| panic!("{file} is not a number"))
    }

    fn read(&self, file: &str) -> String {
        let path = self.folder.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Children of a killed process may outlive it. Nothing in the group may remain, or it could not be removed.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            for pid in self.pids() {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.folder.display());
    }
}
