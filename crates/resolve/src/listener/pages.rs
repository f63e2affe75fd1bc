//! The pages that visitors get instead of a redirect. They are constant and contain nothing from the request.

macro_rules! page {
    ($title:literal, $text:literal) => {
        concat!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<title>",
            $title,
            "</title><style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;",
            "margin:20vh auto 0;padding:0 1.5rem;color:#1d2733;background:#fff}",
            "@media(prefers-color-scheme:dark){body{color:#e4e9ef;background:#12181f}}",
            "h1{font-size:1.6rem}</style></head><body><main><h1>",
            $title,
            "</h1><p>",
            $text,
            "</p></main></body></html>\n"
        )
    };
}

/// For 404: inactive, expired and unknown links get the same page.
pub(super) const NOT_FOUND: &str = page!(
    "Not found",
    "This short link does not exist or has ended. Check the spelling: upper and lower case differ."
);

/// For 429.
pub(super) const TOO_MANY: &str = page!(
    "Too many requests",
    "Your network requested many links that do not exist. Try again in a minute."
);

/// For a prefetch of a link with `max_clicks`. Browsers show no response to a prefetch.
pub(super) const PREFETCH: &str = page!(
    "Not prefetched",
    "Each visit of this link counts, so it opens only when you follow it yourself."
);

/// For 503.
pub(super) const UNAVAILABLE: &str = page!(
    "Service unavailable",
    "This link cannot be looked up right now. Try again in a few seconds."
);
