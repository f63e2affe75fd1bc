//! Reading the visitors of a day.

use std::collections::HashSet;

use linnet_store::Store;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{count, run};

/// A day of a link with many visitors is read once, not once for each page of them.
#[sqlx::test(migrations = "../../migrations")]
async fn pages_of_visitors_read_each_click_of_a_hot_link_once(pool: PgPool) {
    let one = PgPoolOptions::new().max_connections(1);
    let one = one.connect_with((*pool.connect_options()).clone()).await.unwrap();
    let store = Store::new(one.clone());
    let day = "2026-03-09".parse().unwrap();
    store.ensure_partition(day).await.unwrap();
    // Five clicks each second, in rows of their own; a tenth of them by another release.
    run(
        &one,
        "CREATE TABLE clicks_test PARTITION OF clicks
           FOR VALUES FROM ('2026-03-09 00:00Z') TO ('2026-03-10 00:00Z');
         INSERT INTO raw_clicks (clicked_at, url_id, visitor, agent_and_kind)
         SELECT timestamptz '2026-03-09 01:00Z' + n / 5 * interval '1 second', 1, n, 0
           FROM generate_series(1, 9000) AS n;
         INSERT INTO clicks (clicked_at, url_id, visitor, kind)
         SELECT timestamptz '2026-03-09 01:00Z' + n / 5 * interval '1 second', 1, n, 0
           FROM generate_series(9001, 10000) AS n;
         ANALYZE raw_clicks, clicks",
    )
    .await;
    let rows_read = async || {
        run(&one, "SELECT pg_stat_force_next_flush()").await;
        let query = "SELECT sum(COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0))::bigint
                       FROM pg_stat_user_tables WHERE relname ~ '^(raw_)?clicks'";
        count(&one, query).await
    };
    let before = rows_read().await;
    let (mut visitors, mut after, mut pages) = (HashSet::new(), None, 0);
    loop {
        let page = store.visitors_of_day(day, after, 100).await.unwrap();
        visitors.extend(page.visitors.into_iter().map(|(_, _, visitor)| visitor));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((visitors.len(), pages), (10_000, 101));
    let read = rows_read().await - before;
    assert!(read < 40_000, "{read} rows read in {pages} pages");
}
