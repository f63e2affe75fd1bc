//! Rows of an export, as bytes of a file.
//!
//! A million of them are written while the database could send a million more, so nothing here makes
//! a value of its own for a cell.

use std::{
    fmt::Display,
    io::{self, Write},
};

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

use crate::http::csv::push_text;
use linnet_store::ExportedLink;

use super::ExportFormat;

/// The columns, in their order.
const COLUMNS: [&str; 12] = [
    "id",
    "user_id",
    "short_code",
    "original_url",
    "title",
    "is_active",
    "redirect_status",
    "expires_at",
    "max_clicks",
    "clicks",
    "created_at",
    "updated_at",
];

/// Gathers rows.
pub(super) struct RowWriter {
    format: ExportFormat,
    bytes: Vec<u8>,
    capacity: usize,
}

impl RowWriter {
    /// With room for so many bytes. CSV begins with the line of names.
    pub(super) fn new(format: ExportFormat, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        if format == ExportFormat::Csv {
            bytes.extend_from_slice(COLUMNS.join(",").as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        Self { format, bytes, capacity }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what waits.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.bytes, Vec::with_capacity(self.capacity))
    }

    /// Adds a link. A vector refuses nothing, so there are no errors in practice.
    pub(super) fn push(&mut self, link: &ExportedLink<'_>) -> io::Result<()> {
        match self.format {
            ExportFormat::Csv => push_csv(&mut self.bytes, link),
            ExportFormat::Ndjson => push_json(&mut self.bytes, link),
        }
    }
}

fn push_csv(row: &mut Vec<u8>, link: &ExportedLink<'_>) -> io::Result<()> {
    write!(row, "{},", link.id)?;
    push_optional(row, link.user_id)?;
    row.push(b',');
    push_text(row, link.short_code);
    row.push(b',');
    push_text(row, link.original_url);
    row.push(b',');
    push_text(row, link.title.unwrap_or_default());
    write!(row, ",{},{},", link.is_active, link.redirect_status)?;
    if let Some(time) = link.expires_at {
        push_time(row, time);
    }
    row.push(b',');
    push_optional(row, link.max_clicks)?;
    write!(row, ",{},", link.clicks)?;
    push_time(row, link.created_at);
    row.push(b',');
    push_time(row, link.updated_at);
    row.extend_from_slice(b"\r\n");
    Ok(())
}

fn push_optional(row: &mut Vec<u8>, number: Option<impl Display>) -> io::Result<()> {
    number.map_or(Ok(()), |number| write!(row, "{number}"))
}

fn push_json(row: &mut Vec<u8>, link: &ExportedLink<'_>) -> io::Result<()> {
    row.extend_from_slice(b"{\"id\":");
    serde_json::to_writer(&mut *row, &link.id)?;
    row.extend_from_slice(b",\"user_id\":");
    serde_json::to_writer(&mut *row, &link.user_id)?;
    row.extend_from_slice(b",\"short_code\":");
    serde_json::to_writer(&mut *row, link.short_code)?;
    row.extend_from_slice(b",\"original_url\":");
    serde_json::to_writer(&mut *row, link.original_url)?;
    row.extend_from_slice(b",\"title\":");
    serde_json::to_writer(&mut *row, &link.title)?;
    write!(
        row,
        ",\"is_active\":{},\"redirect_status\":{},\"expires_at\":",
        link.is_active, link.redirect_status
    )?;
    match link.expires_at {
        Some(time) => push_quoted_time(row, time),
        None => row.extend_from_slice(b"null"),
    }
    row.extend_from_slice(b",\"max_clicks\":");
    serde_json::to_writer(&mut *row, &link.max_clicks)?;
    write!(row, ",\"clicks\":{},\"created_at\":", link.clicks)?;
    push_quoted_time(row, link.created_at);
    row.extend_from_slice(b",\"updated_at\":");
    push_quoted_time(row, link.updated_at);
    row.extend_from_slice(b"}\n");
    Ok(())
}

fn push_quoted_time(row: &mut Vec<u8>, time: DateTime<Utc>) {
    row.push(b'"');
    push_time(row, time);
    row.push(b'"');
}

/// RFC 3339 with microseconds, as `to_rfc3339_opts` writes it, in a fifth of its time.
fn push_time(row: &mut Vec<u8>, time: DateTime<Utc>) {
    let time = time.naive_utc();
    let Ok(year @ 0..=9999) = u32::try_from(time.year()) else {
        // RFC 3339 has no such year, and neither has the API.
        let text = time.and_utc().to_rfc3339_opts(SecondsFormat::Micros, true);
        row.extend_from_slice(text.as_bytes());
        return;
    };
    let micros = time.nanosecond() / 1_000;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let parts = [
        (0, year / 100),
        (2, year % 100),
        (5, time.month()),
        (8, time.day()),
        (11, time.hour()),
        (14, time.minute()),
        (17, time.second()),
        (20, micros / 10_000),
        (22, micros / 100 % 100),
        (24, micros % 100),
    ];
    for (at, number) in parts {
        if let Some(digits) = text.get_mut(at..at + 2) {
            digits.copy_from_slice(&two_digits(number));
        }
    }
    row.extend_from_slice(&text);
}

/// Of a number below 100.
fn two_digits(number: u32) -> [u8; 2] {
    let digit = |digit: u32| b'0' + u8::try_from(digit % 10).unwrap_or(0);
    [digit(number / 10), digit(number)]
}

#[cfg(test)]
mod tests {
    use linnet_domain::{LinkId, UserId};

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn link() -> ExportedLink<'static> {
        ExportedLink {
            id: LinkId::new(7).unwrap(),
            user_id: None,
            short_code: "-abc",
            original_url: "https://example.com/?a=1,2",
            title: Some("=\"1\""),
            is_active: true,
            redirect_status: 308,
            expires_at: None,
            max_clicks: Some(3),
            clicks: 12,
            created_at: time("2026-11-20T17:39:00.038807Z"),
            updated_at: time("2026-11-20T17:39:01Z"),
        }
    }

