//! A pool of connections to the primary, or to a replica, which is replaced when another server takes its place.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _,
    future::{BoxFuture, ready},
    stream::{BoxStream, once, select},
};
use sqlx::{
    Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::{PoolConnection, PoolConnectionMetadata, PoolOptions},
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{sync::watch, time::timeout};

use super::{ObservedHosts, Role, connect::verify_accepts_writes, election::Term};

/// Longest wait for the statements that run on a pool of an earlier primary, before its connections are dropped.
const FAREWELL: Duration = Duration::from_secs(5);

/// Connections to one host. Clones share them.
#[derive(Debug, Clone)]
pub enum HostPool {
    /// The only host, which is not observed.
    Fixed(PgPool),
    /// The chosen one of the observed hosts.
    Following(Arc<FollowingPool>),
    /// The host of one term. Statements fail as soon as the term ends.
    Pinned(Arc<PinnedPool>),
}

/// The pool of the current term.
#[derive(Debug)]
pub struct FollowingPool {
    hosts: Arc<ObservedHosts>,
    terms: Terms,
    /// The options of a connection to each host.
    connect: Vec<PgConnectOptions>,
    options: PoolOptions<Postgres>,
    current: Mutex<Option<(u64, PgPool)>>,
}

/// The pool of one term.
#[derive(Debug)]
pub struct PinnedPool {
    pool: PgPool,
    terms: Terms,
    term: Term,
}

type Terms = watch::Receiver<Option<Term>>;

/// A pool for one statement, and until when its host is to be used.
struct Chosen {
    pool: PgPool,
    terms: Terms,
    number: u64,
    /// Whether the statement fails when its term ends, even if no other one begins.
    is_pinned: bool,
}

impl HostPool {
    /// A pool that follows the terms of these hosts. `connect` has the options of each.
    pub(crate) fn following(
        options: PgPoolOptions,
        connect: Vec<PgConnectOptions>,
        hosts: Arc<ObservedHosts>,
    ) -> Self {
        let options = match hosts.role() {
            Role::Primary => options.after_connect(verify_primary(Arc::clone(&hosts))),
            // Each read compares positions instead.
            Role::Replica(_) => options,
        };
        let terms = hosts.terms();
        let current = Mutex::new(None);
        Self::Following(Arc::new(FollowingPool { hosts, terms, connect, options, current }))
    }

    /// The pool of the chosen host. If none is chosen, waits for one as long as for a connection.
    ///
    /// # Errors
    /// [`Error::PoolTimedOut`] if no host is chosen in that time.
    pub async fn current(&self) -> Result<PgPool, Error> {
        match self {
            Self::Fixed(pool) => Ok(pool.clone()),
            Self::Following(following) => Ok(following.choose().await?.pool),
            Self::Pinned(pinned) => Ok(pinned.pool.clone()),
        }
    }

    /// This pool for the current term only; `None` without a term.
    pub fn pinned(&self) -> Option<Self> {
        let Self::Following(following) = self else { return None };
        let term = (*following.terms.borrow())?;
        let pool = following.of_term(term);
        Some(Self::Pinned(Arc::new(PinnedPool { pool, terms: following.terms.clone(), term })))
    }

    /// The timeline of a pinned pool.
    pub fn timeline(&self) -> Option<i64> {
        match self {
            Self::Pinned(pinned) => Some(pinned.term.timeline),
            Self::Fixed(_) | Self::Following(_) => None,
        }
    }

    /// The pool that was used last, if any.
    pub fn last(&self) -> Option<PgPool> {
        match self {
            Self::Fixed(pool) => Some(pool.clone()),
            Self::Following(following) => following.lock().as_ref().map(|(_, pool)| pool.clone()),
            Self::Pinned(pinned) => Some(pinned.pool.clone()),
        }
    }

    /// Takes a connection from the pool of the chosen host.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        self.current().await?.acquire().await
    }

    /// The options of the pools.
    pub fn options(&self) -> &PoolOptions<Postgres> {
        match self {
            Self::Fixed(pool) => pool.options(),
            Self::Following(following) => &following.options,
            Self::Pinned(pinned) => pinned.pool.options(),
        }
    }

    /// Waits for a host, and returns a future that ends when another term begins, with the error for what was using the
    /// connections of the current one. With one host, it does not end.
    pub async fn replaced(&self) -> Result<impl Future<Output = Error> + Send + use<>, Error> {
        let chosen = match self.choose() {
            Ok(choice) => Some(choice.await?),
            Err(_only) => None,
        };
        Ok(async move {
            match chosen {
                Some(chosen) => chosen.end().await,
                None => std::future::pending().await,
            }
        })
    }

    /// Waits for running statements and closes all connections.
    pub async fn close(&self) {
        if let Some(pool) = self.last() {
            pool.close().await;
        }
    }

    /// The future that chooses the pool for one statement; the only pool if there is no choice.
    fn choose(
        &self,
    ) -> Result<impl Future<Output = Result<Chosen, Error>> + Send + use<>, &PgPool> {
        let this = match self {
            Self::Fixed(pool) => return Err(pool),
            Self::Following(_) | Self::Pinned(_) => self.clone(),
        };
        Ok(async move {
            match &this {
                Self::Following(following) => following.choose().await,
                Self::Pinned(pinned) => Ok(Chosen {
                    pool: pinned.pool.clone(),
                    terms: pinned.terms.clone(),
                    number: pinned.term.number,
                    is_pinned: true,
                }),
                Self::Fixed(_) => Err(Error::WorkerCrashed),
            }
        })
    }
}

