//! What each kind of row is made of.

use crate::{
    domain::{Email, EventType, Link, ShortCode, TargetPolicy, User, bounded_text},
    store::{ImportEvent, ImportLink, ImportUser},
};

use super::{
    Row, RowError,
    values::{Values, boolean, id, time},
};

/// What validation needs to know.
#[derive(Debug, Clone)]
pub struct RowRules {
    /// Which targets are accepted.
    pub targets: TargetPolicy,
}

/// A kind of row.
pub trait ImportRow: Sized {
    /// Columns that must be there.
    const REQUIRED: &'static [&'static str];
    /// Columns that may be there.
    const OPTIONAL: &'static [&'static str];

    /// Validates a row, and tells everything that is wrong with it.
    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowError>>;

    /// The row's explicit id.
    fn id(&self) -> i64;
}

fn text<E: std::fmt::Display>(result: Result<String, E>) -> Result<String, String> {
    result.map_err(|error| error.to_string())
}

impl ImportRow for ImportUser {
    const REQUIRED: &'static [&'static str] = &["id", "username", "email", "created_at"];
    const OPTIONAL: &'static [&'static str] = &[];

    fn read(row: &Row<'_>, _: &RowRules) -> Result<Self, Vec<RowError>> {
        let mut values = Values::new(row);
        let id = values.required("id", id);
        let username =
            values.required("username", |value| text(bounded_text(value, User::MAX_USERNAME)));
        let email =
            values.required("email", |value| Email::parse(value).map_err(|e| e.to_string()));
        let created_at = values.required("created_at", time);
        let user = (|| {
            Some(Self { id: id?, username: username?, email: email?, created_at: created_at? })
        })();
        values.finish(user)
    }

    fn id(&self) -> i64 {
        self.id
    }
}

impl ImportRow for ImportLink {
    const REQUIRED: &'static [&'static str] = &["id", "short_code", "original_url"];
    const OPTIONAL: &'static [&'static str] =
        &["user_id", "title", "is_active", "created_at", "updated_at"];

    fn read(row: &Row<'_>, rules: &RowRules) -> Result<Self, Vec<RowError>> {
        let mut values = Values::new(row);
        let number = values.required("id", id);
        let user_id = values.optional("user_id", id);
        let short_code = values
            .required("short_code", |value| ShortCode::parse(value).map_err(|e| e.to_string()));
        let target = values.required("original_url", |value| {
            rules.targets.parse(value).map_err(|e| e.to_string())
        });
        let title = values.optional("title", |value| text(bounded_text(value, Link::MAX_TITLE)));
        let is_active = values.optional("is_active", boolean).unwrap_or(true);
        let created_at = values.optional("created_at", time).unwrap_or_else(chrono::Utc::now);
        let updated_at = values.optional("updated_at", time).unwrap_or(created_at);
        let link = (|| {
            Some(Self {
                id: number?,
                user_id,
                short_code: short_code?,
                target: target?,
                title,
                is_active,
                created_at,
                updated_at,
            })
        })();
        values.finish(link)
    }

    fn id(&self) -> i64 {
        self.id
    }
}

impl ImportRow for ImportEvent {
    const REQUIRED: &'static [&'static str] = &["id", "event_type", "timestamp"];
    const OPTIONAL: &'static [&'static str] = &["url_id", "user_id", "details"];

    fn read(row: &Row<'_>, _: &RowRules) -> Result<Self, Vec<RowError>> {
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

    fn id(&self) -> i64 {
        self.id
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
    use super::*;
    use crate::import::CsvReader;
    use linnet_platform::settings::PublicSettings;

    async fn read<T: ImportRow>(text: &str) -> Vec<Result<T, Vec<RowError>>> {
        let rules = RowRules {
            targets: TargetPolicy::new(&["https".into()], &PublicSettings::default()).unwrap(),
        };
        let mut reader = CsvReader::open(text.as_bytes(), T::REQUIRED, T::OPTIONAL).await.unwrap();
        let mut rows = Vec::new();
        while let Some(row) = reader.next().await.unwrap() {
            rows.push(row.map_err(|error| vec![error]).and_then(|row| T::read(&row, &rules)));
        }
        rows
    }

    #[tokio::test]
    async fn must_03_must_21_links_obey_the_rules_of_the_api() {
        let rows = read::<ImportLink>(
            "id,short_code,original_url,is_active\n\
             1,J1O697,https://example.com,False\n\
             2,API,https://example.com,True\n\
             3,abcd,javascript:alert(1),True\n\
             4,a b,http://localhost:1/x,maybe\n",
        )
        .await;
        let good = rows[0].as_ref().unwrap();
        assert_eq!((good.id, good.is_active, good.user_id), (1, false, None));
        let columns = |row: usize| {
            let errors = rows[row].as_ref().unwrap_err();
            errors.iter().map(|error| (error.line, error.column)).collect::<Vec<_>>()
        };
        assert_eq!(columns(1), [(3, "short_code")]);
        assert_eq!(columns(2), [(4, "original_url")]);
        assert_eq!(columns(3), [(5, "short_code"), (5, "original_url"), (5, "is_active")]);
    }

    #[tokio::test]
    async fn event_details_are_objects() {
        let rows = read::<ImportEvent>(
            "id,url_id,user_id,event_type,timestamp,details\n\
             1,1,1,created,2025-09-28 22:57:23,\"{\"\"a\"\":1}\"\n\
             2,1,1,created,2025-09-28 22:57:23,[]\n\
             3,1,1,created,2025-09-28 22:57:23,\"{\"\"a\"\":\"\"\\u0000\"\"}\"\n\
             4,,,deleted,2025-09-28 22:57:23,\n",
        )
        .await;
        assert_eq!(rows[0].as_ref().unwrap().details["a"], 1);
        assert!(rows[1].is_err());
        assert!(rows[2].is_err());
        assert!(rows[3].is_ok());
    }
}
