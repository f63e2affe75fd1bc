//! `admin generate`: generates links and clicks of the last days, to try the service.
//!
//! * The clicks are in batches, as redirects record them. The code of the worker writes the batches, so
//!   raw rows, roll-ups and unique visitors are the same as for real clicks.
//! * Clicks are generated hour by hour, and no group continues into the next day, so memory does not grow with the
//!   number of clicks.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use futures::{TryStreamExt, stream};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use redis::aio::MultiplexedConnection;

use linnet_clicks::{
    BatchBuilder, BatchIds, FIELD, PackedBatch, StreamNames,
    ingest::{
        BatchEnricher, IngestError, IngestMetrics, WriteMode, Writer, connect,
        delete_visitor_counts,
    },
};
use linnet_domain::{Email, LinkId, NewUser, ShortCode, Subject, UserId};
use linnet_platform::{clock::Clock, redis_keys::KeyLayout};
use linnet_sample::Draw;
use linnet_settings::Settings;
use linnet_store::Store;

use crate::{
    AdminError, Generate, create_key,
    terminal::{Progress, say},
};

/// The number of links in one statement.
const LINKS_AT_ONCE: u32 = 5_000;
/// One backend writes while the other's links are generated, and both write on a machine with idle processors.
const CONCURRENT_STATEMENTS: usize = 2;
/// The number of clicks in one batch, which is the publisher's limit.
const BATCH_CLICKS: usize = 1_000;
/// Workers fold a month a week after its end, so the clicks of the last seven days are in no folded month.
const MAX_STREAM_DAYS: u32 = 7;

/// Generates the links, then the clicks.
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    arguments: &Generate,
) -> Result<(), AdminError> {
    let bad = |argument, message| AdminError::Argument { argument, message };
    if arguments.to_stream && arguments.days > MAX_STREAM_DAYS {
        let message = format!("must be at most {MAX_STREAM_DAYS} with --to-stream");
        return Err(bad("days", message));
    }
    let email = Email::parse(&arguments.user).map_err(|error| bad("user", error.to_string()))?;
    let user = NewUser { username: "generated".to_owned(), email };
    let user_id = create_key::find_or_create(store, user).await?.id;

    let now = store.server_time().await?;
    let start = now - TimeDelta::days(arguments.days.into());
    let mut links = make_links(settings, store, arguments.links, user_id, start).await?;
    // Links that are neighbors in the table must not be neighbors in popularity.
    links.shuffle(&mut StdRng::seed_from_u64(arguments.seed));

    let layout = settings.redis.key_layout();
    let redis = connect(&settings.redis).await;
    let destination = if arguments.to_stream {
        Destination::Stream(redis?)
    } else {
        let redis = redis
            .inspect_err(|error| {
                say(&format!("Redis cannot be reached: unique visitors will be 0 ({error})"));
            })
            .ok();
        let meter = opentelemetry::global::meter("linnet-shortener");
        let metrics = Arc::new(IngestMetrics::new(&meter));
        Destination::Database {
            writer: Box::new(Writer::new(
                store.clone(),
                metrics,
                BatchEnricher::shared(store.clone(), Clock::System),
                layout,
            )),
            redis,
        }
    };
    let mut sink = Sink {
        destination,
        layout,
        today: now.date_naive(),
        most: usize::try_from(settings.worker.group_batches).unwrap_or(1),
        ids: BatchIds::new(),
        group: Vec::new(),
        links: HashSet::new(),
    };
    store.unfold_click_months(start.date_naive()).await?;
    make_clicks(&mut sink, Draw::new(links, arguments.seed), now, arguments).await?;
    if !arguments.to_stream {
        // A worker may have folded a month before all its clicks were written.
        store.unfold_click_months(start.date_naive()).await?;
        while store.fold_click_month().await?.is_some() {}
    }
    Ok(())
}

