//! Writes log lines to standard output from a thread of its own, behind a bounded queue.
//!
//! When the log reader stops, the pipe fills, and a write to a full pipe blocks. Requests must not block.
//!
//! Invariants:
//! - Logging never blocks: a line that finds the queue full is dropped.
//! - A line is written whole or not at all, and each thread's lines stay in order.
//! - Every line that is not written is counted.
//!
//! `docs/adr/024-own-log-writer.md` has the measurements behind this module.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that the queue holds: a few megabytes, at some hundred bytes each.
pub const QUEUE_LINES: usize = 4096;

/// Bytes after which a write starts without waiting for more lines.
const WRITE_BYTES: usize = 64 * 1024;

/// Pause after a write, in which lines gather for the next one. Without it each line wakes the thread, which costs the
/// process several times as much as formatting the line.
const GATHER: Duration = Duration::from_millis(10);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The end of the queue that the subscriber writes to.
#[derive(Clone)]
pub(crate) struct LogWriter {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The end of the queue that flushes it at shutdown.
pub(crate) struct LogWriterHandle {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread that writes to `out`.
    pub(crate) fn start(
        out: impl Write + Send + 'static,
    ) -> Result<(Self, LogWriterHandle), io::Error> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || write_lines(&lines, out, &counter))?;
        let handle = LogWriterHandle { queue: queue.clone(), dropped: Arc::clone(&dropped) };
        Ok((Self { queue, dropped }, handle))
    }
}

impl LogWriterHandle {
    /// The number of dropped lines, for a metric.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until all earlier lines are written, for at most `timeout`. Returns whether they are.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let (done, written) = sync_channel(1);
        self.queue.try_send(Message::Flush(done)).is_ok() && written.recv_timeout(timeout).is_ok()
    }
}

fn write_lines(queue: &Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    let mut batch = Vec::with_capacity(WRITE_BYTES);
    while let Ok(first) = queue.recv() {
        let mut lines = 0;
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Message::Flush(done) => flushed.push(done),
            }
            if batch.len() >= WRITE_BYTES {
                break;
            }
            next = queue.try_recv().ok();
        }
        // Standard output may be closed. Reading continues, which keeps the queue empty and the count correct.
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            dropped.fetch_add(lines, Ordering::Relaxed);
        }
        let is_full = batch.len() >= WRITE_BYTES;
        batch.clear();
        for done in flushed {
            // The caller may have timed out.
            let _ = done.try_send(());
        }
        if !is_full {
            thread::sleep(GATHER);
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flush_returns_when_every_line_is_written_in_order() {
        let out = Shared::default();
        let (mut writer, handle) = LogWriter::start(out.clone()).unwrap();
        let mut expected = Vec::new();
        for number in 0..QUEUE_LINES / 2 {
            let line = format!("line {number}\n");
            expected.extend_from_slice(line.as_bytes());
            writer.write_all(line.as_bytes()).unwrap();
        }
        assert!(handle.flush(Duration::from_secs(10)));
        assert!(*out.0.lock().unwrap() == expected);
        assert_eq!(handle.dropped().load(Ordering::Relaxed), 0);
    }

    /// Blocks until it is released, like a pipe whose reader does not read.
    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_drops_lines_and_never_blocks_logging() {
        let (release, blocked) = mpsc::channel();
        let (mut writer, handle) = LogWriter::start(Blocked(blocked)).unwrap();
        // More lines than the queue and one write hold together.
        let sent = QUEUE_LINES * 2;
        let line = [b'x'; 1024];
        for _ in 0..sent {
            writer.write_all(&line).unwrap();
        }
        let dropped = usize::try_from(handle.dropped().load(Ordering::Relaxed)).unwrap();
        assert!(dropped > 0 && dropped < sent, "{dropped} of {sent} dropped");
        drop(release);
    }
}
