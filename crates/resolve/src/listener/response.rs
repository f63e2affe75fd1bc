//! The responses of the resolve listener.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{
            ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
            LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use linnet_platform::clock::Clock;
use linnet_store::StoreError;

use super::{metrics::ResolveOutcome, pages};
use crate::{Absence, LookupError, Redirect};

const RETRY_AFTER_UNAVAILABLE: HeaderValue = HeaderValue::from_static("1");

/// Why a request gets no redirect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    NotFound(Absence),
    TooManyMisses(u64),
    /// A prefetch of a link with `max_clicks`.
    Prefetch,
    /// `OPTIONS`, of a link with this status.
    Options(StatusCode),
    /// A method that a link with this status does not redirect.
    BadMethod(StatusCode),
    Unavailable,
}

impl From<LookupError> for Refusal {
    fn from(_: LookupError) -> Self {
        Self::Unavailable
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "link with a click limit not read");
        Self::Unavailable
    }
}

impl From<Absence> for ResolveOutcome {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::Unknown => Self::Unknown,
            Absence::Inactive => Self::Inactive,
            Absence::Expired => Self::Expired,
            Absence::UsedUp => Self::UsedUp,
        }
    }
}

/// Whole seconds until the link expires; `None` if it never does, 0 if it has.
pub(super) fn remaining_s(redirect: &Redirect, clock: Clock) -> Option<u64> {
    let expires_at = redirect.expires_at_ms()?;
    let left = i128::from(expires_at) - i128::from(clock.now_ms());
    if left <= 0 {
        return Some(0);
    }
    // Rounded up, so that the last second does not count as expired.
    Some(u64::try_from(left).unwrap_or(u64::MAX).div_ceil(1_000))
}

/// Whether a client repeats its method and body at the target.
pub(super) fn keeps_method(status: StatusCode) -> bool {
    matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
}

/// The methods that a link with this status supports.
fn allow(status: StatusCode) -> (HeaderName, HeaderValue) {
    let methods = if keeps_method(status) {
        "GET, HEAD, POST, PUT, PATCH, OPTIONS"
    } else {
        "GET, HEAD, OPTIONS"
    };
    (ALLOW, HeaderValue::from_static(methods))
}

#[inline]
pub(super) fn redirect_to(
    redirect: &Redirect,
    remaining: Option<u64>,
    permanent_max_age_s: u32,
) -> HttpResponse {
    let is_permanent =
        matches!(redirect.status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
    let cache_control = if is_permanent {
        // Rounded down, so that no browser caches it past its expiry.
        let life = remaining.map_or(u64::MAX, |seconds| seconds - 1);
        let max_age = life.min(permanent_max_age_s.into());
        HeaderValue::try_from(format!("private, max-age={max_age}"))
            .unwrap_or(HeaderValue::from_static("no-store"))
    } else {
        HeaderValue::from_static("private, max-age=0")
    };
    HttpResponse::build(redirect.status)
        .insert_header((LOCATION, redirect.location.clone()))
        .insert_header((CACHE_CONTROL, cache_control))
        .finish()
}

pub(super) fn refuse(refusal: Refusal) -> (ResolveOutcome, HttpResponse) {
    match refusal {
        Refusal::NotFound(why) => (why.into(), page(HttpResponse::NotFound(), pages::NOT_FOUND)),
        Refusal::TooManyMisses(seconds) => {
            let mut response = HttpResponse::TooManyRequests();
            response.insert_header((RETRY_AFTER, HeaderValue::from(seconds)));
            (ResolveOutcome::TooManyMisses, page(response, pages::TOO_MANY))
        }
        // A browser drops a prefetched response that is not 2xx, and requests the link again when a person opens it.
        Refusal::Prefetch => {
            let response = HttpResponse::ServiceUnavailable();
            (ResolveOutcome::PrefetchRefused, page(response, pages::PREFETCH))
        }
        Refusal::Options(status) => {
            let mut response = HttpResponse::NoContent();
            (ResolveOutcome::Options, response.insert_header(allow(status)).finish())
        }
        Refusal::BadMethod(status) => {
            let mut response = HttpResponse::MethodNotAllowed();
            (ResolveOutcome::BadMethod, response.insert_header(allow(status)).finish())
        }
        Refusal::Unavailable => {
            let mut response = HttpResponse::ServiceUnavailable();
            response.insert_header((RETRY_AFTER, RETRY_AFTER_UNAVAILABLE));
            (ResolveOutcome::Unavailable, page(response, pages::UNAVAILABLE))
        }
    }
}

fn page(mut response: HttpResponseBuilder, body: &'static str) -> HttpResponse {
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
        ))
        .body(body)
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;

    use super::{super::state::Visit, *};

    /// The status and the `Allow` of the response to this method; `None` if the link redirects it.
    fn refused(method: &str, status: u16) -> Option<(u16, String)> {
        let method: Method = method.parse().unwrap();
        let refusal = Visit::of(&method).refusal(StatusCode::from_u16(status).unwrap())?;
        let (_, response) = refuse(refusal);
        let allow = response.headers().get(ALLOW).unwrap().to_str().unwrap();
        Some((response.status().as_u16(), allow.to_owned()))
    }

    #[test]
    fn a_link_redirects_only_the_methods_that_it_allows() {
        for status in [301, 302, 307, 308] {
            let keeps = status > 302;
            let allow =
                if keeps { "GET, HEAD, POST, PUT, PATCH, OPTIONS" } else { "GET, HEAD, OPTIONS" };
            let with = |code: u16| Some((code, allow.to_owned()));
            for method in ["GET", "HEAD"] {
                assert_eq!(refused(method, status), None, "{method} {status}");
            }
            for method in ["POST", "PUT", "PATCH"] {
                let expected = if keeps { None } else { with(405) };
                assert_eq!(refused(method, status), expected, "{method} {status}");
            }
            assert_eq!(refused("OPTIONS", status), with(204), "{status}");
            for method in ["DELETE", "TRACE", "PROPFIND", "get"] {
                assert_eq!(refused(method, status), with(405), "{method} {status}");
            }
        }
    }
}
