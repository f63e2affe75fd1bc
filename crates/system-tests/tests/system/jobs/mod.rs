//! Bulk jobs, from the upload to the last row.

mod admin_commands;
mod bounds;
mod conflicts;
mod dead_letters;
mod disk_space;
mod faults;
mod hostile_files;
mod imports;
mod killed_workers;
mod ownership;
mod pieces;
mod postgres_failover;
mod progress_events;
mod queue;
mod row_rules;
pub(super) mod support;
mod takedowns;
mod uploads;
