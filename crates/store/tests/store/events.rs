use chrono::{DateTime, TimeDelta, Utc};
use linnet_domain::{
    ClickKind, Event, EventFilter, EventId, LinkId, Page, PageStart, TimeSortKey, UserId,
    Visibility,
};
use linnet_store::{ClickGroup, ClickRow, SHARDS, Store};
use sqlx::{PgPool, Row};

use crate::support::{create, create_user, new_link};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// Links of two users, with events and clicks at the same times.
struct Scene {
    store: Store,
    owner: UserId,
    other: UserId,
    links: Vec<LinkId>,
}

// Long because it writes one event of each kind, for each owner.
async fn scene(pool: &PgPool) -> Scene {
    let store = Store::new(pool.clone());
    let (owner, other) = (create_user(&store, "owner").await, create_user(&store, "other").await);
    let mut links = Vec::new();
    for user in [owner.id, owner.id, other.id] {
        let mut new = new_link(None);
        new.user_id = Some(user);
        links.push(create(&store, &new).await.id);
    }
    sqlx::raw_sql(
        "CREATE TABLE clicks_test PARTITION OF clicks FOR VALUES FROM ('2026-03-01 00:00Z') TO ('2026-03-04 00:00Z');
         DELETE FROM events;
         INSERT INTO click_values (id, kind, parts) OVERRIDING SYSTEM VALUE VALUES
           (1, 1, '{Firefox,Linux,desktop}'), (2, 2, '{\"\",de}'), (3, 3, '{example.com}'), (4, 4, '{mail,\"\",\"\"}')",
    )
    .execute(pool)
    .await
    .unwrap();
    for day in ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-09"] {
        assert!(store.ensure_partition(day.parse().unwrap()).await.unwrap());
    }
    // Every 3 hours of 3 days, each link has an event and a click at the same time, inserted out of order.
    sqlx::query(
        "INSERT INTO events (url_id, user_id, event_type, timestamp)
         SELECT url_id, $2, 'x', at
           FROM unnest($1::bigint[]) AS url_id,
                generate_series('2026-03-01 00:00Z'::timestamptz, '2026-03-03 23:00Z', '3 hours') AS at
          ORDER BY md5(at::text || url_id)",
    )
    .bind(&links)
    .bind(owner.id)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        // The first link has rows of this release, the last one rows of earlier releases, the other one both.
        "WITH click AS (
           SELECT url_id, at, CASE url_id WHEN ($1::bigint[])[1] THEN false WHEN ($1::bigint[])[3] THEN true
                              ELSE extract(hour FROM at)::integer % 2 = 0 END AS is_earlier
             FROM unnest($1::bigint[]) AS url_id,
                  generate_series('2026-03-01 00:00Z'::timestamptz, '2026-03-03 23:00Z', '3 hours') AS at
            ORDER BY md5(url_id || at::text)
         ), earlier AS (
           INSERT INTO clicks (url_id, clicked_at, kind, agent_id, origin_id, referrer_id, campaign_id)
           SELECT url_id, at, 0, 1, 2, 3, 4 FROM click WHERE is_earlier
         )
         INSERT INTO raw_clicks (url_id, clicked_at, agent_and_kind, origin_id, sources)
         SELECT url_id, at, 4, 2, (4::bigint << 32) + 3 FROM click WHERE NOT is_earlier",
    )
    .bind(&links)
    .execute(pool)
    .await
    .unwrap();
    sqlx::raw_sql(
        "INSERT INTO click_hours (subject, hour, clicks)
         SELECT subject, date_trunc('hour', clicked_at, 'UTC'), count(*)
           FROM all_clicks JOIN urls ON urls.id = url_id, unnest(ARRAY[-user_id, 0]) AS subject
          GROUP BY 1, 2;
         -- The first link has rows of this release, the last one rows of earlier releases, the other one both.
         INSERT INTO click_link_days
         SELECT url_id, (clicked_at AT TIME ZONE 'UTC')::date, count(*), 0, 0, 0, 0, '{}', '{}', '{}'
           FROM all_clicks WHERE url_id < (SELECT max(id) FROM urls) GROUP BY 1, 2;
         INSERT INTO click_days (subject, day, clicks)
         SELECT url_id, (clicked_at AT TIME ZONE 'UTC')::date, count(*)
           FROM all_clicks WHERE url_id > (SELECT min(id) FROM urls) GROUP BY 1, 2;
         -- Roll-ups of a time whose clicks are dropped.
         INSERT INTO click_hours (subject, hour, clicks)
         SELECT subject, '2025-12-01 00:00Z', 1000 FROM click_hours GROUP BY subject;
         INSERT INTO click_days (subject, day, clicks)
         SELECT subject, '2025-12-01', 1000 FROM click_days GROUP BY subject",
    )
    .execute(pool)
    .await
    .unwrap();
    Scene { store, owner: owner.id, other: other.id, links }
}

