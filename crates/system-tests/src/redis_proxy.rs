//! A TCP proxy between one process and Redis, so that one process alone can lose its Redis.
//!
//! It has a thread and a runtime of its own: whatever the test does, it goes on.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    thread::JoinHandle,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Keeps connections open, takes new ones, and moves no byte: what a cut cable looks like.
    BlackHole,
    /// Ends every connection and each new one at once: what a dead server looks like.
    Refuse,
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct RedisProxy {
    port: u16,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
}

impl RedisProxy {
    /// Listens on a free port and passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("the port").port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(accept(listener, target, modes));
        });
        Self { port, mode, thread: Some(thread) }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, for running connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for RedisProxy {
    fn drop(&mut self) {
        // The closed channel ends the thread.
        self.mode = watch::channel(Mode::Pass).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let new_modes = modes.clone();
    loop {
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if *modes.borrow() != Mode::Refuse {
                    tokio::spawn(serve(client, target, new_modes.clone()));
                }
            }
        }
    }
}

async fn serve(client: TcpStream, target: SocketAddr, modes: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without this a reply could wait for the peer's delayed acknowledgement.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(client_read, server_write, modes.clone()) => {}
        () = pump(server_read, client_write, modes) => {}
    }
}

/// Copies while the mode is `Pass`, waits while it is `BlackHole`, ends when it is `Refuse`.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Refuse => return,
            Mode::BlackHole => {
                if modes.changed().await.is_err() {
                    return;
                }
                // What was under way when the cable was cut is lost with its connection.
                if *modes.borrow() == Mode::Pass {
                    return;
                }
            }
            Mode::Pass => tokio::select! {
                changed = modes.changed() => if changed.is_err() { return },
                read = from.read(&mut buffer) => {
                    let Ok(count @ 1..) = read else { return };
                    if *modes.borrow() == Mode::Pass && to.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}
