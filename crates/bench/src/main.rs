//! `linnet-bench`: writes data and generates load for `make bench`. A load's result is one JSON object on stdout.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, Subcommand};
use linnet_bench::{
    code_list::CodeList,
    links::{self, MAX_LINKS},
    model::{
        document,
        inputs::Inputs,
        measured::Measured,
        sections::sections,
        validation::{Comparison, compare},
    },
    pace::{PaceSettings, pace},
    replay::replay,
    zipf::RankSampler,
};
use linnet_platform::listener::Address;
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Writes data and generates load for `make bench`")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write rows for `COPY urls (short_code, original_url, clicks)` to stdout.
    Rows {
        /// Number of links, up to 4,000,000.
        #[arg(long)]
        links: u32,
    },
    /// Write every code once, the most popular first.
    Codes {
        /// Number of links.
        #[arg(long)]
        links: u32,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write codes drawn from Zipf's law with exponent 1.
    Draw {
        /// Number of links to draw from.
        #[arg(long)]
        links: u32,
        /// Number of draws.
        #[arg(long)]
        draws: u32,
        /// Seed; the same seed gives the same list.
        #[arg(long)]
        seed: u64,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Send each code of a list exactly once and check each target.
    Replay {
        /// `host:port` or `unix:/path`.
        #[arg(long)]
        address: Address,
        /// File with the codes.
        #[arg(long)]
        list: PathBuf,
        /// Number of connections, each with its own thread.
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// Send requests at a fixed rate and report their latencies.
    Pace {
        /// `host:port` or `unix:/path`.
        #[arg(long)]
        address: Address,
        /// File with the codes.
        #[arg(long)]
        list: PathBuf,
        /// Requests a second.
        #[arg(long)]
        rate: f64,
        /// Duration in seconds, with the warm-up.
        #[arg(long)]
        seconds: f64,
        /// Start of the run that is not measured, in seconds.
        #[arg(long, default_value_t = 1.0)]
        warm_up: f64,
        /// Number of connections; one thread serves all.
        #[arg(long, default_value_t = 64)]
        connections: u32,
    },
    /// Compute the tables of docs/SCALE.md: hit ratios, nodes, load and money from measured costs.
    Model {
        /// File with other inputs than crates/bench/scale.json.
        #[arg(long)]
        inputs: Option<PathBuf>,
        /// Results of `make bench ONLY=cost` (target/bench/latest.json) to use instead of crates/bench/measured.json. With
        /// `--write`, they replace it.
        #[arg(long, requires = "measured_on")]
        figures: Option<PathBuf>,
        /// When, where and under which load these results were measured.
        #[arg(long, requires = "figures")]
        measured_on: Option<String>,
        /// Write the tables into the document instead of stdout.
        #[arg(long)]
        write: bool,
        /// Fail if the document's tables are not these.
        #[arg(long, conflicts_with = "write")]
        check: bool,
        /// The document.
        #[arg(long, default_value = "docs/SCALE.md")]
        document: PathBuf,
    },
}

#[derive(Serialize)]
struct DrawReport {
    draws: u32,
    /// Number of distinct codes.
    distinct: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Limits how late a sleep may end to 1 µs; the default is 50 µs. Threads inherit the limit. If the write fails,
    // latencies are slightly longer on all sides of a comparison.
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
            let mut sampler = RankSampler::new(links, seed)?;
            let mut distinct = HashSet::new();
            for _ in 0..draws {
                let rank = sampler.draw();
                distinct.insert(rank);
                writeln!(file, "{}", links::code_text(rank))?;
            }
            file.flush()?;
            print(&DrawReport { draws, distinct: distinct.len() })?;
        }
        Command::Replay { address, list, connections } => {
            print(&replay(&address, &CodeList::read(&list)?, connections))?;
        }
        Command::Pace { address, list, rate, seconds, warm_up, connections } => {
            if !(rate > 0.0 && rate.is_finite()) {
                return Err("the rate must be a number above 0".into());
            }
            let settings = PaceSettings {
                rate,
                duration: Duration::try_from_secs_f64(seconds)?,
                warm_up: Duration::try_from_secs_f64(warm_up)?,
                connections,
            };
            print(&pace(&address, &CodeList::read(&list)?, settings)?)?;
        }
        Command::Model { inputs, figures, measured_on, write, check, document } => {
            let measured = figures.zip(measured_on).map(read_figures).transpose()?;
            let inputs = read_inputs(inputs, measured.clone())?;
            if check {
                document::check(&document, &inputs)?;
            } else if write {
                write_model(&document, &inputs, measured.as_ref())?;
            } else {
                print_tables(&inputs)?;
            }
        }
    }
    Ok(())
}

/// Writes new figures, if there are any, and the tables.
fn write_model(
    document: &Path,
    inputs: &Inputs,
    measured: Option<&Measured>,
) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(measured) = measured {
        let text = serde_json::to_string_pretty(measured)? + "\n";
        fs::write("crates/bench/measured.json", text)?;
    }
    document::write(document, inputs)?;
    Ok(print_predictions(inputs)?)
}

fn read_figures(
    (file, measured_on): (PathBuf, String),
) -> Result<Measured, Box<dyn std::error::Error>> {
    Ok(Measured::from_bench(&fs::read_to_string(file)?, measured_on)?)
}

fn read_inputs(
    file: Option<PathBuf>,
    measured: Option<Measured>,
) -> Result<Inputs, Box<dyn std::error::Error>> {
    let text = match file {
        Some(file) => fs::read_to_string(file)?,
        None => document::DEFAULT_INPUTS.to_owned(),
    };
    let measured = match measured {
        Some(measured) => measured,
        None => document::default_measured()?,
    };
    Ok(Inputs::from_json(&text, measured)?)
}

/// Prints what the model predicts for the measured runs, so that a new measurement shows at once whether it holds.
fn print_predictions(inputs: &Inputs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for run in &inputs.runs {
        for row in compare(inputs, run) {
            let verdict = if row.is_within_bound() { "" } else { "  beyond 20 %" };
            let (links, error) = (run.links, 100.0 * row.error());
            let Comparison { what, unit, predicted, measured } = row;
            writeln!(
                out,
                "{links} links, {what}: predicted {predicted:.2} {unit}, measured {measured:.2}, {error:+.0} %{verdict}"
            )?;
        }
    }
    Ok(())
}

fn print_tables(inputs: &Inputs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, section) in sections(inputs) {
        writeln!(out, "{name}\n\n{section}")?;
    }
    Ok(())
}

fn checked(links: u32) -> Result<u64, String> {
    let links = u64::from(links);
    if (1..=MAX_LINKS).contains(&links) {
        Ok(links)
    } else {
        Err(format!("the number of links must be from 1 to {MAX_LINKS}"))
    }
}

fn print(report: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)
}
