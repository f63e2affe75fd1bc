//! What the operator does from the command line, with the service running or not.

mod create_key;
mod erase_user;
mod import;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    config::Settings,
    import::HeaderError,
    store::{PoolRole, Store, StoreError, connect_lazy},
};

/// The subcommands of `admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Makes an API key and prints it; the user is made when no user has the address.
    CreateKey(CreateKey),
    /// Deletes a user with everything that is left of it: links, history, clicks, roll-ups.
    EraseUser(EraseUser),
    /// Loads users, links and events from CSV files, with the ids that they have there.
    Import(Import),
}

/// Arguments of `admin create-key`.
#[derive(Debug, Args)]
pub struct CreateKey {
    /// The user's name, if the user is new.
    #[arg(long)]
    pub username: String,
    /// The user's e-mail address.
    #[arg(long)]
    pub email: String,
    /// What the key allows, comma-separated.
    #[arg(long, default_value = "admin", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// What to call the key.
    #[arg(long, default_value = "made on the command line")]
    pub name: String,
}

/// Arguments of `admin erase-user`.
#[derive(Debug, Args)]
pub struct EraseUser {
    /// The user's number.
    #[arg(long)]
    pub id: i64,
}

/// Arguments of `admin import`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Import {
    /// CSV with `id,username,email,created_at`.
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// CSV with `id,user_id,short_code,original_url,title,is_active,created_at,updated_at`.
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
    /// CSV with `id,url_id,user_id,event_type,timestamp,details`.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An argument is not valid.
    #[error("--{argument}: {message}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// Why.
        message: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    Random(#[from] rand::rngs::SysError),
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no CSV of this kind.
    #[error("{file}: {reason}")]
    Csv {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: HeaderError,
    },
    /// Some rows were not imported; each has been reported.
    #[error("{0} row(s) were not imported")]
    BadRows(u64),
}

/// Runs a command.
pub async fn run(settings: &Settings, command: AdminCommand) -> Result<(), AdminError> {
    let store = Store::new(connect_lazy(&settings.postgres, PoolRole::Background)?);
    let outcome = match command {
        AdminCommand::CreateKey(arguments) => create_key::run(&store, &arguments).await,
        AdminCommand::EraseUser(arguments) => erase_user::run(&store, &arguments).await,
        AdminCommand::Import(arguments) => import::run(settings, &store, &arguments).await,
    };
    store.close().await;
    outcome
}
