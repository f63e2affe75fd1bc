//! The kinds of rows: their columns and their validation.

use std::sync::LazyLock;

use linnet_domain::{
    Email, EventDetails, EventType, JobKind, LinkAttributePatch, LinkField, RowProblem, ShortCode,
    User, UserId, bounded_text,
    rules::{Rule, Time, Violation},
};
use linnet_store::{ImportEvent, ImportLink, ImportUser, WriteRows};

use super::{
    row_rules::RowRules,
    source::{Columns, Row},
    values::{Values, own_id, reference},
};

/// A kind of row.
pub trait ImportRow: WriteRows {
    /// Its columns.
    fn columns() -> Columns;

    /// Validates a row, and returns all its problems.
    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>>;
}

/// The first columns of the list of bad rows, before the columns of the row. Imports ignore them, so a corrected list
/// can be uploaded unchanged.
pub const REPORT_COLUMNS: [&str; 4] = ["error_line", "error_column", "error_code", "error_message"];
/// Columns of exports and of the list of bad rows that imports ignore.
const IGNORED: &[&str] = &[
    "error_line",
    "error_column",
    "error_code",
    "error_message",
    "clicks",
    "short_url",
    "taken_down_at",
    "takedown_reason",
];

/// The columns of a job's rows.
pub fn columns_of(kind: JobKind) -> Columns {
    match kind {
        JobKind::ImportUsers => ImportUser::columns(),
        JobKind::ImportUrls => ImportLink::columns(),
    }
}

impl ImportRow for ImportUser {
    fn columns() -> Columns {
        Columns {
            required: &["username", "email"],
            optional: &["id", "created_at"],
            ignored: IGNORED,
            objects: &[],
        }
    }

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row, rules);
        let id = if rules.by_admin { values.optional("id", own_id) } else { None };
        let username = values.required("username", |text| {
            bounded_text(text, User::MAX_USERNAME).map_err(Violation::invalid)
        });
        let email = values.required("email", |text| Email::parse(text).map_err(Violation::invalid));
        let created_at = values.optional("created_at", Time::from_text);
        let user = (|| Some(Self { id, username: username?, email: email?, created_at }))();
        values.finish(user)
    }
}

/// The optional columns of a link.
static LINK_COLUMNS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let fields = LinkField::ALL.iter().filter(|field| field.importable).map(|field| field.name);
    let before = ["id", "user_id", "short_code"];
    before.into_iter().chain(fields).chain(["created_at", "updated_at"]).collect()
});

impl ImportRow for ImportLink {
    fn columns() -> Columns {
        Columns {
            required: &["original_url"],
            optional: &LINK_COLUMNS,
            ignored: IGNORED,
            objects: &[],
        }
    }

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row, rules);
        let id = if rules.by_admin { values.optional("id", own_id) } else { None };
        let user_id = owner(row, &mut values, rules);
        let short_code = values
            .optional("short_code", |text| ShortCode::parse(text).map_err(Violation::invalid));
        let target = values
            .required("original_url", |text| rules.targets.parse(text).map_err(Violation::invalid));
        let attributes = LinkAttributePatch::read(&mut values);
        let created_at = values.optional("created_at", Time::from_text);
        let updated_at = values.optional("updated_at", Time::from_text);
        let link = target.map(|target| Self {
            id,
            user_id,
            short_code,
            target,
            attributes,
            created_at,
            updated_at,
        });
        values.finish(link)
    }
}

/// The owner of a link. If an administrator's cell is empty, the link has no owner.
fn owner(row: &Row<'_>, values: &mut Values<'_>, rules: &RowRules) -> Option<UserId> {
    let named = values.optional("user_id", reference);
    if rules.by_admin && row.is_given("user_id") {
        return named;
    }
    if !rules.by_admin && named.is_some() && named != rules.owner {
        let rule = "must be your own id; only administrators name other users";
        values.problem("user_id", Violation::new("forbidden", rule));
    }
    named.or(rules.owner)
}

