//! Query strings: ranges of statistics, time zones, and lists.

use actix_web::{http::header::ACCEPT, test::TestRequest};
use chrono::{DateTime, Days, Utc};
use linnet_domain::{
    Cursor, MAX_BUCKETS, MAX_PAGE_NUMBER, MAX_PAGE_SIZE, MAX_TOP, PageStart, SortKey, TimeSortKey,
    Zone,
};
use linnet_shortener::http::api::fuzzing::{
    read_event_list, read_import_options, read_link_list, read_stats_query,
};

use super::{
    bodies::{assert_names_fields, now},
    first_line,
};
use crate::memory::bounded;

/// The query of statistics, then `Accept`: an accepted range is bounded, and its buckets partition it.
pub(super) fn stats_query(input: &[u8]) {
    let Some((query, accept)) = first_line(input) else { return };
    let mut request = TestRequest::get();
    if let Ok(accept) = actix_web::http::header::HeaderValue::from_str(accept) {
        request = request.insert_header((ACCEPT, accept));
    }
    let query = match read_stats_query(query, &request.to_http_request()) {
        Ok(query) => query,
        Err(error) => return assert_names_fields(&error.0),
    };
    assert!((0..=MAX_TOP).contains(&query.top) && !query.dimensions.is_empty());
    let Ok(range) = bounded(input, 128 * 1024, 8, || query.range(now())) else { return };
    let starts = &range.starts;
    assert!(range.from < range.to);
    assert!(i64::try_from(starts.len()).is_ok_and(|count| (1..=MAX_BUCKETS).contains(&count)));
    assert!(starts.is_sorted_by(|a, b| a < b), "{range:?}");
    assert!(starts[0] <= range.from && starts[starts.len() - 1] < range.to, "{range:?}");
    assert!(starts.get(1).is_none_or(|second| *second > range.from), "{range:?}");
    assert!(range.first_day < range.end_day, "{range:?}");
}

/// A time zone, then a time in seconds: days follow one another without a gap or an overlap.
pub(super) fn time_zone(input: &[u8]) {
    let Some((name, rest)) = first_line(input) else { return };
    let Ok(zone) = Zone::parse(name) else { return };
    assert!(name.is_ascii());
    let other_case = Zone::parse(&name.to_ascii_uppercase()).expect("a name in any case");
    // From 1970 to 9998, as in ranges of statistics.
    let seconds =
        rest.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let seconds = rest.trim().parse::<u64>().unwrap_or(seconds) % 253_339_142_400;
    let at =
        DateTime::<Utc>::from_timestamp(i64::try_from(seconds).expect("small"), 0).expect("a year");
    let day = zone.day_of(at);
    assert_eq!(other_case.day_of(at), day);
    let next = day.checked_add_days(Days::new(1)).expect("a year of four digits");
    let (start, end) = (zone.day_start(day), zone.day_start(next));
    assert!(start <= at && at < end, "{name} {at}: {start} to {end}");
    assert_eq!(zone.day_of(start), day, "{name} {at}");
    let hours = (end - start).num_hours();
    assert!((1..=49).contains(&hours), "{name} {day} has {hours} hours");
}

/// The query of a list: the `Link` header of a page leads to a page with the same filters after the same item.
pub(super) fn list_query(input: &[u8]) {
    let Some((query, rest)) = first_line(input) else { return };
    let number = i64::try_from(rest.len()).expect("short");
    match read_link_list(query, number) {
        Ok(list) => {
            assert_page(list.page.size, &list.page.position);
            let next = next_query(list.next.as_ref());
            let again = read_link_list(&next, 0).expect("a page of the list");
            assert_eq!(format!("{:?}", again.filter), format!("{:?}", list.filter));
            assert_eq!(again.page.size, list.page.size);
            assert_eq!(again.page.position, PageStart::After(number));
        }
        Err(error) => assert_names_fields(&error.0),
    }
    let after = TimeSortKey { time: DateTime::from_timestamp_micros(number), id: number };
    match read_event_list(query, after) {
        Ok(list) => {
            assert_page(list.page.size, &list.page.position);
            let again = read_event_list(&next_query(list.next.as_ref()), TimeSortKey::START);
            let again = again.expect("a page of the list");
            assert_eq!(format!("{:?}", again.filter), format!("{:?}", list.filter));
            assert_eq!(again.page.position, PageStart::After(after));
            assert_eq!(Cursor::parse(&Cursor { after }.encode()), Ok(Cursor { after }));
        }
        Err(error) => assert_names_fields(&error.0),
    }
    if let Err(error) = read_import_options(query, rest) {
        assert_names_fields(&error.0);
    }
}

fn assert_page<P>(size: i64, position: &PageStart<P>) {
    assert!((1..=MAX_PAGE_SIZE).contains(&size));
    if let PageStart::Number(number) = position {
        assert!((1..=MAX_PAGE_NUMBER).contains(number));
    }
}

/// The query in `</list?…>; rel="next"`.
fn next_query(link: Option<&actix_web::http::header::HeaderValue>) -> String {
    let link = link.expect("a link").to_str().expect("ASCII");
    let link = link.strip_prefix("</list?").and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    link.expect("RFC 8288").to_owned()
}
