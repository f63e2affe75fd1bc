//! The command line: the verbs of the operator, and of the restricted key.

use std::{
    env,
    fs::OpenOptions,
    process::{Command, ExitCode, Stdio},
};

use crate::{
    checks,
    command::run,
    deploy::Deployment,
    error::HostError,
    paths,
    prepare::{self, is_unit_active},
    report,
    state::State,
    verbs::{Manner, Source, Task, Verb, parse, parse_restricted},
};

/// Runs the verb and prints an error as one message.
pub fn main() -> ExitCode {
    let verb = verb();
    // A client that follows the unit shows its output, and reports the end itself.
    let is_followed = matches!(verb, Ok(Verb::Run(_)));
    match verb.and_then(|verb| act(&verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !(is_followed && matches!(error, HostError::Step(_))) {
                eprintln!("error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Without arguments, the command of a restricted key counts.
fn verb() -> Result<Verb, HostError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (words.is_empty(), env::var("SSH_ORIGINAL_COMMAND")) {
        (true, Ok(command)) => parse_restricted(&command),
        (true, Err(_)) => parse_restricted("help"),
        (false, _) => parse(&words),
    }
}

fn act(verb: &Verb) -> Result<(), HostError> {
    match verb {
        Verb::Status => report::status(),
        Verb::StatusJson => report::status_json(),
        Verb::Follow => report::follow(None),
        Verb::Check => report::check(),
        Verb::Deploy(source, manner) => deploy(source, manner),
        Verb::Resume => resume(),
        Verb::Rollback => rollback(),
        Verb::Backup => backup(),
        Verb::Restore(options) => restore(options),
        Verb::Load => load(),
        Verb::Secrets => secrets(),
        Verb::Apply => apply(),
        Verb::Run(Task::Deploy(id)) => Deployment::start(id),
        Verb::Run(Task::Resume) => Deployment::resume(),
        Verb::Run(Task::Rollback) => Deployment::rollback(),
    }
}

fn deploy(source: &Source, manner: &Manner) -> Result<(), HostError> {
    let lock = lock()?;
    let id = prepare::prepare(source, manner)?;
    if is_unit_active() {
        // Only one that keeps its old color warm gets here; `Deployment::start` ends it.
        run("systemctl", &["stop", paths::UNIT], 30)?;
    }
    start_unit(&format!("{}/{id}/linnet-host", paths::RELEASES), &["run", "deploy", &id])?;
    drop(lock);
    report::follow(Some(&id))
}

/// Two callers that prepare at once would both see no unit. The lock ends with the process, however that dies.
fn lock() -> Result<std::fs::File, HostError> {
    let path = "/run/linnet-host.lock";
    let failed = |error| HostError::File(path.into(), error);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(HostError::Busy("another one is being prepared".to_owned()))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn start_unit(program: &str, arguments: &[&str]) -> Result<(), HostError> {
    let unit = format!("--unit={}", paths::UNIT);
    let mut all = vec![
        "--collect",
        "--quiet",
        &unit,
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=5",
        // Requests come first: a deployment only takes longer.
        "--property=Nice=10",
        "--property=CPUWeight=20",
        program,
    ];
    all.extend(arguments);
    run("systemd-run", &all, 30).map(drop).map_err(|error| {
        if error.to_string().contains("already") {
            HostError::Busy("another one started first".to_owned())
        } else {
            error
        }
    })
}

/// The program of the release that was being deployed, which knows its steps.
fn program_of_open(state: &State) -> String {
    let folder =
        state.installation.open.as_ref().map(|id| format!("{}/{id}/linnet-host", paths::RELEASES));
    folder
        .filter(|path| std::path::Path::new(path).exists())
        .unwrap_or_else(|| paths::PROGRAM.to_owned())
}

fn resume() -> Result<(), HostError> {
    let state = State::read()?;
    let Some(open) = state.installation.open.clone() else {
        println!("no deployment is open");
        return Ok(());
    };
    if is_unit_active() {
        println!("the deployment is running");
    } else {
        start_unit(&program_of_open(&state), &["run", "resume"])?;
    }
    report::follow(Some(&open))
}

/// Ends a running deployment first. Each of its steps can be interrupted.
fn rollback() -> Result<(), HostError> {
    let state = State::read()?;
    if is_unit_active() {
        run("systemctl", &["stop", paths::UNIT], 30)?;
    }
    let before = state.installation.current.clone();
    start_unit(&program_of_open(&state), &["run", "rollback"])?;
    while is_unit_active() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let state = State::read()?;
    match state.current()? {
        Some(current)
            if state.installation.open.is_none() && state.installation.current != before =>
        {
            println!("{} serves again", current.release);
            Ok(())
        }
        Some(current) if state.installation.open.is_none() => {
            println!("{} serves; the interrupted deployment has ended", current.release);
            Ok(())
        }
        _ => Err(HostError::Step(
            "the rollback did not complete; see `journalctl -u linnet-deploy`".to_owned(),
        )),
    }
}

/// Takes a backup with the sidecar.
fn backup() -> Result<(), HostError> {
    let state = State::read()?;
    let current = current_with_backups(&state)?;
    let compose = state.compose(current);
    let text = compose.run(&["run", "--rm", "--no-deps", "-T", "backup", "backup"], 3600)?;
    println!("{text}");
    Ok(())
}

/// The release that serves, on a server with backups.
fn current_with_backups(state: &State) -> Result<&str, HostError> {
    let current = state.installation.current.as_deref();
    current.filter(|_| state.config.backup.is_some()).ok_or_else(|| {
        HostError::Refused(
            "no release with backups runs here; run `deploy.sh init` with --backup, and deploy a release".to_owned(),
        )
    })
}

/// Restores the database with the script of the current release, which explains its errors itself.
fn restore(options: &[String]) -> Result<(), HostError> {
    let _lock = lock()?;
    let state = State::read()?;
    let current = current_with_backups(&state)?;
    if let Some(open) = &state.installation.open {
        return Err(HostError::Interrupted(open.clone()));
    }
    state.restore(current, options)
}

/// Loads images from the standard input, compressed or not.
fn load() -> Result<(), HostError> {
    let status = Command::new("docker")
        .args(["load", "--quiet"])
        .stdin(Stdio::inherit())
        .status()
        .map_err(|error| HostError::File("docker".into(), error))?;
    if status.success() {
        return Ok(());
    }
    Err(HostError::Refused(
        "the images could not be loaded; check the disk with `df /var/lib/docker`, and send them again".to_owned(),
    ))
}

/// Generates missing secrets with the script of the current release.
fn secrets() -> Result<(), HostError> {
    let state = State::read()?;
    let id =
        state.installation.open.or(state.installation.current).ok_or(HostError::NotPrepared)?;
    checks::generate_secrets(&id)
}

/// Recreates the containers whose configuration or image has changed, which interrupts them for seconds.
fn apply() -> Result<(), HostError> {
    let _lock = lock()?;
    let state = State::read()?;
    if let Some(open) = state.open()? {
        return Err(HostError::Interrupted(open.release));
    }
    let Some(current) = state.installation.current.clone() else {
        return Err(HostError::Refused(
            "no release is deployed; run `deploy.sh release` first".to_owned(),
        ));
    };
    state.write()?;
    let compose = state.compose(&current);
    let services = compose.services()?;
    let others: Vec<&str> = services
        .iter()
        .map(String::as_str)
        .filter(|service| {
            !is_of_other_color(service, &state) && !matches!(*service, "migrate" | "preflight")
        })
        .collect();
    compose.up(&others, 600)?;
    println!("all containers have the configuration of {current}");
    Ok(())
}

fn is_of_other_color(service: &str, state: &State) -> bool {
    crate::color::Color::ALL.into_iter().any(|color| {
        state.installation.release_of(color).is_none() && service.ends_with(color.name())
    })
}
