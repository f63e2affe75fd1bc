//! Helpers that create what a test begins with.

use linnet_domain::{
    Email, Link, LinkAttributes, NewLink, NewUser, ShortCode, TargetPolicy, TargetUrl, User,
};
use linnet_store::{LinkCreation, Store};
use sqlx::PgPool;

pub(crate) fn target(text: &str) -> TargetUrl {
    let schemes = ["http".to_owned(), "https".to_owned()];
    let policy = TargetPolicy::new(&schemes, "http://localhost:8080", &[]).expect("a policy");
    policy.parse(text).expect("a target")
}

pub(crate) fn new_link(code: Option<&str>) -> NewLink {
    NewLink {
        user_id: None,
        short_code: code.map(|code| ShortCode::parse(code).expect("a code")),
        target: target("https://example.com/"),
        attributes: LinkAttributes::default(),
    }
}

pub(crate) async fn create(store: &Store, new: &NewLink) -> Link {
    match store.create_link(new).await.expect("the database answers") {
        LinkCreation::New(link) => link,
        other => panic!("not created: {other:?}"),
    }
}

pub(crate) async fn create_user(store: &Store, name: &str) -> User {
    let email = Email::parse(&format!("{name}@example.com")).expect("an address");
    let new = NewUser { username: name.to_owned(), email };
    store.create_user(&new).await.expect("a new user")
}

pub(crate) async fn run(pool: &PgPool, statements: &'static str) {
    sqlx::raw_sql(statements).execute(pool).await.expect("the statements run");
}

pub(crate) async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.expect("a count")
}
