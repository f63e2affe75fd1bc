//! The table of maintenance tasks in `docs/ARCHITECTURE.md` has every task with its interval and time limit.

use std::{fs, path::Path, time::Duration};

use linnet_worker::maintenance::TASKS;

#[test]
fn document_lists_every_task_with_its_interval_and_time_limit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ARCHITECTURE.md");
    let document = fs::read_to_string(path).expect("docs/ARCHITECTURE.md");
    let documented: Vec<String> = document
        .lines()
        .skip_while(|line| *line != "### Maintenance")
        .skip_while(|line| !line.starts_with("| task | every | time limit |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').skip(1).take(3).map(str::trim).collect::<Vec<_>>().join(" | "))
        .collect();
    let tasks: Vec<String> = TASKS
        .iter()
        .map(|task| format!("`{}` | {} | {}", task.name, shown(task.every), shown(task.timeout)))
        .collect();
    assert_eq!(documented, tasks);
}

/// A duration in minutes or hours, as the document writes it.
fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        hours if hours.is_multiple_of(3_600) => format!("{} h", hours / 3_600),
        seconds => format!("{} min", seconds / 60),
    }
}
