//! Entry points for `crates/fuzz`: the readers and writers of headers, without a listener around them.
//!
//! The gateway does not call these functions. They call the functions that the gateway uses.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use actix_web::http::header;
use linnet_domain::{Scopes, UserId};

use crate::{
    auth::{Caller, KeyIdentity, find_key},
    counters::LimitReason,
    limit::{RateDecision, RatePolicy, write_headers},
    proxy::forwarded_headers,
};

/// The API key of a request and its public id; `None` if it has no key, or `Err` if it is rejected without a lookup.
#[expect(clippy::result_unit_err, reason = "callers only compare results")]
pub fn key_of(headers: &header::HeaderMap, query: &str) -> Result<Option<(String, String)>, ()> {
    let key = find_key(headers, query).map_err(drop)?;
    Ok(key.map(|key| (key.id().to_owned(), key.expose().to_owned())))
}

/// The headers that a shortener receives from the gateway for a client's headers. `key` is the public id and the user
/// of the caller's key; `None` is an anonymous caller. Both have `scopes`. Returns `None` if the id is not valid in a
/// header.
pub fn forwarded(
    incoming: &header::HeaderMap,
    key: Option<(&str, UserId)>,
    scopes: Scopes,
) -> Option<http::HeaderMap> {
    let caller = match key {
        Some((id, user)) => Caller::Key(Arc::new(KeyIdentity::new(id, user, scopes).ok()?)),
        None => Caller::Anonymous(scopes),
    };
    Some(forwarded_headers(incoming, &caller))
}

/// The values of `RateLimit` and `RateLimit-Policy` for a policy of `per_minute` requests with a burst.
pub fn rate_headers(
    per_minute: NonZeroU32,
    burst: NonZeroU32,
    remaining: u32,
    more_after: Duration,
) -> header::HeaderMap {
    let mut headers = header::HeaderMap::new();
    let policy = RatePolicy::new("key", LimitReason::Key, (per_minute, burst));
    let retry_after = more_after;
    let decision = RateDecision { is_allowed: remaining > 0, remaining, retry_after, more_after };
    write_headers(&[(decision, &policy), (decision, &policy)], &mut headers);
    headers
}
