//! CSV of the API: cells that are no formulas, and files that are no pages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use actix_web::HttpResponse;
use linnet_shortener::http::csv::{CONTENT_TYPE_CSV, Cell, csv_of, push_text, respond};

async fn line(text: &str, number: i64) -> String {
    let csv = csv_of(["text", "number"], [[text.into(), number.into()]], false).await.unwrap();
    let csv = String::from_utf8(csv).unwrap();
    csv.strip_prefix("text,number\r\n").unwrap().to_owned()
}

#[actix_web::test]
async fn must_10_no_cell_is_a_formula() {
    assert_eq!(line("=1+1", 0).await, "'=1+1,0\r\n");
    assert_eq!(line("+49", 0).await, "'+49,0\r\n");
    assert_eq!(line("-1", 0).await, "'-1,0\r\n", "a number in quotes is text");
    assert_eq!(line("@SUM(A1)", 0).await, "'@SUM(A1),0\r\n");
    assert_eq!(line("\t=1", 0).await, "'\t'=1,0\r\n");
    assert_eq!(line("\r=1", 0).await, "\"'\r'=1\",0\r\n");
    assert_eq!(line("\n=1", 0).await, "\"'\n'=1\",0\r\n");
    assert_eq!(line("=\"a\",b", 0).await, "\"'=\"\"a\"\",b\",0\r\n");
    assert_eq!(line("'=1", 0).await, "''=1,0\r\n", "otherwise it would read back as =1");
    assert_eq!(line("a=1", -7).await, "a=1,-7\r\n", "numbers have no apostrophe");
}

#[actix_web::test]
async fn cells_are_quoted_when_necessary() {
    assert_eq!(line("a,b", 1).await, "\"a,b\",1\r\n");
    assert_eq!(line("a\"b", 1).await, "\"a\"\"b\",1\r\n");
    assert_eq!(line("a\r\nb", 1).await, "\"a\r\nb\",1\r\n");
    assert_eq!(line("Zürich ☃", 1).await, "Zürich ☃,1\r\n");
    let csv = csv_of(["a", "b"], [[Cell::Empty, None.into()]], false).await.unwrap();
    assert_eq!(csv, b"a,b\r\n,\r\n");
    let csv = csv_of(["a"], [["é".into()]], true).await.unwrap();
    assert_eq!(csv, "\u{feff}a\r\né\r\n".as_bytes());
}

#[actix_web::test]
async fn push_text_equals_the_writer() {
    for text in ["a", "", "a,b", "a\"b", "\"", "a\r\nb", "\n", "=1", "'=1", "-", "Zürich, ☃", "a b"]
    {
        let mut row = Vec::new();
        push_text(&mut row, text);
        row.extend_from_slice(b",7\r\n");
        assert_eq!(String::from_utf8(row).unwrap(), line(text, 7).await, "{text:?}");
    }
}

#[actix_web::test]
async fn must_09_a_file_is_no_page() {
    let response = respond(HttpResponse::Ok(), "url-7.csv", Vec::new());
    let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), CONTENT_TYPE_CSV);
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-disposition"), "attachment; filename=\"url-7.csv\"");
}
