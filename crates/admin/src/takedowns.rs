//! Takedowns of links, and bans of hosts and codes: `admin take-down`, `restore-link`, `ban-host`, `unban-host`,
//! `ban-code` and `release-code`.

use linnet_domain::{
    MAX_REASON, ShortCode, host_name,
    rules::{Rule, Text},
};
use linnet_store::Store;

use crate::{AdminCommand, AdminError, terminal::say};

/// Runs one of the commands; every other command does nothing.
pub(super) async fn run(store: &Store, command: &AdminCommand) -> Result<(), AdminError> {
    match command {
        AdminCommand::TakeDown { code, reason } => {
            let id = store.link_id_of_code(code).await?;
            let id = id.ok_or_else(|| argument("code", &"no link has this code"))?;
            store.take_down(id, None, read_reason(reason.as_deref())?).await?;
            say(&format!("link {id}: taken down"));
        }
        AdminCommand::RestoreLink { code } => {
            let restored = match store.link_id_of_code(code).await? {
                Some(id) => store.restore_link(id, None).await?,
                None => None,
            };
            let restored = restored
                .ok_or_else(|| argument("code", &"no link with this code is taken down"))?;
            let state =
                if restored.link.attributes.is_active { "active again" } else { "inactive" };
            say(&format!("link {}: {state}", restored.link.id));
        }
        AdminCommand::BanHost { host, reason } => {
            let host = host_name(host).map_err(|error| argument("host", &error))?;
            let ban = store.ban_host(&host, None, read_reason(reason.as_deref())?).await?;
            let links = store.take_down_links_to(&ban, None).await?;
            say(&format!("{host}: banned, {links} link(s) taken down"));
        }
        AdminCommand::UnbanHost { host } => {
            // A ban of an earlier release may be on a text that is no host name.
            let host = host_name(host).unwrap_or_else(|_| host.clone());
            if !store.unban_host_named(&host).await? {
                return Err(argument("host", &"is not banned"));
            }
            say(&format!("{host}: no longer banned; its links stay taken down"));
        }
        AdminCommand::BanCode { code, reason } => {
            let code = ShortCode::parse(code).map_err(|error| argument("code", &error))?;
            store.ban_code(&code, None, read_reason(reason.as_deref())?).await?;
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

fn read_reason(reason: Option<&str>) -> Result<Option<&str>, AdminError> {
    let Some(text) = reason else { return Ok(None) };
    Text::<MAX_REASON>::from_text(text).map_err(|error| argument("reason", &error.message))?;
    Ok(Some(text))
}

fn argument(argument: &'static str, message: &dyn std::fmt::Display) -> AdminError {
    AdminError::Argument { argument, message: message.to_string() }
}
