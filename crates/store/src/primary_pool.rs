//! A pool of connections to the primary, which is replaced when another server becomes the primary.

use std::{
    io, mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _,
    future::{BoxFuture, ready},
    stream::{BoxStream, once, select},
};
use sqlx::{
    Either, Error, Execute, Executor, PgPool, Postgres, SqlStr,
    pool::{PoolConnection, PoolOptions},
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{sync::watch, time::timeout};

use super::hosts::{ObservedHosts, Term, verify_accepts_writes};

/// Longest wait for the statements that run on a pool of an earlier primary, before its connections are dropped.
const FAREWELL: Duration = Duration::from_secs(5);

/// Connections to the primary. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum PrimaryPool {
    /// The only host, which is not observed.
    Fixed(PgPool),
    /// The primary of the observed hosts.
    Following(Arc<FollowingPool>),
}

/// The pool of the current term.
#[derive(Debug)]
pub(crate) struct FollowingPool {
    hosts: Arc<ObservedHosts>,
    terms: watch::Receiver<Option<Term>>,
    /// The options of a connection to each host.
    connect: Vec<PgConnectOptions>,
    options: PoolOptions<Postgres>,
    current: Mutex<Option<(u64, PgPool)>>,
}

impl PrimaryPool {
    /// A pool that follows the terms of these hosts. `connect` has the options of each.
    pub(crate) fn following(
        options: PgPoolOptions,
        connect: Vec<PgConnectOptions>,
        hosts: Arc<ObservedHosts>,
    ) -> Self {
        let observed = Arc::clone(&hosts);
        let options = options.after_connect(move |connection, _| {
            let observed = Arc::clone(&observed);
            Box::pin(async move {
                // The error makes sqlx connect again after a short wait, until the request's own time is over.
                let verified = verify_accepts_writes(connection).await;
                verified.inspect_err(|_| observed.suspect())
            })
        });
        let terms = hosts.terms();
        let current = Mutex::new(None);
        Self::Following(Arc::new(FollowingPool { hosts, terms, connect, options, current }))
    }

    /// The pool of the primary. If none is known, waits for one as long as for a connection.
    ///
    /// # Errors
    /// [`Error::PoolTimedOut`] if no primary is known in that time.
    pub(crate) async fn current(&self) -> Result<PgPool, Error> {
        match self {
            Self::Fixed(pool) => Ok(pool.clone()),
            Self::Following(pool) => Ok(pool.current().await?.0),
        }
    }

    /// The pool that was used last, if any.
    pub(crate) fn last(&self) -> Option<PgPool> {
        match self {
            Self::Fixed(pool) => Some(pool.clone()),
            Self::Following(pool) => pool.lock().as_ref().map(|(_, pool)| pool.clone()),
        }
    }

    /// Takes a connection from the pool of the primary.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        self.current().await?.acquire().await
    }

    pub(crate) fn options(&self) -> &PoolOptions<Postgres> {
        match self {
            Self::Fixed(pool) => pool.options(),
            Self::Following(pool) => &pool.options,
        }
    }

    /// Ends when another term than the current one begins, with the error for what was using its connections. Does not
    /// end with one host.
    pub(crate) fn replaced(&self) -> impl Future<Output = Error> + Send + use<> {
        let terms = match self {
            Self::Fixed(_) => None,
            Self::Following(pool) => {
                let terms = pool.terms.clone();
                let number = terms.borrow().map_or(0, |term| term.number);
                Some((terms, number))
            }
        };
        async move {
            match terms {
                Some((terms, number)) => later_term(terms, number).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for running statements and closes all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Fixed(pool) => pool.close().await,
            Self::Following(following) => {
                let last = following.lock().clone();
                if let Some((_, pool)) = last {
                    pool.close().await;
                }
            }
        }
    }
}

impl FollowingPool {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, PgPool)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self) -> Result<(PgPool, u64), Error> {
        let known = *self.terms.borrow();
        let term = match known {
            Some(term) => term,
            None => self.next_term().await?,
        };
        Ok((self.of_term(term), term.number))
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
        let old = mem::replace(&mut *current, Some((term.number, pool.clone())));
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

/// Waits for a term after this one.
async fn later_term(mut terms: watch::Receiver<Option<Term>>, number: u64) -> Error {
    let later = terms.wait_for(|term| term.is_some_and(|term| term.number > number)).await;
    if later.is_err() {
        // The hosts are no longer observed: the process is stopping.
        std::future::pending::<()>().await;
    }
    let reason = "another server has become the primary";
    Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
}

impl Executor<'_> for &'_ PrimaryPool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let following = match self {
            PrimaryPool::Fixed(pool) => return pool.fetch_many(query),
            PrimaryPool::Following(following) => Arc::clone(following),
        };
        let items = async move {
            let (pool, number) = following.current().await?;
            let items = pool.fetch_many(query).map(Some).chain(once(ready(None)));
            let replaced =
                later_term(following.terms.clone(), number).map(|error| Some(Err(error)));
            // `None` ends the stream although the second one is still waiting.
            let items = select(items, once(replaced)).take_while(|item| ready(item.is_some()));
            Ok(items.filter_map(ready))
        };
        items.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let following = match self {
            PrimaryPool::Fixed(pool) => return pool.fetch_optional(query),
            PrimaryPool::Following(following) => Arc::clone(following),
        };
        async move {
            let (pool, number) = following.current().await?;
            let replaced = pin!(later_term(following.terms.clone(), number));
            tokio::select! {
                biased;
                row = pool.fetch_optional(query) => row,
                error = replaced => Err(error),
            }
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>> {
        let pool = self.clone();
        async move { pool.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>> {
        let pool = self.clone();
        async move { pool.acquire().await?.describe(sql).await }.boxed()
    }
}