impl Scene {
    /// The items of all pages of this size, by cursor.
    async fn list_all(
        &self,
        filter: &EventFilter,
        visible_to: Visibility,
        size: i64,
    ) -> Vec<Event> {
        let mut page = Page { size, ..Page::default() };
        let mut seen: Vec<Event> = Vec::new();
        loop {
            let events = self.store.list_events(filter, visible_to, page).await.unwrap().events;
            let full = i64::try_from(events.len()).unwrap() == size;
            seen.extend(events);
            let Some(last) = seen.last().filter(|_| full) else { return seen };
            page.position =
                PageStart::After(TimeSortKey { time: Some(last.timestamp), id: last.id.get() });
            assert!(seen.len() < 1_000, "the pages do not end");
        }
    }
}

fn moments(events: &[Event]) -> Vec<(DateTime<Utc>, EventId)> {
    events.iter().map(|event| (event.timestamp, event.id)).collect()
}

fn count(events: &[Event], event_type: &str) -> usize {
    events.iter().filter(|event| event.event_type == event_type).count()
}

#[sqlx::test(migrations = "../../migrations")]
async fn pages_contain_events_and_clicks_in_the_order_of_time(pool: PgPool) {
    let scene = scene(&pool).await;
    let one =
        |link: usize| EventFilter { url_id: Some(scene.links[link]), ..EventFilter::default() };
    let all = Visibility::All;
    let (owner, other) = (Visibility::Owner(scene.owner), Visibility::Owner(scene.other));
    for (what, filter, visible_to, events, clicks) in [
        ("everything", EventFilter::default(), all, 72, 72),
        ("the owner's, with events on another user's link", EventFilter::default(), owner, 72, 48),
        ("the other's", EventFilter::default(), other, 24, 24),
        ("one link's", one(0), all, 24, 24),
        ("one link's, to its owner", one(0), owner, 24, 24),
        ("own events on another user's link", one(2), owner, 24, 0),
        ("another user's link", one(0), other, 0, 0),
    ] {
        for size in [2, 7, 200] {
            let seen = scene.list_all(&filter, visible_to, size).await;
            let moments = moments(&seen);
            assert!(moments.is_sorted(), "{what}");
            let mut ids: Vec<_> = seen.iter().map(|event| event.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), seen.len(), "{what}, pages of {size}: no duplicates");
            let counts = (count(&seen, "x"), count(&seen, "click"));
            assert_eq!(counts, (events, clicks), "{what}, pages of {size}: no gaps");
        }
    }
    // The same page by number.
    let moments_of_all = moments(&scene.list_all(&EventFilter::default(), owner, 200).await);
    let third = Page { position: PageStart::Number(3), size: 10 };
    let third =
        scene.store.list_events(&EventFilter::default(), owner, third).await.unwrap().events;
    assert_eq!(moments(&third), moments_of_all[20..30]);
}

/// Writes clicks of three seconds on two links of the owner: all attributes, several rows for a second, several clicks of a
/// microsecond, and days without clicks before.
async fn write_dense_clicks(pool: &PgPool, scene: &Scene) -> Vec<ClickRow> {
    let id = |number: i32| std::num::NonZeroI32::new(number);
    let &[first_link, second_link, ..] = scene.links.as_slice() else {
        panic!("a scene has links")
    };
    let base = time("2026-03-09T12:00:00Z");
    let mut rows: Vec<ClickRow> = (0..400_i32)
        .map(|n| ClickRow {
            // Three clicks have the same time.
            at: base + TimeDelta::microseconds(i64::from(n / 3) * 22_111),
            url_id: if n % 5 == 0 { second_link } else { first_link },
            visitor: (n % 8 > 0)
                .then_some(i64::from(n - 200) << (n % 31))
                .filter(|hash| *hash != 0),
            values: [id(n % 2), id(2 * (n % 3 % 2)), id(3 * (n % 5 % 2)), id(4 * (n % 7 % 2))],
            user_id: Some(scene.owner),
            kind: match n % 4 {
                0 => ClickKind::Person,
                1 => ClickKind::Bot,
                2 => ClickKind::Prefetch,
                _ => ClickKind::Head,
            },
            is_counted: false,
        })
        .collect();
    rows.sort_by_key(|row| (row.url_id, row.at));
    // In two transactions, whose rows overlap.
    let (first, second): (Vec<(usize, ClickRow)>, _) =
        rows.iter().copied().enumerate().partition(|(n, _)| n % 3 == 0);
    for (batch, part) in [first, second].into_iter().enumerate() {
        let part: Vec<ClickRow> = part.into_iter().map(|(_, row)| row).collect();
        let batches = [vec![u8::try_from(batch).unwrap(); 16]];
        let group = ClickGroup {
            batches: &batches,
            shards: SHARDS.to_vec(),
            rows: &part,
            ..ClickGroup::default()
        };
        assert!(scene.store.write_clicks(&group).await.unwrap());
    }
    sqlx::query(
        "WITH days AS (
           INSERT INTO click_link_days SELECT DISTINCT url_id, date '2026-03-09', 9, 0, 0, 0, 0,
                  '{}'::integer[], '{}'::integer[], '{}'::bigint[] FROM unnest($1::bigint[]) AS url_id)
         INSERT INTO click_hours (subject, hour, clicks) VALUES (-$2, '2026-03-09 12:00Z', 400),
                                                                (0, '2026-03-09 12:00Z', 400)",
    )
    .bind([first_link, second_link])
    .bind(scene.owner)
    .execute(pool)
    .await
    .unwrap();
    rows
}

