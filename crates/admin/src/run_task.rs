//! `admin run-task`: runs one maintenance task now.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};

use linnet_platform::clock::Clock;
use linnet_settings::Settings;
use linnet_store::Store;
use linnet_worker::maintenance::{MaintenanceContext, TASKS, Task};

use crate::{AdminError, RunTask};

/// The names of the tasks, for the parser and its help.
pub(super) fn task_names() -> PossibleValuesParser {
    TASKS.iter().map(|task| PossibleValue::new(task.name).help(task.about)).into()
}

/// Runs the task and prints its result.
#[expect(clippy::print_stdout, reason = "the result is this command's output")]
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    arguments: &RunTask,
) -> Result<(), AdminError> {
    // The parser rejects any other name.
    let Some(task) = Task::find(&arguments.name) else {
        let message = format!("no task `{}`", arguments.name);
        return Err(AdminError::Argument { argument: "name", message });
    };
    let maintenance = MaintenanceContext {
        store: store.clone(),
        settings: settings.maintenance(),
        clock: Clock::System,
    };
    let report = maintenance.run_now(task, Duration::from_secs(arguments.wait)).await?;
    println!("{}: {report}", task.name);
    Ok(())
}
