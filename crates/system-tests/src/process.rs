//! Starts, signals and stops one child process, with its output in a file.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::{client, memory_group::MemoryGroup, metrics::Metrics};

/// Longest wait for a process to end after its stop signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The command, environment and files of a process.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name in messages.
    pub name: String,
    /// The path of the program.
    pub program: PathBuf,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Variables that are added to the caller's environment, without the caller's `LINNET_…` variables.
    pub env: BTreeMap<String, String>,
    /// The signal that starts a graceful shutdown.
    pub stop_signal: Signal,
    /// The file that receives standard output and standard error.
    pub log: PathBuf,
    /// The Unix socket of the admin listener, if the process has one.
    pub admin: Option<PathBuf>,
    /// The limit in bytes of the process's memory control group, if it has one.
    pub memory_limit: Option<u64>,
}

/// A child process, running or ended. Dropping it stops the process.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Option<Child>,
    // Dropped last: the group can be removed when the process has ended.
    memory_group: Option<MemoryGroup>,
}

impl Process {
    /// Starts a process.
    pub fn spawn(spec: Spec) -> Self {
        let memory_group = spec.memory_limit.map(MemoryGroup::create);
        let mut process = Self { spec, child: None, memory_group };
        process.start();
        process
    }

    /// Starts the process again after it has ended, and appends to its log.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} is already running", self.spec.name);
        let log =
            File::options().create(true).append(true).open(&self.spec.log).expect("a log file");
        let Spec { program, args, .. } = &self.spec;
        let (program, args) = match &self.memory_group {
            Some(group) => group.wrap(program, args),
            None => (program.clone(), args.clone()),
        };
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("LINNET_")) {
                command.env_remove(&name);
            }
        }
        let child = command
            .args(args)
            .envs(&self.spec.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.spec.program.display()));
        self.child = Some(child);
    }

    /// The process's name in messages.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The variables that are added to the environment.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.spec.env
    }

    /// Sets a variable for the next start.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.spec.env.insert(key.into(), value.into());
    }

    /// The process id while the process runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The process's memory control group, if it has one.
    pub fn memory_group(&self) -> Option<&MemoryGroup> {
        self.memory_group.as_ref()
    }

    /// The peak resident memory since the process started, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let pid = self.pid().expect("a running process");
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("a peak memory")
    }

    /// Whether the process has started and not ended.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none() && self.child.is_some()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("the state of a child")
    }

    /// Sends a signal if the process is running.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()))
        {
            // An error means that it ended in the meantime.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the process to end.
    pub async fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.try_wait() {
                self.child = None;
                return status;
            }
            assert!(self.child.is_some(), "{} was not running", self.spec.name);
            assert!(Instant::now() < end, "{} did not end within {deadline:?}", self.spec.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends the stop signal and waits for the process to end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(self.spec.stop_signal);
        self.wait_for_end(STOP_TIMEOUT).await
    }

    /// Sends `SIGKILL` and waits for the process to end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait_for_end(STOP_TIMEOUT).await;
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{} ended before it was killed",
            self.spec.name
        );
    }

    /// The output so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.spec.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The lines of the output that are JSON objects.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(serde_json::Value::is_object)
            .collect()
    }

    /// The last lines of the output, without nginx's repeated errors about a missing upstream socket.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let is_noise = |line: &&str| line.contains("failed (2: No such file or directory)");
        let all: Vec<&str> = log.lines().filter(|line| !is_noise(line)).collect();
        let from = all.len().saturating_sub(lines);
        all[from..].join("\n")
    }

    /// The file with the output.
    pub fn log_path(&self) -> &Path {
        &self.spec.log
    }

    /// Sends `GET` to the admin listener. Returns `None` if it does not respond.
    pub async fn admin_get(&self, path: &str) -> Option<client::Response> {
        client::get_unix(self.spec.admin.as_deref()?, path).await
    }

    /// Whether `/readyz` returns 200.
    pub async fn is_ready(&self) -> bool {
        self.admin_get("/readyz").await.is_some_and(|response| response.status == 200)
    }

    /// The process's metrics.
    pub async fn metrics(&self) -> Metrics {
        let response = self.admin_get("/metrics").await;
        let response = response.unwrap_or_else(|| panic!("{} has no metrics", self.spec.name));
        assert_eq!(response.status, 200);
        Metrics::parse(&response.text())
    }

    /// Sends the stop signal without waiting. [`Self::finish_stop`] waits; neither needs an async runtime.
    pub(crate) fn begin_stop(&mut self) {
        // A process stopped by `SIGSTOP` handles no other signal.
        self.signal(Signal::CONT);
        self.signal(self.spec.stop_signal);
    }

    /// Waits for the process to end and kills it at the deadline. Returns whether it was killed.
    pub(crate) fn finish_stop(&mut self, end: Instant) -> bool {
        while self.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let Some(mut child) = self.child.take() else { return false };
        let killed = child.try_wait().is_ok_and(|status| status.is_none());
        if killed {
            // An error means that it ended in the meantime.
            let _ = child.kill();
        }
        // Removes the zombie.
        let _ = child.wait();
        killed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.begin_stop();
        self.finish_stop(Instant::now() + Duration::from_secs(5));
    }
}
