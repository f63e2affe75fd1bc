//! A TCP proxy in front of Redis or PostgreSQL, which can disconnect only the processes that use it.
//!
//! It has its own thread and runtime, so a test that blocks does not delay it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    thread::JoinHandle,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How the proxy treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards all bytes.
    Pass,
    /// Keeps connections open, accepts new ones and forwards no byte, like a cut cable.
    BlackHole,
    /// Closes all connections and each new one at once, like a crashed server.
    Refuse,
}

/// A running proxy; dropping it stops it.
#[derive(Debug)]
pub struct RedisProxy {
    port: u16,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
}

impl RedisProxy {
    /// Listens on a free port and forwards to `target`.
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

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the mode, for open connections too.
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
    // Without this, a reply could wait for the peer's delayed acknowledgement.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(client_read, server_write, modes.clone()) => {}
        () = pump(server_read, client_write, modes) => {}
    }
}

/// Copies in mode `Pass`, waits in mode `BlackHole` and ends in mode `Refuse`.
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
                // Bytes in flight were lost, so the connection cannot continue.
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
