//! Short codes, cursors and invalidations.

use std::fmt::Write as _;

use linnet_domain::{
    Cursor, MAX_CODE_LENGTH, ShortCode, ShortCodeError, TimeSortKey, has_code_shape,
};
use linnet_protocol::invalidation::Invalidation;
use linnet_resolve::listener::code_of;
use percent_encoding::percent_decode_str;

use super::assert_is_rule;

/// The path of a request to the resolve listener: its code is the one that a decoder of a library finds, and every
/// spelling of the path has the same code.
pub(super) fn path(input: &[u8]) {
    let Ok(path) = std::str::from_utf8(input) else { return };
    let found = code(path);
    assert_eq!(found, expected_code(path), "{path}");
    if let Some(code_) = found {
        let mut encoded = String::new();
        for byte in code_.bytes() {
            write!(encoded, "%{byte:02x}").expect("text has room");
        }
        for same in [format!("/{code_}"), format!("/{code_}/"), format!("/{encoded}/")] {
            assert_eq!(code(&same).as_ref(), Some(&code_), "{same}");
        }
    }
}

fn code(path: &str) -> Option<String> {
    code_of(path, &mut [0; MAX_CODE_LENGTH]).map(ToOwned::to_owned)
}

fn expected_code(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let decoded = percent_decode_str(rest).decode_utf8().ok()?;
    has_code_shape(&decoded).then(|| decoded.into_owned())
}

/// A chosen code: it resolves, and its case does not decide whether it is reserved.
pub(super) fn short_code(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let other_case = ShortCode::parse(&text.to_ascii_uppercase());
    match ShortCode::parse(text) {
        Ok(parsed) => {
            assert_eq!(parsed.to_string(), text);
            assert_eq!(code(&format!("/{text}")).as_deref(), Some(text));
            assert!(other_case.is_ok(), "{text}");
        }
        Err(error) => {
            assert_is_rule(&error.to_string());
            assert_eq!(has_code_shape(text), error == ShortCodeError::Reserved, "{text}");
            assert_eq!(other_case, Err(error), "{text}");
        }
    }
}

/// A cursor: it has one spelling, and it is a cursor of one kind of list.
pub(super) fn cursor(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let by_id = Cursor::<i64>::parse(text);
    let by_time = Cursor::<TimeSortKey>::parse(text);
    assert!(by_id.is_err() || by_time.is_err(), "{text}");
    if let Ok(cursor) = by_id {
        assert!(cursor.after >= 0);
        assert_eq!(cursor.encode(), text);
    }
    if let Ok(cursor) = by_time {
        assert!(cursor.after.id >= 0);
        assert_eq!(cursor.encode(), text);
    }
    // The same for the text inside a cursor.
    let by_id = <i64 as linnet_domain::SortKey>::read(text).map(|after| Cursor { after });
    if let Some(cursor) = by_id {
        assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
    }
    let by_time = <TimeSortKey as linnet_domain::SortKey>::read(text).map(|after| Cursor { after });
    if let Some(cursor) = by_time {
        assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
    }
}

/// A message of the invalidation bus: a valid one is printed and read again.
pub(super) fn invalidation(input: &[u8]) {
    let Ok(message) = std::str::from_utf8(input) else { return };
    if let Some(invalidation) = Invalidation::decode(message) {
        assert_eq!(Invalidation::decode(&invalidation.encode()), Some(invalidation));
    }
    for invalidation in [
        Invalidation::Link {
            code: message.to_owned(),
            version: i64::try_from(input.len()).unwrap_or(0),
        },
        Invalidation::Key { id: message.to_owned() },
    ] {
        assert_eq!(Invalidation::decode(&invalidation.encode()), Some(invalidation));
    }
}
