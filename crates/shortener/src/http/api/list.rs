//! Lists: a JSON array per page, with an RFC 8288 `Link` header to the next page.

use std::rc::Rc;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::header::{HeaderValue, LINK},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use linnet_domain::{
    Cursor, MAX_PAGE_NUMBER, MAX_PAGE_SIZE, Page, PageStart, SortKey,
    rules::{Violation, string},
};

use super::{
    super::error::ApiError,
    fields::{Fields, QueryFields, query_positive},
};

/// The parameters of every list, read from a query string.
pub(crate) struct ListQuery<P = i64> {
    pairs: Rc<[(String, String)]>,
    /// The requested page.
    pub(super) page: Page<P>,
}

fn page_size(value: serde_json::Value) -> Result<i64, Violation> {
    let size = query_positive(value)?;
    if size <= MAX_PAGE_SIZE {
        Ok(size)
    } else {
        Err(Violation::out_of_range(format!("must be a whole number from 1 to {MAX_PAGE_SIZE}")))
    }
}

fn page_number(value: serde_json::Value) -> Result<i64, Violation> {
    let number = query_positive(value)?;
    if number <= MAX_PAGE_NUMBER {
        Ok(number)
    } else {
        let rule =
            format!("must be a whole number from 1 to {MAX_PAGE_NUMBER}; continue with `cursor`");
        Err(Violation::out_of_range(rule))
    }
}

/// The parameters of every list except `cursor`, documented. `limit` and `cursor` override `per_page` and `page`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `ListQuery` reads it")]
pub(crate) struct ListParams {
    /// The maximum number of items on the page. Default: 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The number of the page, from 1, for clients that page by number.
    #[param(minimum = 1, maximum = 500)]
    page: Option<i64>,
    /// The same as `limit`.
    #[param(minimum = 1, maximum = 200)]
    per_page: Option<i64>,
}

/// The cursor of a list in the order of ids.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `ListQuery` reads it")]
pub(crate) struct CursorParam {
    /// From the `Link` header of the previous page.
    #[param(value_type = Option<CursorText>)]
    cursor: Option<String>,
}

/// The cursor of a list in the order of time.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `ListQuery` reads it")]
pub(crate) struct TimeCursorParam {
    /// From the `Link` header of the previous page.
    #[param(value_type = Option<TimeCursorText>)]
    cursor: Option<String>,
}

/// A position in a list. Opaque: only values from a `Link` header are valid.
#[derive(ToSchema)]
#[schema(as = Cursor, format = "cursor")]
#[expect(dead_code, reason = "documents the input")]
pub(crate) struct CursorText(String);

/// A position in a list of events. Opaque: only values from a `Link` header are valid.
#[derive(ToSchema)]
#[schema(as = TimeCursor, format = "time-cursor")]
#[expect(dead_code, reason = "documents the input")]
pub(crate) struct TimeCursorText(String);

impl<P: SortKey> ListQuery<P> {
    /// Reads `limit` and `cursor`, or `page` and `per_page`. `filters` reads the other parameters.
    pub(super) fn read<T>(
        query: QueryFields,
        filters: impl FnOnce(&mut Fields) -> T,
    ) -> Result<(Self, T), ApiError> {
        let QueryFields { mut fields, pairs } = query;
        let number = fields.optional("page", page_number);
        let per_page = fields.optional("per_page", page_size);
        let cursor = fields
            .optional("cursor", |value| Cursor::parse(&string(value)?).map_err(Violation::invalid))
            .map(|cursor| cursor.after);
        let limit = fields.optional("limit", page_size);
        let position = match (cursor, limit, number, per_page) {
            (None, None, None, Some(_)) => PageStart::Number(1),
            (None, _, Some(number), _) => PageStart::Number(number),
            (cursor, ..) => PageStart::After(cursor.unwrap_or(P::START)),
        };
        let size = limit.or(per_page).unwrap_or(Page::<P>::default().size);
        let page = Page { position, size };
        let filters = filters(&mut fields);
        fields.finish()?;
        Ok((Self { pairs, page }, filters))
    }

    /// The array, with a link to the next page when this one is full. `point_of` returns the point after which the next
    /// page begins.
    pub(super) fn respond<T: Serialize>(
        &self,
        path: &str,
        items: &[T],
        point_of: impl FnOnce(&T) -> P,
    ) -> HttpResponse {
        self.begin(path, items, None, point_of).json(items)
    }

    /// A response with a link to the next page, when this one is full. `cut_after` is the point after which the next page
    /// begins when this one is not full.
    pub(super) fn begin<T>(
        &self,
        path: &str,
        items: &[T],
        cut_after: Option<P>,
        point_of: impl FnOnce(&T) -> P,
    ) -> HttpResponseBuilder {
        let mut response = HttpResponse::Ok();
        if let Some(next) = self.next(path, items, cut_after, point_of) {
            response.insert_header((LINK, next));
        }
        response
    }

    fn next<T>(
        &self,
        path: &str,
        items: &[T],
        cut_after: Option<P>,
        point_of: impl FnOnce(&T) -> P,
    ) -> Option<HeaderValue> {
        let full = i64::try_from(items.len()).is_ok_and(|count| count == self.page.size);
        let next = match (items.last().filter(|_| full), self.page.position) {
            (Some(_), PageStart::Number(number)) => ("page", (number + 1).to_string()),
            (Some(last), PageStart::After(_)) => {
                ("cursor", Cursor { after: point_of(last) }.encode())
            }
            // The next number would begin after the items that were cut off.
            (None, _) => ("cursor", Cursor { after: cut_after? }.encode()),
        };
        HeaderValue::from_str(&self.link(path, &next)).ok()
    }

    /// The same query with another position.
    fn link(&self, path: &str, next: &(&str, String)) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let is_position = |name: &str| name == "cursor" || name == "page";
        for (name, value) in self.pairs.iter().filter(|(name, _)| !is_position(name)) {
            query.append_pair(name, value);
        }
        query.append_pair(next.0, &next.1);
        format!("<{path}?{}>; rel=\"next\"", query.finish())
    }
}
