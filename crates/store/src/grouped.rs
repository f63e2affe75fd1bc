//! Creates that come at the same time are written together.
//!
//! A create of its own costs the database a round trip, a plan's start and a commit; under load these
//! are most of its cost. So while one group is being written the creates that come meanwhile wait and
//! become the next group: nothing is delayed when little happens, and the more there is to do the
//! larger the groups. Only links with a drawn code take this way, since a chosen one may be taken.

use std::sync::{Arc, Mutex, MutexGuard};

use linnet_platform::lock::MutexExt as _;
use linnet_telemetry::context::observe_query;
use tokio::sync::oneshot;

use linnet_domain::NewLink;

use super::{LinkCreation, Store, StoreError};

/// Links of one statement.
const MAX_GROUP: usize = 64;
/// Groups of one worker that are being written at a time: one gathers rows while the other commits.
const MAX_UNDER_WAY: usize = 2;

type Outcome = Result<LinkCreation, StoreError>;

#[derive(Default)]
struct Queue {
    waiting: Vec<(NewLink, oneshot::Sender<Outcome>)>,
    under_way: usize,
}

/// One worker's creates.
#[derive(Clone)]
pub struct GroupedCreates {
    store: Store,
    queue: Arc<Mutex<Queue>>,
}

impl GroupedCreates {
    /// Writes through this store.
    pub fn new(store: Store) -> Self {
        Self { store, queue: Arc::default() }
    }

    /// Makes a link with a drawn code. A caller that goes away does not take it back.
    pub async fn create(&self, new: NewLink) -> Outcome {
        if new.short_code.is_some() {
            return self.store.create_link(&new).await;
        }
        let (sender, outcome) = oneshot::channel();
        let begin = {
            let mut queue = self.lock();
            queue.waiting.push((new, sender));
            let begin = queue.under_way < MAX_UNDER_WAY;
            queue.under_way += usize::from(begin);
            begin
        };
        if begin {
            tokio::spawn(self.clone().write());
        }
        // The sender is dropped unsent only when the writer panics or its runtime ends.
        let written = async { outcome.await.map_err(|_| sqlx::Error::WorkerCrashed) };
        observe_query("create_link", written).await?
    }

    async fn write(self) {
        let _place = Place(&self);
        loop {
            let mut group = {
                let mut queue = self.lock();
                let count = queue.waiting.len().min(MAX_GROUP);
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            match group.len() {
                0 => return,
                1 => {
                    if let Some((new, sender)) = group.pop() {
                        // Whoever asked may be gone, here and below.
                        let _ = sender.send(self.store.create_link(&new).await);
                    }
                }
                _ => self.write_group(group).await,
            }
        }
    }

    async fn write_group(&self, group: Vec<(NewLink, oneshot::Sender<Outcome>)>) {
        let (links, senders): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let made = self.store.create_links(&links).await.unwrap_or_else(|error| {
            // One of them may be at fault, an unknown user for example: each gets its own answer.
            tracing::debug!(%error, "a group of links is written one by one");
            links.iter().map(|_| None).collect()
        });
        let alone = links.iter().zip(made).zip(senders).map(|((new, made), sender)| async {
            let outcome = match made {
                Some(link) => Ok(LinkCreation::New(link)),
                None => self.store.create_link(new).await,
            };
            let _ = sender.send(outcome);
        });
        futures::future::join_all(alone).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock_ignoring_poison()
    }
}

/// Gives its place back, also when the writer panics.
struct Place<'a>(&'a GroupedCreates);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}