    fn written(format: ExportFormat, links: &[ExportedLink<'_>]) -> String {
        let mut rows = RowWriter::new(format, 0);
        for link in links {
            rows.push(link).unwrap();
        }
        String::from_utf8(rows.take()).unwrap()
    }

    #[test]
    fn must_10_no_cell_is_a_formula() {
        let csv = written(ExportFormat::Csv, &[link()]);
        assert_eq!(
            csv,
            "id,user_id,short_code,original_url,title,is_active,redirect_status,expires_at,\
             max_clicks,clicks,created_at,updated_at\r\n\
             7,,'-abc,\"https://example.com/?a=1,2\",\"'=\"\"1\"\"\",true,308,,3,12,\
             2026-11-20T17:39:00.038807Z,2026-11-20T17:39:01.000000Z\r\n"
        );
    }

    #[test]
    fn json_has_every_key_of_its_line() {
        let other = ExportedLink {
            user_id: UserId::new(1),
            title: None,
            is_active: false,
            expires_at: Some(time("2027-01-31T11:00:00Z")),
            ..link()
        };
        let text = written(ExportFormat::Ndjson, &[link(), other]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            serde_json::json!({
                "id": 7, "user_id": null, "short_code": "-abc",
                "original_url": "https://example.com/?a=1,2", "title": "=\"1\"",
                "is_active": true, "redirect_status": 308, "expires_at": null, "max_clicks": 3,
                "clicks": 12, "created_at": "2026-11-20T17:39:00.038807Z",
                "updated_at": "2026-11-20T17:39:01.000000Z"
            })
        );
        assert_eq!(lines[1]["user_id"], 1);
        assert_eq!(lines[1]["title"], serde_json::Value::Null);
        assert_eq!(lines[1]["is_active"], false);
        assert_eq!(lines[1]["expires_at"], "2027-01-31T11:00:00.000000Z");
        for line in lines {
            assert_eq!(line.as_object().unwrap().len(), COLUMNS.len());
            assert!(COLUMNS.iter().all(|column| line.get(column).is_some()));
        }
    }

    #[test]
    fn times_are_as_chrono_writes_them() {
        for text in [
            "1970-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2024-02-29T01:02:03.000001Z",
            "2026-11-21T16:09:10.120340Z",
            "+10000-01-01T00:00:00Z",
            "-0001-12-31T00:00:00Z",
        ] {
            let time = time(text);
            let mut row = Vec::new();
            push_time(&mut row, time);
            let wanted = time.to_rfc3339_opts(SecondsFormat::Micros, true);
            assert_eq!(String::from_utf8(row).unwrap(), wanted);
        }
    }
}
