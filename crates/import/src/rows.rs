//! What each kind of row is made of.

use linnet_domain::{
    Email, EventType, JobKind, Link, RowProblem, ShortCode, TargetPolicy, User, UserId,
    bounded_text,
};
use linnet_store::{GivenLinkFields, ImportEvent, ImportLink, ImportUser, WriteRows};

use super::{
    source::{Columns, Row},
    values::{Values, boolean, id, positive, redirect_status, time},
};

/// What validation needs to know.
#[derive(Debug, Clone)]
pub struct RowRules {
    /// Which targets are accepted.
    pub targets: TargetPolicy,
    /// Whether rows may bring ids and name their owners. Others' ids are passed over.
    pub by_admin: bool,
    /// Who owns links that name no owner.
    pub owner: Option<UserId>,
}

/// A kind of row.
pub trait ImportRow: WriteRows {
    /// What it is made of.
    const COLUMNS: Columns;

    /// Validates a row, and tells everything that is wrong with it.
    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>>;
}

/// Columns of the list of bad rows that stand before the row itself: it can be mended and sent as it
/// is.
pub const REPORT_COLUMNS: [&str; 4] = ["error_line", "error_column", "error_code", "error_message"];
/// Columns that exports have, and rows are not made of.
const IGNORED: &[&str] =
    &["error_line", "error_column", "error_code", "error_message", "clicks", "short_url"];

/// The columns of a job's rows.
pub fn columns_of(kind: JobKind) -> Columns {
    match kind {
        JobKind::ImportUsers => ImportUser::COLUMNS,
        JobKind::ImportUrls => ImportLink::COLUMNS,
    }
}

fn text<E: std::fmt::Display>(result: Result<String, E>) -> Result<String, String> {
    result.map_err(|error| error.to_string())
}

impl ImportRow for ImportUser {
    const COLUMNS: Columns = Columns {
        required: &["username", "email"],
        optional: &["id", "created_at"],
        ignored: IGNORED,
        objects: &[],
    };

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row);
        let id = if rules.by_admin { values.optional("id", id) } else { None };
        let username =
            values.required("username", |value| text(bounded_text(value, User::MAX_USERNAME)));
        let email =
            values.required("email", |value| Email::parse(value).map_err(|e| e.to_string()));
        let created_at = values.optional("created_at", time);
        let user = (|| Some(Self { id, username: username?, email: email?, created_at }))();
        values.finish(user)
    }
}

impl ImportRow for ImportLink {
    const COLUMNS: Columns = Columns {
        required: &["original_url"],
        optional: &[
            "id",
            "user_id",
            "short_code",
            "title",
            "is_active",
            "redirect_status",
            "expires_at",
            "max_clicks",
            "created_at",
            "updated_at",
        ],
        ignored: IGNORED,
        objects: &[],
    };

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row);
        let number = if rules.by_admin { values.optional("id", id) } else { None };
        let named = values.optional("user_id", id);
        if !rules.by_admin && named.is_some() && named != rules.owner {
            let message = "only an administrator names other users";
            values.problem("user_id", "forbidden", message.to_owned());
        }
        let is_owned = rules.by_admin && row.is_given("user_id");
        let user_id = if is_owned { named } else { named.or(rules.owner) };
        let short_code = values
            .optional("short_code", |value| ShortCode::parse(value).map_err(|e| e.to_string()));
        let target = values.required("original_url", |value| {
            rules.targets.parse(value).map_err(|e| e.to_string())
        });
        let title = values.optional("title", |value| text(bounded_text(value, Link::MAX_TITLE)));
        let active = values.optional("is_active", boolean);
        let status = values.optional("redirect_status", redirect_status);
        let expires_at = values.optional("expires_at", time);
        let max_clicks = values.optional("max_clicks", positive);
        let created_at = values.optional("created_at", time);
        let updated_at = values.optional("updated_at", time);
        let given = GivenLinkFields {
            title: row.is_given("title"),
            is_active: active.is_some(),
            redirect_status: status.is_some(),
            expires_at: row.is_given("expires_at"),
            max_clicks: row.is_given("max_clicks"),
        };
        let link = target.map(|target| Self {
            id: number,
            user_id,
            short_code,
            target,
            title,
            is_active: active.unwrap_or(true),
            redirect_status: status.unwrap_or_default(),
            expires_at,
            max_clicks,
            created_at,
            updated_at,
            given,
        });
        values.finish(link)
    }
}

impl ImportRow for ImportEvent {
    const COLUMNS: Columns = Columns {
        required: &["id", "event_type", "timestamp"],
        optional: &["url_id", "user_id", "details"],
        ignored: IGNORED,
        objects: &["details"],
    };

    fn read(row: &Row<'_>, _: &RowRules) -> Result<Self, Vec<RowProblem>> {
        let mut values = Values::new(row);
        let number = values.required("id", id);
        let url_id = values.optional("url_id", id);
        let user_id = values.optional("user_id", id);
        let event_type = values
            .required("event_type", |value| EventType::parse(value).map_err(ToOwned::to_owned));
        let timestamp = values.required("timestamp", time);
        let details = values.optional("details", object).unwrap_or_default();
        let event = (|| {
            Some(Self {
                id: number?,
                url_id,
                user_id,
                event_type: event_type?.as_str().to_owned(),
                timestamp: timestamp?,
                details: details.into(),
            })
        })();
        values.finish(event)
    }
}

fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    match serde_json::from_str(text) {
        // PostgreSQL's jsonb has no NUL, and JSON writes it as an escape.
        Ok(serde_json::Value::Object(_)) if text.contains("\\u0000") => {
            Err("may not hold the NUL character".to_owned())
        }
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err("must be a JSON object".to_owned()),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::source::Rows;
    use linnet_domain::{LinkId, RowFormat};

    fn read<T: ImportRow>(text: &str, by_admin: bool) -> Vec<Result<T, Vec<RowProblem>>> {
        let targets = TargetPolicy::new(&["https".into()], "http://localhost:8080", &[]).unwrap();
        let rules = RowRules { targets, by_admin, owner: UserId::new(7) };
        let mut source = Rows::open(Cursor::new(text), RowFormat::Csv, &T::COLUMNS).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = source.next().unwrap() {
            rows.push(T::read(&row, &rules));
        }
        rows
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
            (good.id, good.is_active, good.user_id),
            (LinkId::new(1), false, UserId::new(7))
        );
        assert_eq!(columns(&rows[1]), ["short_code"]);
        assert_eq!(columns(&rows[2]), ["original_url"]);
        assert_eq!(columns(&rows[3]), ["short_code", "original_url", "is_active"]);
        assert_eq!(columns(&rows[4]), ["original_url"], "this service's own name");
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
        assert_eq!(all[2].as_ref().unwrap().user_id, None, "the column says that nobody owns it");
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
        assert_eq!(rows[0].as_ref().unwrap().details["a"], 1);
        assert!(rows[1].is_err());
        assert!(rows[2].is_err());
        assert!(rows[3].is_ok());
    }
}
