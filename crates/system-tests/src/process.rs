//! One child process: started, signalled and ended by its pid, with its output in a file.

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

use crate::{client, metrics::Metrics};

/// How long a process may take to end when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What to call it in messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment, from which every `LINNET_…` variable of the caller is removed.
    pub env: BTreeMap<String, String>,
    /// What asks it to stop.
    pub stop_signal: Signal,
    /// Where its output goes.
    pub log: PathBuf,
    /// The unix socket of its admin listener, if it has one.
    pub admin: Option<PathBuf>,
}

/// A process that runs, or ran.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Option<Child>,
}

impl Process {
    /// Starts it.
    pub fn spawn(spec: Spec) -> Self {
        let mut process = Self { spec, child: None };
        process.start();
        process
    }

    /// Starts it again after it ended. Its log goes on where it was.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.spec.name);
        let log =
            File::options().create(true).append(true).open(&self.spec.log).expect("a log file");
        let mut command = Command::new(&self.spec.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("LINNET_")) {
                command.env_remove(&name);
            }
        }
        let child = command
            .args(&self.spec.args)
            .envs(&self.spec.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.spec.program.display()));
        self.child = Some(child);
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What is added to its environment.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.spec.env
    }

    /// Changes its environment for the next start.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.spec.env.insert(key.into(), value.into());
    }

    /// Its pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The most memory that it has held at a time since it started, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let pid = self.pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("a peak of memory")
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none() && self.child.is_some()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("the state of a child")
    }

    /// Sends a signal, if it runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()))
        {
            // It may end in between.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
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

    /// Asks it to stop and waits for its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(self.spec.stop_signal);
        self.ended(STOP_WITHIN).await
    }

    /// `SIGKILL`, and waits for its end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.ended(STOP_WITHIN).await;
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{} ended first", self.spec.name);
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.spec.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The lines of its output that are JSON objects.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(serde_json::Value::is_object)
            .collect()
    }

    /// The last lines of its output, without nginx's many words about one upstream that is gone.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let is_noise = |line: &&str| line.contains("failed (2: No such file or directory)");
        let all: Vec<&str> = log.lines().filter(|line| !is_noise(line)).collect();
        let from = all.len().saturating_sub(lines);
        all[from..].join("\n")
    }

    /// The file with its output.
    pub fn log_path(&self) -> &Path {
        &self.spec.log
    }

    /// A GET on its admin listener; `None` when nobody answers.
    pub async fn admin_get(&self, path: &str) -> Option<client::Answer> {
        client::get_unix(self.spec.admin.as_deref()?, path).await
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        self.admin_get("/readyz").await.is_some_and(|answer| answer.status == 200)
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics").await;
        let answer = answer.unwrap_or_else(|| panic!("{} has no metrics", self.spec.name));
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.text())
    }

    /// Asks it to stop without waiting; the first half of an end without an async runtime.
    pub(crate) fn begin_end(&mut self) {
        // A stopped process takes no other signal.
        self.signal(Signal::CONT);
        self.signal(self.spec.stop_signal);
    }

    /// Waits for the end, and kills what is left at the deadline. Returns whether it had to.
    pub(crate) fn finish_end(&mut self, end: Instant) -> bool {
        while self.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let Some(mut child) = self.child.take() else { return false };
        let killed = child.try_wait().is_ok_and(|status| status.is_none());
        if killed {
            // It may end in between.
            let _ = child.kill();
        }
        // Reaps it.
        let _ = child.wait();
        killed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.begin_end();
        self.finish_end(Instant::now() + Duration::from_secs(5));
    }
}
