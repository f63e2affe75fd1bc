//! Layered configuration: defaults in code, then an optional TOML file, then the environment.
//!
//! Invariants:
//! - A key is `LINNET__SECTION__KEY` in the environment and `[section] key` in the file. `LINNET__SECTION__KEY_FILE` names
//!   a file with the value, for secrets in containers.
//! - All processes can share one environment: each ignores the sections of the others. An unknown section is an error.
//! - All problems are reported together.

mod loader;
mod sections;
mod values;

pub use loader::{Problems, Settings, SettingsError, known_keys, load, load_from};
pub use sections::{RedisSettings, ShutdownSettings};
pub use values::{comma_list, non_empty, optional_path, redacted};
