//! Group commit for link creation: creates that arrive at the same time share a statement.
//!
//! * A statement of its own costs a round trip, a plan and a commit, which under load are most of the cost of a create.
//! * While a group is being written, new creates wait and form the next group. Without load nothing waits, and groups
//!   grow with the load.
//! * Only links with generated codes are grouped, because a custom code may be taken.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::observe::observe_query;
use linnet_platform::lock::MutexExt as _;
use tokio::sync::oneshot;

use linnet_domain::NewLink;

use super::{
    super::{Store, StoreError},
    LinkCreation,
};

/// The maximum number of links of one statement.
const MAX_GROUP_LINKS: usize = 64;
/// The maximum number of concurrent writers of one server thread: one collects rows while the other commits.
const MAX_WRITERS: usize = 2;
/// The maximum number of waiting creates of one server thread.
const MAX_WAITING: usize = 4_096;
/// Time beyond those for a connection and a statement, so that these end first where PostgreSQL responds.
const WRITE_MARGIN: Duration = Duration::from_secs(1);

type CreateResult = Result<LinkCreation, StoreError>;

/// A link with the channel for the result.
type WaitingCreate = (NewLink, oneshot::Sender<CreateResult>);

#[derive(Default)]
struct Queue {
    waiting: Vec<WaitingCreate>,
    writers: usize,
}

/// The group commit of one server thread.
#[derive(Clone)]
pub struct GroupedCreates {
    store: Store,
    longest_write: Duration,
    queue: Arc<Mutex<Queue>>,
}

impl GroupedCreates {
    /// A group commit on this store, whose statements PostgreSQL ends after `statement_timeout`.
    pub fn new(store: Store, statement_timeout: Duration) -> Self {
        let longest_write = store.acquire_timeout() + statement_timeout + WRITE_MARGIN;
        Self { store, longest_write, queue: Arc::default() }
    }

    /// Creates a link. If the caller drops the future, a link with a generated code is created only if a writer has begun
    /// to write it.
    pub async fn create(&self, new: NewLink) -> CreateResult {
        if new.short_code.is_some() {
            return self.store.create_link(&new).await;
        }
        let (sender, result) = oneshot::channel();
        let needs_writer = {
            let mut queue = self.lock();
            if queue.waiting.len() >= MAX_WAITING {
                return Err(sqlx::Error::PoolTimedOut.into());
            }
            queue.waiting.push((new, sender));
            let needs_writer = queue.writers < MAX_WRITERS;
            queue.writers += usize::from(needs_writer);
            needs_writer
        };
        if needs_writer {
            tokio::spawn(self.clone().write_groups());
        }
        // The sender is dropped without a result only if the writer panics or its runtime ends.
        let result = async { result.await.map_err(|_| sqlx::Error::WorkerCrashed) };
        observe_query("create_link", result).await?
    }

    /// Writes groups until no create waits.
    async fn write_groups(self) {
        let _slot = WriterSlot(&self);
        loop {
            let mut group = {
                let mut queue = self.lock();
                // Their clients have got an error, so no client knows these links.
                queue.waiting.retain(|(_, sender)| !sender.is_closed());
                let count = queue.waiting.len().min(MAX_GROUP_LINKS);
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            match group.len() {
                0 => return,
                1 => {
                    if let Some((new, sender)) = group.pop() {
                        // Sending fails if the caller has dropped the future, here and below.
                        let _ = sender.send(self.create_alone(&new).await);
                    }
                }
                _ => self.write_group(group).await,
            }
        }
    }

    async fn create_alone(&self, new: &NewLink) -> CreateResult {
        self.bounded(self.store.create_link(new)).await
    }

    /// Ends work whose server never responds: otherwise its writer would keep its slot, and two of them would stop all
    /// creates of the thread, also after another server has become the primary.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let work = self.store.on_one_primary(work);
        match tokio::time::timeout(self.longest_write, work).await {
            Ok(result) => result,
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    async fn write_group(&self, group: Vec<WaitingCreate>) {
        let (links, senders): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let created = match self.bounded(self.store.create_links(&links)).await {
            Ok(created) => created,
            Err(StoreError::Unavailable(error)) => {
                for sender in senders {
                    let error = sqlx::Error::Protocol(format!("group of links: {error}"));
                    let _ = sender.send(Err(StoreError::Unavailable(error)));
                }
                return;
            }
            Err(error) => {
                // One link may be at fault, for example because of an unknown user. Each gets its own result.
                tracing::debug!(%error, "group of links failed; creating each link alone");
                links.iter().map(|_| None).collect()
            }
        };
        let results =
            links.iter().zip(created).zip(senders).map(|((new, created), sender)| async {
                let result = match created {
                    Some(link) => Ok(LinkCreation::New(link)),
                    None => self.create_alone(new).await,
                };
                let _ = sender.send(result);
            });
        futures::future::join_all(results).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock_ignoring_poison()
    }
}

/// The slot of a running writer. It is released even if the writer panics.
struct WriterSlot<'a>(&'a GroupedCreates);

impl Drop for WriterSlot<'_> {
    fn drop(&mut self) {
        self.0.lock().writers -= 1;
    }
}
