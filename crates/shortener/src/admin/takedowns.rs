//! `admin take-down` and its relatives: takedowns of links, bans of hosts and codes.

use linnet_domain::{ShortCode, host_name};
use linnet_store::Store;

use super::{AdminCommand, AdminError, terminal::say};

/// Runs one of the commands; every other command does nothing.
pub(super) async fn run(store: &Store, command: &AdminCommand) -> Result<(), AdminError> {
    match command {
        AdminCommand::TakeDown { code } => {
            let id = store.take_down(code).await?;
            let id = id.ok_or_else(|| argument("code", &"no link has this code"))?;
            say(&format!("link {id}: taken down"));
        }
        AdminCommand::RestoreLink { code } => {
            let id = store.restore_link(code).await?;
            let id = id.ok_or_else(|| argument("code", &"no link with this code is taken down"))?;
            say(&format!("link {id}: active again"));
        }
        AdminCommand::BanHost { host } => {
            let host = host_name(host).map_err(|error| argument("host", &error))?;
            let links = store.ban_host(&host).await?;
            say(&format!("{host}: banned, {links} link(s) taken down"));
        }
        AdminCommand::UnbanHost { host } => {
            let host = host_name(host).map_err(|error| argument("host", &error))?;
            if !store.unban_host(&host).await? {
                return Err(argument("host", &"is not banned"));
            }
            say(&format!("{host}: no longer banned; its links stay taken down"));
        }
        AdminCommand::BanCode { code } => {
            let code = ShortCode::parse(code).map_err(|error| argument("code", &error))?;
            store.ban_code(&code).await?;
            say(&format!("{code}: banned"));
        }
        AdminCommand::ReleaseCode { code } => {
            if !store.release_code(code).await? {
                return Err(argument("code", &"is neither held nor banned"));
            }
            say(&format!("{code}: free"));
        }
        _ => {}
    }
    Ok(())
}

fn argument(argument: &'static str, message: &dyn std::fmt::Display) -> AdminError {
    AdminError::Argument { argument, message: message.to_string() }
}
