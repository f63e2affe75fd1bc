//! Bulk jobs, from the upload to the last row.

mod by_hand;
mod conflicts;
mod dead;
mod disk;
mod faults;
mod hostile;
mod imports;
mod kills;
mod progress;
mod queue;
mod strangers;
mod support;
mod uploads;
