//! `linnet-bench`: data and load for `make bench`. Results go to stdout as one JSON object.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, Subcommand};
use linnet_bench::{
    links::{self, MAX_LINKS},
    load::{CodeList, Pace, pace, replay},
    zipf::Zipf,
};
use linnet_platform::listener::Address;
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Data and load for `make bench`")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the rows of links, for `COPY urls (short_code, original_url, clicks)`, to stdout.
    Rows {
        /// How many, up to 4,000,000.
        #[arg(long)]
        links: u32,
    },
    /// Write every code once, the most popular first.
    Codes {
        /// How many links.
        #[arg(long)]
        links: u32,
        /// The list's file.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write codes drawn from Zipf's law with exponent 1.
    Draw {
        /// Over how many links.
        #[arg(long)]
        links: u32,
        /// How many draws.
        #[arg(long)]
        draws: u32,
        /// The same seed gives the same list.
        #[arg(long)]
        seed: u64,
        /// The list's file.
        #[arg(long)]
        out: PathBuf,
    },
    /// Send each code of a list exactly once.
    Replay {
        /// `host:port` or `unix:/path`.
        #[arg(long)]
        address: Address,
        /// The list's file.
        #[arg(long)]
        list: PathBuf,
        /// Connections, each with a thread.
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// Send requests at a fixed rate and give the latencies.
    Pace {
        /// `host:port` or `unix:/path`.
        #[arg(long)]
        address: Address,
        /// The list's file.
        #[arg(long)]
        list: PathBuf,
        /// Requests a second.
        #[arg(long)]
        rate: f64,
        /// For how long, in seconds.
        #[arg(long)]
        seconds: f64,
        /// How much of that is not counted, in seconds.
        #[arg(long, default_value_t = 1.0)]
        warm_up: f64,
        /// Connections, each with a thread.
        #[arg(long, default_value_t = 64)]
        connections: u32,
    },
}

#[derive(Serialize)]
struct Drawn {
    draws: u32,
    distinct: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A sleep ends up to this much late; 50 µs by default. Threads inherit it. Where it can't be set,
    // latencies are a little longer, for everyone alike.
    let _ = fs::write("/proc/self/timerslack_ns", "1000");
    match Arguments::parse().command {
        Command::Rows { links } => {
            links::write_rows(checked(links)?, BufWriter::new(io::stdout().lock()))?;
        }
        Command::Codes { links, out } => {
            let mut file = BufWriter::new(File::create(out)?);
            for rank in 0..checked(links)? {
                writeln!(file, "{}", links::code_text(rank))?;
            }
            file.flush()?;
        }
        Command::Draw { links, draws, seed, out } => {
            checked(links)?;
            let mut file = BufWriter::new(File::create(out)?);
            let mut zipf = Zipf::new(links, seed);
            let mut seen = HashSet::new();
            for _ in 0..draws {
                let rank = zipf.draw();
                seen.insert(rank);
                writeln!(file, "{}", links::code_text(rank))?;
            }
            file.flush()?;
            print(&Drawn { draws, distinct: seen.len() })?;
        }
        Command::Replay { address, list, connections } => {
            print(&replay(&address, &CodeList::read(&list)?, connections, true))?;
        }
        Command::Pace { address, list, rate, seconds, warm_up, connections } => {
            if !(rate > 0.0 && rate.is_finite()) {
                return Err("the rate must be above 0".into());
            }
            let what = Pace {
                rate,
                duration: Duration::try_from_secs_f64(seconds)?,
                warm_up: Duration::try_from_secs_f64(warm_up)?,
                connections,
            };
            print(&pace(&address, &CodeList::read(&list)?, what)?)?;
        }
    }
    Ok(())
}

fn checked(links: u32) -> Result<u64, String> {
    let links = u64::from(links);
    if (1..=MAX_LINKS).contains(&links) {
        Ok(links)
    } else {
        Err(format!("the number of links must be 1 to {MAX_LINKS}"))
    }
}

fn print(report: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)
}
