//! Starts a stack, prints its addresses as one line of JSON and stops it when standard input ends.
//!
//! `linnet-stack [--shorteners N] [--gateways N] [--workers N] [LINNET__SECTION__KEY=VALUE …]`

use linnet_system_tests::{Stack, stack::describe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() {
    let mut builder = Stack::builder();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number");
        builder = match arg.as_str() {
            "--shorteners" => builder.shorteners(number()),
            "--gateways" => builder.gateways(number()),
            "--workers" => builder.workers(number()),
            pair => {
                let (key, value) = pair.split_once('=').expect("KEY=VALUE");
                builder.env(key, value)
            }
        };
    }
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a signal handler");
    let stack = builder.start().await;
    let mut out = tokio::io::stdout();
    out.write_all(format!("{}\n", describe(&stack)).as_bytes()).await.expect("standard output");
    out.flush().await.expect("standard output");
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            read = input.read(&mut buffer) => if !matches!(read, Ok(1..)) { break },
        }
    }
    drop(stack);
    // Returning would wait for the thread that reads standard input.
    std::process::exit(0);
}
