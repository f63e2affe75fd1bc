//! Large responses that clients have not read.

use actix_web::{
    App, HttpResponse,
    body::to_bytes,
    middleware::from_fn,
    test,
    web::{self, Data},
};
use linnet_platform::byte_budget::ByteBudget;
use linnet_shortener::http::response_budget::{LargeResponses, bound_responses};

#[actix_web::test]
async fn must_25_large_responses_that_are_not_read_are_bounded() {
    const LARGE: usize = 100_000;
    let budget = ByteBudget::new(4 * LARGE, 2 * LARGE);
    let app = App::new()
        .app_data(Data::new(LargeResponses(budget.clone())))
        .wrap(from_fn(bound_responses))
        .route("/large", web::get().to(async || HttpResponse::Ok().body(vec![b'a'; LARGE])))
        .route("/small", web::get().to(async || HttpResponse::Ok().body("a")));
    let app = test::init_service(app).await;
    let get = |path: &str, user: &str| {
        let request = test::TestRequest::get()
            .uri(path)
            .insert_header((linnet_protocol::identity::USER_HEADER, user));
        test::try_call_service(&app, request.to_request())
    };
    let mut unread = vec![get("/large", "1").await.unwrap(), get("/large", "1").await.unwrap()];
    assert_eq!(budget.used(), 2 * LARGE);
    let refused = get("/large", "1").await.map(drop).unwrap_err();
    assert_eq!(refused.as_response_error().status_code(), 503);
    assert_eq!(get("/small", "1").await.unwrap().status(), 200);
    unread.push(get("/large", "2").await.unwrap());
    for response in unread {
        assert_eq!(to_bytes(response.into_body()).await.unwrap().len(), LARGE);
    }
    assert_eq!(budget.used(), 0);
    assert_eq!(get("/large", "1").await.unwrap().status(), 200);
}
