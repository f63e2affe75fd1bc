//! News of changed links and keys, so that in-process caches drop what is no longer true.
//!
//! Whoever changes something publishes it on one Redis channel. Pub/sub loses messages when a
//! connection breaks, and a broken connection can look healthy for minutes. So the feed proves
//! itself: it publishes a heartbeat to a channel of its own through a second connection, every
//! [`HEARTBEAT_EVERY`], and listens for it on the same connection as the news. When none has come
//! for [`STALE_AFTER`], the feed is cut: the sink is told to forget everything and to keep nothing for
//! long. [`STALE_AFTER`] plus the sink's short lifetime is the bound on stale answers.

use std::{
    future::{Future, pending, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use redis::{AsyncCommands, Client, Msg, RedisResult};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::{
    redis_client::{BeforeUse, client, jittered},
    settings::RedisSettings,
};

/// Time between two heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(150);
/// Silence after which the feed counts as cut.
pub const STALE_AFTER: Duration = Duration::from_millis(500);

const RECONNECT_EVERY: Duration = Duration::from_millis(200);

/// A cache that the bus keeps true.
pub trait InvalidationSink: Send + Sync + 'static {
    /// Drops what the message makes untrue. Returns whether the message was understood.
    fn receive(&self, message: &str) -> bool;
    /// The bus is stale: drop everything, and cache nothing for longer than 1 s until it is live.
    fn went_stale(&self);
    /// The bus is live again. What was cached while it was stale may be wrong: drop it.
    fn went_live(&self);
}

/// Whether the feed of this process is live.
#[derive(Debug, Clone, Default)]
pub struct BusState(Arc<AtomicBool>);

impl BusState {
    /// True while heartbeats come back.
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The feed's state, and the task that keeps it; the task never ends. `nonce` names this process's
/// heartbeat channel and must be unique. `before_live` runs each time before the feed counts as
/// live: whoever knows of changes that Redis has not heard of tells them there.
pub fn bus(
    settings: &RedisSettings,
    channel: &'static str,
    nonce: &str,
    sink: Arc<dyn InvalidationSink>,
    before_live: Option<BeforeUse>,
) -> RedisResult<(BusState, impl Future<Output = ()> + Send + 'static)> {
    let state = BusState::default();
    let bus = Bus {
        channel,
        client: client(settings)?,
        connect_timeout: settings.connect_timeout(),
        heartbeat_channel: format!("{channel}:heartbeat:{nonce}"),
        sink,
        before_live,
        state: state.clone(),
    };
    Ok((state, bus.run()))
}

struct Bus {
    channel: &'static str,
    client: Client,
    connect_timeout: Duration,
    heartbeat_channel: String,
    sink: Arc<dyn InvalidationSink>,
    before_live: Option<BeforeUse>,
    state: BusState,
}

impl Bus {
    async fn run(self) {
        // Until the first heartbeat comes back, caches must not trust the feed.
        self.sink.went_stale();
        loop {
            match timeout(self.connect_timeout, self.subscribe()).await {
                Ok(Ok((subscription, publisher))) => self.listen(subscription, publisher).await,
                Ok(Err(error)) => tracing::debug!(%error, "cannot subscribe to changes"),
                Err(_) => tracing::debug!("cannot subscribe to changes in time"),
            }
            tokio::time::sleep(jittered(RECONNECT_EVERY)).await;
        }
    }

    async fn subscribe(
        &self,
    ) -> RedisResult<(redis::aio::PubSub, redis::aio::MultiplexedConnection)> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(&[self.channel, self.heartbeat_channel.as_str()]).await?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(STALE_AFTER));
        let publisher = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((subscription, publisher))
    }

    /// Returns when the subscription is cut.
    async fn listen(
        &self,
        subscription: redis::aio::PubSub,
        publisher: redis::aio::MultiplexedConnection,
    ) {
        let mut messages = pin!(subscription.into_on_message());
        let began = Instant::now();
        let mut heart = pin!(beat(publisher, &self.heartbeat_channel, began));
        let silence = tokio::time::sleep(STALE_AFTER);
        tokio::pin!(silence);
        // Runs beside the beats: if they waited for it, they would be old by then and cut the feed
        // again, for as long as whatever it waits for is away.
        let mut preparation: Option<Preparation> = None;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) if message.get_channel_name() == self.heartbeat_channel => {
                        // News as old as this beat has come, and nothing younger: a feed that
                        // lags is cut as much as one that is silent.
                        let sent = message.get_payload().map(Duration::from_millis);
                        let fresh_until = began + sent.unwrap_or_default() + STALE_AFTER;
                        if fresh_until > Instant::now() {
                            silence.as_mut().reset(fresh_until);
                            if !self.state.is_live() {
                                preparation.get_or_insert_with(|| self.prepare());
                            }
                        }
                    }
                    Some(message) => self.deliver(&message),
                    None => break,
                },
                () = finished(&mut preparation), if preparation.is_some() => {
                    preparation = None;
                    self.set_live();
                }
                () = &mut heart => break,
                () = &mut silence => break,
            }
        }
        if self.state.0.swap(false, Ordering::Relaxed) {
            tracing::warn!("the change feed is cut: caching for 1 s at most until it is back");
            self.sink.went_stale();
        }
    }

    fn prepare(&self) -> Preparation {
        match &self.before_live {
            Some(before_live) => before_live(),
            None => Box::pin(ready(())),
        }
    }

    fn set_live(&self) {
        self.sink.went_live();
        self.state.0.store(true, Ordering::Relaxed);
        tracing::info!("the change feed is live");
    }

    fn deliver(&self, message: &Msg) {
        let text: Result<String, _> = message.get_payload();
        if !text.is_ok_and(|text| self.sink.receive(&text)) {
            tracing::warn!("invalidation message not understood");
        }
    }
}

/// What `before_live` does.
type Preparation = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn finished(preparation: &mut Option<Preparation>) {
    match preparation {
        Some(preparation) => preparation.await,
        None => pending().await,
    }
}

/// Publishes heartbeats, each with its time in milliseconds since `began`, until one fails.
async fn beat(mut publisher: redis::aio::MultiplexedConnection, channel: &str, began: Instant) {
    let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let time = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sent: RedisResult<i64> = publisher.publish(channel, time).await;
        if sent.is_err() {
            return;
        }
    }
}