/// Creates the links, and returns their ids in ascending order.
async fn make_links(
    settings: &Settings,
    store: &Store,
    count: u32,
    user_id: UserId,
    created_at: DateTime<Utc>,
) -> Result<Vec<LinkId>, AdminError> {
    let bad = |message| AdminError::Argument { argument: "config", message };
    let targets = settings.target_policy().map_err(bad)?;
    let mut progress = Progress::new("links", "generated", count.into());
    let mut ids: Vec<LinkId> = Vec::new();
    loop {
        let made = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        if made >= count {
            break;
        }
        // A code that is taken is generated again by another turn.
        let parts = (made..count).step_by(LINKS_AT_ONCE as usize).map(|from| {
            let mut links = Vec::new();
            for number in from..count.min(from.saturating_add(LINKS_AT_ONCE)) {
                let target = targets.parse(&linnet_sample::target(number));
                let target = target.map_err(|error| bad(error.to_string()))?;
                links.push((ShortCode::generate()?, target));
            }
            Ok::<_, AdminError>(async move {
                Ok::<_, AdminError>(store.add_links(user_id, &links, created_at).await?)
            })
        });
        let mut written = stream::iter(parts).try_buffer_unordered(CONCURRENT_STATEMENTS);
        while let Some(new) = written.try_next().await? {
            ids.extend(&new);
            progress.add(new.len() as u64, ids.len() as u64);
        }
    }
    store.merge_search_entries().await?;
    progress.finish();
    ids.sort_unstable();
    Ok(ids)
}

async fn make_clicks(
    sink: &mut Sink,
    mut draw: Draw,
    now: DateTime<Utc>,
    arguments: &Generate,
) -> Result<(), AdminError> {
    let mut progress = Progress::new("clicks", "generated", arguments.clicks);
    let mut builder = BatchBuilder::default();
    let mut done = 0;
    let mut last_day: Option<NaiveDate> = None;
    for hour in linnet_sample::hours(now, arguments.days, arguments.clicks) {
        let day = hour.start.date_naive();
        if let Some(last) = last_day.replace(day).filter(|last| *last != day) {
            sink.end_day(&mut builder, last).await?;
        }
        for _ in 0..hour.clicks {
            sink.links.insert(draw.click(hour.start, &mut builder));
            if builder.click_count() >= BATCH_CLICKS {
                sink.take(&mut builder).await?;
            }
        }
        done += hour.clicks;
        progress.add(hour.clicks, done);
    }
    if let Some(last) = last_day {
        sink.end_day(&mut builder, last).await?;
    }
    progress.finish();
    Ok(())
}

enum Destination {
    Database { writer: Box<Writer>, redis: Option<MultiplexedConnection> },
    Stream(MultiplexedConnection),
}

/// Writes batches in groups to the database or the stream.
struct Sink {
    destination: Destination,
    layout: KeyLayout,
    today: NaiveDate,
    /// The maximum number of batches in a group.
    most: usize,
    ids: BatchIds,
    group: Vec<Vec<u8>>,
    /// The links that were clicked on the current day.
    links: HashSet<LinkId>,
}

impl Sink {
    async fn take(&mut self, builder: &mut BatchBuilder) -> Result<(), AdminError> {
        if builder.click_count() > 0 {
            self.group.push(builder.finish(self.ids.next_id()).pack());
        }
        if self.group.len() >= self.most { self.write().await } else { Ok(()) }
    }

    async fn end_day(
        &mut self,
        builder: &mut BatchBuilder,
        day: NaiveDate,
    ) -> Result<(), AdminError> {
        self.take(builder).await?;
        self.write().await?;
        let links: Vec<Subject> = self.links.drain().map(Subject::Link).collect();
        // Workers add no more clicks to a day that is over, and the keys of a whole year would fill Redis.
        let is_over = day + Days::new(1) < self.today;
        if is_over && let Destination::Database { redis: Some(redis), .. } = &mut self.destination {
            delete_visitor_counts(redis, self.layout, day, &links).await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), AdminError> {
        if self.group.is_empty() {
            return Ok(());
        }
        match &mut self.destination {
            Destination::Database { writer, redis } => {
                let batches = self.group.iter().map(|batch| PackedBatch::from_bytes(batch));
                let batches = batches.collect::<Result<Vec<_>, _>>().map_err(IngestError::from)?;
                writer.write(redis.as_mut(), &batches, WriteMode::Parallel).await?;
            }
            Destination::Stream(redis) => {
                let stream = StreamNames::of(self.layout).clicks;
                let mut pipe = redis::pipe();
                for batch in &self.group {
                    let add = pipe.cmd("XADD").arg(stream).arg("*");
                    add.arg(FIELD).arg(batch).ignore();
                }
                pipe.query_async::<()>(redis).await?;
            }
        }
        self.group.clear();
        Ok(())
    }
}
