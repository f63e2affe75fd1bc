//! Layered configuration: defaults in code, then an optional TOML file, then the environment.
//!
//! * A key is `LINNET__SECTION__KEY`, or `[section] key` in the file. `LINNET__SECTION__KEY_FILE`
//!   names a file that holds the value, which is how secrets arrive in containers.
//! * Processes share one set of sections, so one environment can serve them all: a section that
//!   belongs to another process is passed over, a section that nobody has is an error.
//! * Every problem is found before anything is reported: a person mends a file once.

mod loader;
mod sections;
mod values;

pub use loader::{Problems, Settings, SettingsError, known_keys, load, load_from};
pub use sections::{RedisSettings, ShutdownSettings};
pub use values::{comma_list, non_empty, redacted};