impl ImportRow for ImportEvent {
    fn columns() -> Columns {
        Columns {
            required: &["id", "event_type", "timestamp"],
            optional: &["url_id", "user_id", "details"],
            ignored: IGNORED,
            objects: &["details"],
        }
    }

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row, rules);
        let number = values.required("id", own_id);
        let url_id = values.optional("url_id", reference);
        let user_id = values.optional("user_id", reference);
        let event_type = values
            .required("event_type", |text| EventType::parse(text).map_err(Violation::invalid));
        let timestamp = values.required("timestamp", Time::from_text);
        let details = values.optional("details", EventDetails::from_text).unwrap_or_default();
        let event = (|| {
            Some(Self {
                id: number?,
                url_id,
                user_id,
                event_type: event_type?.as_str().to_owned(),
                timestamp: timestamp?,
                details,
            })
        })();
        values.finish(event)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use chrono::{DateTime, Utc};

    use super::*;
    use crate::source::Rows;
    use linnet_domain::{LinkId, RowFormat, TargetPolicy};

    fn now() -> DateTime<Utc> {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn read<T: ImportRow>(text: &str, by_admin: bool) -> Vec<Result<T, Vec<RowProblem>>> {
        read_as(RowFormat::Csv, text, by_admin)
    }

    fn read_as<T: ImportRow>(
        format: RowFormat,
        text: &str,
        by_admin: bool,
    ) -> Vec<Result<T, Vec<RowProblem>>> {
        let targets = TargetPolicy::new(&["https".into()], "http://localhost:8080", &[]).unwrap();
        let rules = RowRules {
            targets,
            by_admin,
            owner: UserId::new(7),
            null_columns: vec!["title".to_owned()],
            now: now(),
        };
        let mut source = Rows::open(Cursor::new(text), format, &T::columns()).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = source.next().unwrap() {
            rows.push(T::read(&row, &rules));
        }
        rows
    }

    #[test]
    fn exports_have_no_unknown_columns() {
        let header = "id,user_id,short_code,original_url,title,is_active,redirect_status,expires_at,max_clicks,clicks,\
                      created_at,updated_at,taken_down_at,takedown_reason\n";
        let columns = ImportLink::columns();
        let csv = Rows::open(Cursor::new(header), RowFormat::Csv, &columns).unwrap();
        assert!(csv.unknown_columns().is_empty(), "{:?}", csv.unknown_columns());
        let members: Vec<_> =
            header.trim().split(',').map(|name| format!("\"{name}\":1")).collect();
        let object = format!("{{{}}}", members.join(","));
        let mut rows = Rows::open(Cursor::new(object), RowFormat::NdJson, &columns).unwrap();
        assert!(rows.next().unwrap().is_some());
        assert!(rows.unknown_columns().is_empty(), "{:?}", rows.unknown_columns());
    }

    fn columns<T>(row: &Result<T, Vec<RowProblem>>) -> Vec<&str> {
        let problems = row.as_ref().err().expect("a bad row");
        problems.iter().map(|problem| problem.column.as_str()).collect()
    }

    #[test]
    fn must_03_must_04_must_21_links_obey_the_rules_of_the_api() {
        let rows = read::<ImportLink>(
            "id,short_code,original_url,is_active\n\
             1,J1O697,https://example.com,False\n\
             2,API,https://example.com,True\n\
             3,abcd,javascript:alert(1),True\n\
             4,a b,http://localhost:1/x,maybe\n\
             5,abcde,https://localhost/x,\n",
            true,
        );
        let good = rows[0].as_ref().unwrap();
        assert_eq!(
            (good.id, good.attributes.is_active, good.user_id),
            (LinkId::new(1), Some(false), UserId::new(7))
        );
        assert_eq!(columns(&rows[1]), ["short_code"]);
        assert_eq!(columns(&rows[2]), ["original_url"]);
        assert_eq!(columns(&rows[3]), ["short_code", "original_url", "is_active"]);
        assert_eq!(columns(&rows[4]), ["original_url"], "own host");
    }

    #[test]
    fn empty_cells_leave_fields_as_they_are_and_null_clears_them_where_that_is_an_option() {
        let rows = read::<ImportLink>(
            "original_url,title,max_clicks,is_active\n\
             https://example.com,,,\n\
             https://example.com,null,,\n\
             https://example.com,Null,,\n\
             https://example.com,,null,\n",
            false,
        );
        let attributes = |row: usize| rows[row].as_ref().unwrap().attributes.clone();
        assert_eq!(attributes(0), LinkAttributePatch::default());
        let cleared = LinkAttributePatch { title: Some(None), ..Default::default() };
        assert_eq!(attributes(1), cleared);
        assert_eq!(attributes(2).title, Some(Some("Null".to_owned())));
        assert_eq!(columns(&rows[3]), ["max_clicks"], "the option does not name this column");
    }

    #[test]
    fn null_of_json_clears_only_fields_that_may_be_cleared() {
        let rows = read_as::<ImportLink>(
            RowFormat::NdJson,
            "{\"original_url\":\"https://example.com\",\"max_clicks\":null,\"is_active\":null}\n\
             {\"original_url\":null}\n\
             {\"original_url\":\"https://example.com\",\"title\":{}}\n",
            false,
        );
        let cleared = LinkAttributePatch { max_clicks: Some(None), ..Default::default() };
        assert_eq!(rows[0].as_ref().unwrap().attributes, cleared);
        let problems = |row: usize| {
            let problem = &rows[row].as_ref().unwrap_err()[0];
            (problem.column.clone(), problem.code.clone())
        };
        assert_eq!(problems(1), ("original_url".to_owned(), "required".to_owned()));
        assert_eq!(problems(2), ("title".to_owned(), "wrong_type".to_owned()));
    }

    #[test]
    fn must_16_users_have_a_name_and_an_address_and_ids_only_from_administrators() {
        let text = "id,username,email,created_at\n\
                    5,anna,anna@example.com,2025-09-28 22:57:23\n\
                    6,,anna,yesterday\n\
                    ,otto,otto@example.com,\n";
        for by_admin in [false, true] {
            let rows = read::<ImportUser>(text, by_admin);
            let anna = rows[0].as_ref().unwrap();
            assert_eq!(anna.id, UserId::new(5).filter(|_| by_admin));
            assert_eq!((&*anna.username, anna.email.as_str()), ("anna", "anna@example.com"));
            assert_eq!(anna.created_at, "2025-09-28T22:57:23Z".parse().ok());
            assert_eq!(columns(&rows[1]), ["username", "email", "created_at"]);
            let otto = rows[2].as_ref().unwrap();
            assert_eq!((otto.id, otto.created_at), (None, None));
        }
        let known = |kind| columns_of(kind).required;
        assert_eq!(known(JobKind::ImportUsers), ["username", "email"]);
        assert_eq!(known(JobKind::ImportUrls), ["original_url"]);
    }

    #[test]
    fn an_expiry_of_a_row_is_in_the_future() {
        let rows = read::<ImportLink>(
            "original_url,expires_at\n\
             https://example.com,2026-11-27 12:00:01\n\
             https://example.com,2026-11-27T12:00:00Z\n",
            false,
        );
        assert!(rows[0].is_ok());
        let problems = rows[1].as_ref().unwrap_err();
        assert_eq!(problems[0].message, "must be in the future");
    }

    #[test]
    fn must_16_only_administrators_bring_ids_and_name_others() {
        let text = "id,user_id,original_url\n5,7,https://example.com\n6,8,https://example.com\n\
                    7,,https://example.com\n";
        let own = read::<ImportLink>(text, false);
        let first = own[0].as_ref().unwrap();
        assert_eq!((first.id, first.user_id), (None, UserId::new(7)));
        assert_eq!(columns(&own[1]), ["user_id"]);
        assert_eq!(own[2].as_ref().unwrap().user_id, UserId::new(7));
        let all = read::<ImportLink>(text, true);
        assert_eq!(all[1].as_ref().unwrap().user_id, UserId::new(8));
        assert_eq!(
            all[2].as_ref().unwrap().user_id,
            None,
            "an administrator's empty cell means no owner"
        );
    }

    #[test]
    fn event_details_are_objects() {
        let rows = read::<ImportEvent>(
            "id,url_id,user_id,event_type,timestamp,details\n\
             1,1,1,created,2025-09-28 22:57:23,\"{\"\"a\"\":1}\"\n\
             2,1,1,created,2025-09-28 22:57:23,[]\n\
             3,1,1,created,2025-09-28 22:57:23,\"{\"\"a\"\":\"\"\\u0000\"\"}\"\n\
             4,,,deleted,2025-09-28 22:57:23,\n",
            true,
        );
        assert_eq!(rows[0].as_ref().unwrap().details.as_str(), "{\"a\":1}");
        assert!(rows[1].is_err());
        assert!(rows[2].is_err());
        assert!(rows[3].is_ok());
    }
}
