//! The filters of lists and exports of links.

use linnet_domain::{
    LinkFilter, LinkSearch,
    rules::{Violation, string},
};
use utoipa::IntoParams;

use super::fields::{Fields, query_boolean, query_id};

/// The filters, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `read_filter` reads it")]
pub(crate) struct LinkFilterParams {
    /// Only links of this user.
    #[param(minimum = 1)]
    user_id: Option<i64>,
    /// Only active, or only inactive links.
    is_active: Option<bool>,
    /// Only links whose short code, target URL or title contains this text, in any case. A host name in another script,
    /// and other characters outside ASCII, are found in the target as they are typed.
    #[param(
        min_length = 2,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    search: Option<String>,
}

/// Reads the filters.
pub(super) fn read_filter(fields: &mut Fields) -> LinkFilter {
    LinkFilter {
        user_id: fields.optional("user_id", query_id),
        is_active: fields.optional("is_active", query_boolean),
        search: fields.optional("search", search),
    }
}

fn search(value: serde_json::Value) -> Result<LinkSearch, Violation> {
    LinkSearch::parse(&string(value)?).map_err(Violation::invalid)
}