/// A click as it is stored: time, link, kind, visitor, values.
type Stored = (DateTime<Utc>, i64, i16, Option<i64>, [Option<i32>; 4]);

#[sqlx::test(migrations = "../../migrations")]
async fn clicks_of_a_second_share_rows_and_keep_their_attributes(pool: PgPool) {
    let scene = scene(&pool).await;
    let rows = write_dense_clicks(&pool, &scene).await;
    let mut wanted: Vec<Stored> = rows
        .iter()
        .map(|row| {
            let values = row.values.map(|value| value.map(std::num::NonZeroI32::get));
            (row.at, row.url_id.get(), i16::from(row.kind as u8), row.visitor, values)
        })
        .collect();
    let stored = sqlx::query(
        "SELECT clicked_at, url_id, kind, visitor, agent_id, origin_id, referrer_id, campaign_id
           FROM all_clicks WHERE clicked_at > '2026-03-09'",
    );
    let stored = stored.fetch_all(&pool).await.unwrap();
    let mut stored: Vec<Stored> = stored
        .iter()
        .map(|row| {
            let values = [4, 5, 6, 7].map(|column| row.get(column));
            (row.get(0), row.get(1), row.get(2), row.get(3), values)
        })
        .collect();
    wanted.sort_unstable();
    stored.sort_unstable();
    assert_eq!(stored, wanted);
    let rows: i64 = crate::support::count(
        &pool,
        "SELECT count(*) FROM raw_clicks WHERE clicked_at > '2026-03-09'",
    )
    .await;
    assert!((12..=24).contains(&rows), "{rows} rows");
    let people = wanted.iter().filter(|row| row.2 == 0 && row.3.is_some());
    let mut people: Vec<_> = people.map(|row| (row.1, row.3.unwrap())).collect();
    people.sort_unstable();
    people.dedup();
    for limit in [1, 7, 1_000] {
        let (mut visitors, mut after) = (Vec::new(), None);
        loop {
            let day = "2026-03-09".parse().unwrap();
            let page = scene.store.visitors_of_day(day, after, limit).await.unwrap();
            let new = page.visitors.into_iter();
            visitors.extend(new.map(|(link, _, visitor)| (link.get(), visitor)));
            if page.next.is_none() {
                break;
            }
            after = page.next;
        }
        visitors.sort_unstable();
        visitors.dedup();
        assert_eq!(visitors, people, "pages of {limit}");
    }
}

