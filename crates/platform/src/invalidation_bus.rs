//! Delivers invalidations to the in-process caches, and detects within 500 ms when they may be lost.
//!
//! A process that changes a link or key publishes an invalidation on one Redis channel. Pub/sub drops messages when a
//! connection breaks, and a broken connection can look healthy for minutes. Each process therefore verifies its
//! subscription: every [`HEARTBEAT_EVERY`] it publishes a heartbeat to its own channel over a second connection, and
//! expects it back on the subscribed one.
//!
//! Invariants:
//! - Redis delivers messages to a subscriber in order, so a heartbeat that returns proves that every earlier invalidation
//!   has arrived.
//! - The bus is stale from the start, and when no heartbeat younger than [`STALE_AFTER`] has returned. A heartbeat carries
//!   the time at which it was sent: a subscription that lags counts as stale.
//! - A cache is flushed at each change of state, and while the bus is stale it keeps an entry for 1 s at most. That
//!   lifetime and [`STALE_AFTER`] bound the age of a stale response.

use std::{
    future::{pending, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use redis::{
    AsyncCommands as _, Client, Msg, RedisResult,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::{
    backoff::jittered,
    redis_client::BeforeUse,
    redis_connection::{client, open},
    settings::RedisSettings,
};

/// Time between two heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(150);
/// Age of the last returned heartbeat at which the bus becomes stale.
pub const STALE_AFTER: Duration = Duration::from_millis(500);

const RECONNECT_EVERY: Duration = Duration::from_millis(200);

/// A cache that receives invalidations.
pub trait InvalidationSink: Send + Sync + 'static {
    /// Drops the entries that the message invalidates. Returns whether the message was valid.
    fn receive(&self, message: &str) -> bool;
    /// The bus is stale: drops every entry, and keeps new ones for 1 s at most until the bus is live.
    fn went_stale(&self);
    /// The bus is live: drops every entry, because those from the stale period may be wrong.
    fn went_live(&self);
}

/// Whether this process's bus is live; clones share the state.
#[derive(Debug, Clone, Default)]
pub struct BusState(Arc<AtomicBool>);

impl BusState {
    /// True while heartbeats return in time.
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the state of the bus, and the task that runs it and never ends.
///
/// `nonce` names this process's heartbeat channel and must be unique. `before_live` runs each time before the bus becomes
/// live, and publishes the changes that Redis has missed.
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
        self.sink.went_stale();
        loop {
            match timeout(self.connect_timeout, self.subscribe()).await {
                Ok(Ok((subscription, publisher))) => self.listen(subscription, publisher).await,
                Ok(Err(error)) => tracing::debug!(%error, "invalidation subscription failed"),
                Err(_) => tracing::debug!("invalidation subscription timed out"),
            }
            tokio::time::sleep(jittered(RECONNECT_EVERY)).await;
        }
    }

    async fn subscribe(&self) -> RedisResult<(PubSub, MultiplexedConnection)> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(&[self.channel, self.heartbeat_channel.as_str()]).await?;
        let publisher = open(&self.client, self.connect_timeout, STALE_AFTER).await?;
        Ok((subscription, publisher))
    }

    /// Returns when the subscription is stale.
    async fn listen(&self, subscription: PubSub, publisher: MultiplexedConnection) {
        let mut messages = pin!(subscription.into_on_message());
        let began = Instant::now();
        let mut heartbeats = pin!(publish_heartbeats(publisher, &self.heartbeat_channel, began));
        let mut stale = pin!(tokio::time::sleep(STALE_AFTER));
        // The hook runs concurrently with the heartbeats. If it delayed them, they would be too old when it ends, and the
        // bus would stay stale while a dependency of the hook is unavailable.
        let mut preparation: Option<Preparation> = None;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) if message.get_channel_name() == self.heartbeat_channel => {
                        let sent = message.get_payload().map(Duration::from_millis);
                        let fresh_until = began + sent.unwrap_or_default() + STALE_AFTER;
                        if fresh_until > Instant::now() {
                            stale.as_mut().reset(fresh_until);
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
                () = &mut heartbeats => break,
                () = &mut stale => break,
            }
        }
        if self.state.0.swap(false, Ordering::Relaxed) {
            tracing::warn!("invalidation bus stale; entries live 1 s at most");
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
        tracing::info!("invalidation bus live");
    }

    fn deliver(&self, message: &Msg) {
        let text: Result<String, _> = message.get_payload();
        if !text.is_ok_and(|text| self.sink.receive(&text)) {
            tracing::warn!("invalid message on the invalidation channel ignored");
        }
    }
}

/// The running `before_live` hook.
type Preparation = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn finished(preparation: &mut Option<Preparation>) {
    match preparation {
        Some(preparation) => preparation.await,
        None => pending().await,
    }
}

/// Publishes heartbeats, each with its time in milliseconds since `began`, until one fails.
async fn publish_heartbeats(mut publisher: MultiplexedConnection, channel: &str, began: Instant) {
    let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let time_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sent: RedisResult<i64> = publisher.publish(channel, time_ms).await;
        if sent.is_err() {
            return;
        }
    }
}
