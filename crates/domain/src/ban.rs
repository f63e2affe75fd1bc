//! Bans: hosts that no target may have, and short codes that no new link gets.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{BanId, UserId};

/// Maximum length of the reason for a takedown or a ban, in characters.
pub const MAX_REASON: usize = 500;

/// A host that no target may have. Its subdomains are banned with it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct BannedHost {
    /// The number of the ban.
    #[schema(value_type = i64)]
    pub id: BanId,
    /// The host name or address, in normal form.
    pub host: String,
    /// The reason.
    #[schema(required)]
    pub reason: Option<String>,
    /// The administrator; null if the ban was set on the command line.
    #[schema(value_type = Option<i64>, required)]
    pub user_id: Option<UserId>,
    /// When the host was banned.
    pub created_at: DateTime<Utc>,
}

/// A short code that no new link gets.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct BannedCode {
    /// The number of the ban.
    #[schema(value_type = i64)]
    pub id: BanId,
    /// The short code.
    pub short_code: String,
    /// The reason.
    #[schema(required)]
    pub reason: Option<String>,
    /// The administrator; null if the ban was set on the command line or follows from a takedown.
    #[schema(value_type = Option<i64>, required)]
    pub user_id: Option<UserId>,
    /// When the code was banned.
    pub created_at: DateTime<Utc>,
}
