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
//! - Each returned heartbeat extends [`BusState`], a deadline that every read of a cache compares with its own clock. A bus
//!   whose task is delayed therefore becomes stale on time, whatever the process is doing.
//! - With sentinels or a cluster, the bus is live only while a majority confirms the master that it uses ([`Term`]).
//! - In a cluster, a heartbeat is published only by a node that has the whole slot of all keys. Any node delivers messages,
//!   also one that no longer accepts writes and therefore none of their invalidations.
//! - A cache is flushed at each change of state, and while the bus is stale it uses an entry for 1 s at most. That
//!   lifetime and [`STALE_AFTER`] bound the age of a stale response.

use std::{
    future::{pending, ready},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use redis::{
    AsyncCommands as _, Msg, RedisResult,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::{
    backoff::jittered,
    deadline::Deadline,
    redis_client::BeforeUse,
    redis_connection::{RedisServer, may_use, open},
    redis_master::Term,
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
    /// Drops every entry, and discards the results of in-flight lookups. The bus calls it when it becomes live or
    /// stale.
    fn flush(&self);
    /// The state that each read of this cache checks.
    fn bus_state(&self) -> &BusState;
}

/// The time until which this process's bus is live; clones share it.
///
/// It ends by itself. No task has to run for a reader to see that the bus is stale.
#[derive(Debug, Clone, Default)]
pub struct BusState(Arc<Deadlines>);

#[derive(Debug, Default)]
struct Deadlines {
    live: Deadline,
    /// The same, but [`BusState::end`] does not change it.
    proven: Deadline,
}

impl BusState {
    /// Whether the bus is live now.
    pub fn is_live(&self) -> bool {
        self.is_live_at(std::time::Instant::now())
    }

    /// Whether the bus is live at `now`.
    #[inline]
    pub fn is_live_at(&self, now: std::time::Instant) -> bool {
        self.0.live.is_ahead_of(now)
    }

    /// The latest time until which the bus was made live, even if it became stale before. Every invalidation that was
    /// published [`STALE_AFTER`] before this time has arrived.
    pub fn latest_live_until(&self) -> std::time::Instant {
        self.0.proven.until()
    }

    /// Makes the bus live until `until`.
    pub fn extend(&self, until: std::time::Instant) {
        self.0.proven.set(until);
        self.0.live.set(until);
    }

    /// Makes the bus stale.
    pub fn end(&self) {
        self.0.live.end();
    }
}

/// Returns the state of the bus, and the task that runs it and never ends. Run the task on a thread that nothing else
/// delays.
///
/// `nonce` names this process's heartbeat channel and must be unique. `before_live` runs each time before the bus becomes
/// live, and publishes the changes that Redis has missed. If it returns false, the bus subscribes anew.
pub fn bus(
    settings: &RedisSettings,
    channel: &'static str,
    nonce: &str,
    sink: Arc<dyn InvalidationSink>,
    before_live: Option<BeforeUse>,
) -> RedisResult<(BusState, impl Future<Output = ()> + Send + 'static)> {
    let state = sink.bus_state().clone();
    let bus = Bus {
        channel,
        absent_key: settings.key_layout().absent(),
        server: RedisServer::new(settings)?,
        connect_timeout: settings.connect_timeout(),
        heartbeat_channel: format!("{channel}:heartbeat:{nonce}"),
        sink,
        before_live,
        state: state.clone(),
    };
    Ok((state, bus.run()))
}

/// The two connections of a bus, and the term of their master; `None` for a fixed server.
struct Subscribed {
    subscription: PubSub,
    publisher: MultiplexedConnection,
    term: Option<Arc<Term>>,
}

struct Bus {
    channel: &'static str,
    /// In a cluster, a key that never exists.
    absent_key: Option<&'static str>,
    server: RedisServer,
    connect_timeout: Duration,
    heartbeat_channel: String,
    sink: Arc<dyn InvalidationSink>,
    before_live: Option<BeforeUse>,
    state: BusState,
}

impl Bus {
    async fn run(self) {
        loop {
            match self.subscribe().await {
                Ok(Some(subscribed)) => self.listen(subscribed).await,
                Ok(None) => tracing::debug!("invalidation subscription timed out"),
                Err(error) => tracing::debug!(%error, "invalidation subscription failed"),
            }
            tokio::time::sleep(jittered(RECONNECT_EVERY)).await;
        }
    }

    /// Returns `None` if a server does not respond within the connect timeout.
    async fn subscribe(&self) -> RedisResult<Option<Subscribed>> {
        let (client, term) = self.server.client(self.connect_timeout).await?;
        let connections = async {
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(&[self.channel, self.heartbeat_channel.as_str()]).await?;
            let publisher = open(&client, term.as_ref(), self.connect_timeout, STALE_AFTER).await?;
            RedisResult::Ok((subscription, publisher))
        };
        match timeout(self.connect_timeout, connections).await {
            Ok(opened) => opened.map(|(subscription, publisher)| {
                Some(Subscribed { subscription, publisher, term })
            }),
            Err(_) => Ok(None),
        }
    }

    /// Returns when the subscription is stale.
    async fn listen(&self, Subscribed { subscription, publisher, term }: Subscribed) {
        let mut messages = pin!(subscription.into_on_message());
        let began = Instant::now();
        let mut heartbeats = pin!(self.publish_heartbeats(publisher, began));
        let mut stale = pin!(tokio::time::sleep(STALE_AFTER));
        // The hook runs concurrently with the heartbeats. If it delayed them, they would be too old when it ends, and the
        // bus would stay stale while a dependency of the hook is unavailable.
        let mut preparation: Option<Preparation> = None;
        let mut is_live = false;
        let mut live_until = began;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) if message.get_channel_name() == self.heartbeat_channel => {
                        let sent = message.get_payload().map(Duration::from_millis);
                        let fresh_until = began + sent.unwrap_or_default() + STALE_AFTER;
                        if !may_use(term.as_ref()) {
                            break;
                        }
                        if fresh_until > Instant::now() {
                            stale.as_mut().reset(fresh_until);
                            live_until = fresh_until;
                            if is_live {
                                self.extend(live_until, term.as_ref());
                            } else {
                                preparation.get_or_insert_with(|| self.prepare());
                            }
                        }
                    }
                    Some(message) => self.deliver(&message),
                    None => break,
                },
                prepared = finished(&mut preparation), if preparation.is_some() => {
                    if !prepared {
                        break;
                    }
                    preparation = None;
                    is_live = true;
                    self.set_live(live_until, term.as_ref());
                }
                () = &mut heartbeats => break,
                () = &mut stale => break,
            }
        }
        if is_live {
            self.state.end();
            self.sink.flush();
            tracing::warn!("invalidation bus stale; cached entries are used for at most 1 s");
        }
    }

    /// Publishes heartbeats, each with its time in milliseconds since `began`, until one fails.
    async fn publish_heartbeats(&self, mut publisher: MultiplexedConnection, began: Instant) {
        let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let time_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            // A missing key is refused even while only a part of the slot has moved.
            if let Some(key) = self.absent_key {
                let read: RedisResult<Option<Vec<u8>>> = publisher.get(key).await;
                if read.is_err() {
                    return;
                }
            }
            let sent: RedisResult<i64> = publisher.publish(&self.heartbeat_channel, time_ms).await;
            if sent.is_err() {
                return;
            }
        }
    }

    fn prepare(&self) -> Preparation {
        match &self.before_live {
            Some(before_live) => before_live(),
            None => Box::pin(ready(true)),
        }
    }

    /// Entries from the stale period may be wrong, so they are dropped first.
    fn set_live(&self, until: Instant, term: Option<&Arc<Term>>) {
        self.sink.flush();
        self.extend(until, term);
        tracing::info!("invalidation bus live");
    }

    /// Makes the bus live until `until`, but not longer than a majority confirms the master.
    fn extend(&self, until: Instant, term: Option<&Arc<Term>>) {
        let until = until.into_std();
        self.state.extend(term.map_or(until, |term| until.min(term.until())));
    }

    fn deliver(&self, message: &Msg) {
        let text: Result<String, _> = message.get_payload();
        if !text.is_ok_and(|text| self.sink.receive(&text)) {
            tracing::warn!("invalid message on the invalidation channel ignored");
        }
    }
}

/// The running `before_live` hook.
type Preparation = Pin<Box<dyn Future<Output = bool> + Send>>;

async fn finished(preparation: &mut Option<Preparation>) -> bool {
    match preparation {
        Some(preparation) => preparation.await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_28_bus_state_ends_by_itself() {
        let (state, now) = (BusState::default(), std::time::Instant::now());
        assert!(!state.is_live_at(now), "a new bus is stale");
        let until = now + STALE_AFTER;
        state.extend(until);
        assert!(state.is_live_at(now));
        assert!(!state.is_live_at(until), "no task had to run");
        state.extend(until + STALE_AFTER);
        assert!(state.clone().is_live_at(until));
        state.end();
        assert!(!state.is_live_at(now));
        assert_eq!(state.latest_live_until(), until + STALE_AFTER);
    }
}