/// Pages begin and end within rows, and within a microsecond.
#[sqlx::test(migrations = "../../migrations")]
async fn pages_of_clicks_that_share_rows_have_no_gaps(pool: PgPool) {
    let scene = scene(&pool).await;
    let rows = write_dense_clicks(&pool, &scene).await;
    let on = |link: usize| rows.iter().filter(|row| row.url_id == scene.links[link]).count();
    let clicks = EventFilter { event_type: Some("click".to_owned()), ..EventFilter::default() };
    let one = EventFilter { url_id: Some(scene.links[0]), ..clicks.clone() };
    let (from, to) = (rows[3].at, rows[300].at);
    let between = EventFilter { from: Some(from), to: Some(to), ..one.clone() };
    let within = rows.iter().filter(|row| row.url_id == scene.links[0]);
    let within = within.filter(|row| (from..to).contains(&row.at)).count();
    for (what, filter, visible_to, wanted) in [
        ("all links", &clicks, Visibility::All, 72 + 400),
        ("the owner's links", &clicks, Visibility::Owner(scene.owner), 48 + 400),
        ("one link", &one, Visibility::Owner(scene.owner), 24 + on(0)),
        ("one link in a time", &between, Visibility::All, within),
    ] {
        for size in [3, 50, 200] {
            let seen = scene.list_all(filter, visible_to, size).await;
            assert!(moments(&seen).is_sorted_by(|a, b| a < b), "{what}, pages of {size}");
            assert_eq!(seen.len(), wanted, "{what}, pages of {size}");
        }
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn filters_select_events_and_clicks(pool: PgPool) {
    let scene = scene(&pool).await;
    let of_type = |event_type: &str| EventFilter {
        event_type: Some(event_type.to_owned()),
        ..EventFilter::default()
    };
    let counts = async |filter: &EventFilter, visible_to| {
        let seen = scene.list_all(filter, visible_to, 5).await;
        (count(&seen, "x"), count(&seen, "click"))
    };
    for (visible_to, events, clicks) in
        [(Visibility::All, 72, 72), (Visibility::Owner(scene.other), 24, 24)]
    {
        assert_eq!(counts(&of_type("click"), visible_to).await, (0, clicks));
        assert_eq!(counts(&of_type("x"), visible_to).await, (events, 0));
        assert_eq!(counts(&of_type("y"), visible_to).await, (0, 0));
    }
    // Clicks have no user.
    let by = |user| EventFilter { user_id: Some(user), ..EventFilter::default() };
    assert_eq!(counts(&by(scene.owner), Visibility::All).await, (72, 0));
    assert_eq!(
        counts(&by(scene.owner), Visibility::Owner(scene.other)).await,
        (24, 0),
        "events that the owner caused on the other user's link"
    );
    assert_eq!(counts(&by(scene.other), Visibility::Owner(scene.owner)).await, (0, 0));
    assert_eq!(counts(&by(scene.owner), Visibility::Owner(scene.owner)).await, (72, 0));

    // `from` is inclusive and `to` is exclusive, so the range contains two steps of three hours.
    let (from, to) = (time("2026-03-01T21:00:00Z"), time("2026-03-02T03:00:00Z"));
    let between = EventFilter { from: Some(from), to: Some(to), ..EventFilter::default() };
    for visible_to in [Visibility::All, Visibility::Owner(scene.owner)] {
        let seen = scene.list_all(&between, visible_to, 2).await;
        assert!(seen.iter().all(|event| (from..to).contains(&event.timestamp)));
        assert_eq!(count(&seen, "x"), 6, "{visible_to:?}");
    }
    assert_eq!(counts(&between, Visibility::Owner(scene.owner)).await, (6, 4));
    assert_eq!(counts(&between, Visibility::All).await, (6, 6));
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_click_is_listed_as_an_event_without_a_user(pool: PgPool) {
    let scene = scene(&pool).await;
    let filter = EventFilter {
        event_type: Some("click".to_owned()),
        url_id: Some(scene.links[0]),
        ..EventFilter::default()
    };
    let click = scene.list_all(&filter, Visibility::All, 200).await.remove(0);
    assert_eq!((click.url_id, click.user_id), (Some(scene.links[0]), None));
    assert_eq!(click.timestamp, time("2026-03-01T00:00:00Z"));
    let details = serde_json::json!({"kind": "person", "browser": "Firefox", "os": "Linux",
        "device": "desktop", "language": "de", "referrer": "example.com", "utm_source": "mail"});
    assert_eq!(serde_json::to_value(&click.details).unwrap(), details);
    assert!(scene.store.find_event(click.id, Visibility::All).await.unwrap().is_none());
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_25_a_page_of_large_details_ends_early_and_loses_no_event(pool: PgPool) {
    let scene = scene(&pool).await;
    // Rows of an older release may have such details: 15 events of 600 kB, and one of 2 MB, which fills a page alone.
    sqlx::query("DELETE FROM events").execute(&pool).await.unwrap();
    sqlx::query(
        "INSERT INTO events (url_id, event_type, timestamp, details)
         SELECT $1, 'large', '2026-03-01 00:00Z'::timestamptz + n * interval '1 minute',
                jsonb_build_object('n', n, 'a', repeat('x', CASE n WHEN 7 THEN 2000000 ELSE 600000 END))
           FROM generate_series(1, 16) AS n",
    )
    .bind(scene.links[0])
    .execute(&pool)
    .await
    .unwrap();
    let filter = EventFilter { event_type: Some("large".to_owned()), ..EventFilter::default() };
    let mut after = TimeSortKey { time: None, id: 0 };
    let mut seen = Vec::new();
    loop {
        let page = Page { position: PageStart::After(after), size: 200 };
        let page = scene.store.list_events(&filter, Visibility::All, page).await.unwrap();
        let bytes: usize = page.events.iter().map(|event| event.details.as_str().len()).sum();
        assert!(bytes <= 1024 * 1024 || page.events.len() == 1, "{bytes}");
        let last = page.events.last().expect("a page has an event");
        after = TimeSortKey { time: Some(last.timestamp), id: last.id.get() };
        seen.extend(page.events.iter().map(|event| event.id.get()));
        if page.cut_after.is_none() {
            break;
        }
    }
    let mut different = seen.clone();
    different.dedup();
    assert_eq!((seen.len(), different.len()), (16, 16), "{seen:?}");
}
