//! `/problems/{code}`: the page to which the type of a problem leads, from the table of codes.

use std::fmt::Write as _;

use actix_web::{HttpResponse, http::header, web};
use linnet_protocol::problem_code::ProblemCode;

use super::{CACHE_5_MIN, LANDING_POLICY};
use crate::problems;

/// The page of one code; 404 for an unknown one.
pub(super) async fn page(code: web::Path<String>) -> HttpResponse {
    match ProblemCode::ALL.iter().find(|known| known.as_str() == code.as_str()) {
        Some(code) => {
            let body = format!(
                "<p>Status {}, code <code>{}</code>.</p>\n<p>{}.</p>\n\
                 <p>The member <code>detail</code> of the response describes the occurrence. \
                 <a href=\"/problems/\">All problems</a></p>",
                code.status().as_u16(),
                code.as_str(),
                text(code.when())
            );
            respond(code.title(), &body)
        }
        None => problems::not_found(),
    }
}

/// The list of all codes.
pub(super) async fn index() -> HttpResponse {
    let mut rows = String::from("<table><tr><th>status<th>code<th>title<th>when</tr>\n");
    for code in ProblemCode::ALL {
        let (status, name, title) = (code.status().as_u16(), code.as_str(), code.title());
        let when = text(code.when());
        // Writing to a string does not fail.
        let _ = writeln!(
            rows,
            "<tr><td>{status}<td><a href=\"/problems/{name}\">{name}</a><td>{title}<td>{when}</tr>"
        );
    }
    respond("Problems", &(rows + "</table>"))
}

fn respond(title: &str, body: &str) -> HttpResponse {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} – Linnet API</title>\n\
         <style>body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 50rem; margin: 8vh auto; padding: 0 1.5rem }} \
         td, th {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, LANDING_POLICY))
        .insert_header((header::CACHE_CONTROL, CACHE_5_MIN))
        .body(page)
}

/// The sentence of the table as HTML: code spans stay, links lose their targets.
fn text(markdown: &str) -> String {
    let mut html = String::with_capacity(markdown.len() + 64);
    let mut is_code = false;
    let mut rest = markdown;
    while let Some(character) = rest.chars().next() {
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        match character {
            '`' => {
                html += if is_code { "</code>" } else { "<code>" };
                is_code = !is_code;
            }
            ']' if rest.starts_with('(') => {
                rest = rest.split_once(')').map_or("", |(_, rest)| rest);
            }
            '[' if !is_code => {}
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_code_and_drops_links() {
        let html = text("the `Content-Type` is not <none of [these](#bulk-imports)");
        assert_eq!(html, "the <code>Content-Type</code> is not &lt;none of these");
        for code in ProblemCode::ALL {
            let html = text(code.when());
            assert_eq!(html.matches("<code>").count(), html.matches("</code>").count(), "{html}");
            assert!(!html.contains(['[', '`', '#']), "{html}");
        }
    }
}
