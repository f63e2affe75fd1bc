//! The command line: the verbs of the operator, and of the restricted key.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use crate::{
    apply, checks,
    deploy::Deployment,
    drift,
    error::HostError,
    files,
    output::{self, say},
    paths,
    plan::{self, Occupation, Rollback},
    prepare, report, restore,
    state::{State, now},
    stop,
    unit::{self, Lock},
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
                output::error(&error);
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
        Verb::Follow => report::follow(None, now()),
        Verb::Check => drift::check(),
        Verb::Deploy(source, manner) => deploy(source, manner),
        Verb::Resume => resume(),
        Verb::Rollback => rollback(),
        Verb::Backup => backup(),
        Verb::Restore(options) => restore::start(options),
        Verb::Load => load(),
        Verb::Secrets => secrets(),
        Verb::Verdict(analysis) => analysis.run(),
        Verb::Apply => apply::apply(),
        Verb::Stop => stop::stop(),
        Verb::Run(Task::Deploy(id)) => Deployment::start(id),
        Verb::Run(Task::Resume) => Deployment::resume(),
        Verb::Run(Task::Rollback) => Deployment::rollback(),
        Verb::Run(Task::Restore(options)) => restore::run(options),
    }
}

fn deploy(source: &Source, manner: &Manner) -> Result<(), HostError> {
    let prepare = unit::lock_to_prepare()?;
    let id = prepare::prepare(source, manner)?;
    let change = unit::lock(Lock::Change)?;
    // A rollback may have started meanwhile.
    prepare::refuse_if_busy()?;
    if unit::is_active() {
        // Only one that keeps its old color warm gets here; `Deployment::start` ends it.
        unit::stop()?;
    }
    // It may have decided to return meanwhile, which is completed first.
    if let Some(open) = State::read()?.open()?
        && open.reverting.is_some()
    {
        unit::start(paths::PROGRAM, &["resume"])?;
        return Err(HostError::Busy(format!("{} returns to the release before", open.release)));
    }
    let began = unit::start(&format!("{}/{id}/linnet-host", paths::RELEASES), &["deploy", &id])?;
    drop((prepare, change));
    report::follow(Some(&id), began)
}

fn resume() -> Result<(), HostError> {
    let change = unit::lock(Lock::Change)?;
    let state = State::read()?;
    match unit::occupied()? {
        Occupation::Restoring => {
            drop(change);
            return restore::follow(None);
        }
        Occupation::RestoreInterrupted => return restore::complete(change),
        // A record that has ended may still be noted as open.
        Occupation::Free if state.installation.open.is_none() => {
            say!("no deployment is open");
            return Ok(());
        }
        _ => {}
    }
    let open = state.installation.open.clone();
    let since = if unit::is_active() {
        say!("the deployment is running");
        now()
    } else {
        unit::start(&unit::program_of_open(&state), &["resume"])?
    };
    drop(change);
    report::follow(open.as_deref(), since)
}

/// Ends a running deployment first. Each of its steps can be interrupted.
fn rollback() -> Result<(), HostError> {
    let change = unit::lock(Lock::Change)?;
    let state = State::read()?;
    let open = state.open()?;
    let occupation = unit::occupied()?;
    if matches!(occupation, Occupation::Restoring | Occupation::RestoreInterrupted) {
        return Err(occupation.refusal());
    }
    let planned = plan::rollback(&state.installation, open.as_ref(), state.current()?.as_ref());
    if let Rollback::Nothing(reason) = planned {
        return Err(HostError::Refused(format!("cannot roll back: {reason}")));
    }
    if unit::is_active() {
        unit::stop()?;
    }
    let began = unit::start(&unit::program_of_open(&state), &["rollback"])?;
    drop(change);
    // The requests move at once. The command ends when the color that was given up has finished its own.
    unit::follow_journal(began, || Ok(!unit::is_active()))?;
    let open = match open {
        Some(record) => files::read_record(&record.id)?,
        None => None,
    };
    plan::rolled_back(open.as_ref(), &files::records()?, began)
        .map_err(|reason| HostError::Step(format!("the rollback did not complete: {reason}")))?;
    let current = State::read()?.current()?;
    say!("{} serves", current.map_or_else(|| "no release".to_owned(), |record| record.release));
    Ok(())
}

/// Takes a backup with the sidecar.
fn backup() -> Result<(), HostError> {
    let state = State::read()?;
    let current = restore::current_with_backups(&state)?;
    let compose = state.compose(current)?;
    let text = compose.run(&["run", "--rm", "--no-deps", "-T", "backup", "backup"], 3600)?;
    say!("{text}");
    Ok(())
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
