//! The context in which rows are validated.

use chrono::{DateTime, Utc};
use linnet_domain::{TargetPolicy, UserId};

/// The context in which rows are validated.
#[derive(Debug, Clone)]
pub struct RowRules {
    /// The accepted target URLs.
    pub targets: TargetPolicy,
    /// Whether rows may have ids and name any owner. If not, ids are ignored.
    pub by_admin: bool,
    /// The owner of links whose rows name no owner.
    pub owner: Option<UserId>,
    /// The columns of text in which the word `null` clears the field.
    pub null_columns: Vec<String>,
    /// The time with which expiries are compared.
    pub now: DateTime<Utc>,
}