type AfterConnect = dyn for<'c> Fn(&'c mut PgConnection, PoolConnectionMetadata) -> BoxFuture<'c, Result<(), Error>>
    + Send
    + Sync;

/// Checks that a new connection leads to a server that accepts writes. The error makes sqlx connect again after a short
/// wait, until the time of the request is over.
fn verify_primary(hosts: Arc<ObservedHosts>) -> Box<AfterConnect> {
    Box::new(move |connection, _| {
        let hosts = Arc::clone(&hosts);
        Box::pin(
            async move { verify_accepts_writes(connection).await.inspect_err(|_| hosts.suspect()) },
        )
    })
}

impl Chosen {
    /// Ends with the term of the pool, with the error for its statements.
    async fn end(mut self) -> Error {
        let (number, is_pinned) = (self.number, self.is_pinned);
        let ended = self.terms.wait_for(|term| match term {
            Some(term) => term.number > number,
            None => is_pinned,
        });
        if ended.await.is_err() {
            // The hosts are no longer observed: the process is stopping.
            std::future::pending::<()>().await;
        }
        let reason = "another server has taken the place of this one";
        Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
    }
}

impl FollowingPool {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, PgPool)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn choose(&self) -> Result<Chosen, Error> {
        let known = *self.terms.borrow();
        let term = match known {
            Some(term) => term,
            None => self.next_term().await?,
        };
        let (pool, terms) = (self.of_term(term), self.terms.clone());
        Ok(Chosen { pool, terms, number: term.number, is_pinned: false })
    }

    async fn next_term(&self) -> Result<Term, Error> {
        self.hosts.suspect();
        let mut terms = self.terms.clone();
        let known = terms.wait_for(Option::is_some);
        match timeout(self.options.get_acquire_timeout(), known).await {
            Ok(Ok(term)) => (*term).ok_or(Error::PoolTimedOut),
            Ok(Err(_)) | Err(_) => Err(Error::PoolTimedOut),
        }
    }

    /// The pool of this term, which the first caller of a term opens on its own runtime.
    fn of_term(&self, term: Term) -> PgPool {
        let mut current = self.lock();
        if let Some((number, pool)) = &*current
            // A caller may have read its term before another one began.
            && *number >= term.number
        {
            return pool.clone();
        }
        let connect = self.connect.get(term.host).cloned().unwrap_or_default();
        let pool = self.options.clone().connect_lazy_with(connect);
        let old = current.replace((term.number, pool.clone()));
        drop(current);
        if let Some((_, old)) = old {
            tokio::spawn(async move {
                // Statements that hang on a host that disappeared keep only their own connections.
                let _ = timeout(FAREWELL, old.close()).await;
            });
        }
        pool
    }
}

impl<'p> Executor<'p> for &'_ HostPool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let choice = match self.choose() {
            Ok(choice) => choice,
            Err(only) => return only.fetch_many(query),
        };
        let items = async move {
            let chosen = choice.await?;
            let items = chosen.pool.fetch_many(query).map(Some).chain(once(ready(None)));
            let ended = once(chosen.end().map(|error| Some(Err(error))));
            // `None` ends the stream although the second one is still waiting.
            let items = select(items, ended).take_while(|item| ready(item.is_some()));
            Ok::<_, Error>(items.filter_map(ready))
        };
        items.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let choice = match self.choose() {
            Ok(choice) => choice,
            Err(only) => return only.fetch_optional(query),
        };
        async move {
            let chosen = choice.await?;
            let row = chosen.pool.fetch_optional(query);
            let ended = chosen.end();
            tokio::select! {
                biased;
                row = row => row,
                error = ended => Err(error),
            }
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>> {
        let pool = self.clone();
        async move { pool.acquire().await?.describe(sql).await }.boxed()
    }
}
