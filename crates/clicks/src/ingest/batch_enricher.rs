//! Turns batches into rows: looks up each click's user agent, values and link.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroI32,
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use linnet_platform::clock::Clock;
use quick_cache::unsync::Cache;

use crate::{Batch, PackedClick, ParsedUserAgent, UserAgentParser};
use linnet_domain::{ClickKind, ClickValue, LinkId, ValueKind};
use linnet_store::{ClickRow, Store, StoreError};

use super::{
    link_directory::{LinkAttributes, LinkDirectory},
    value_ids::ValueIds,
};

/// The maximum number of cached user agents.
pub(super) const CACHED_USER_AGENTS: usize = 10_000;
/// A click whose time is further in the future is recorded with the current time.
const MAX_AHEAD: TimeDelta = TimeDelta::hours(1);

/// Caches parsed user agents, ids of values, and attributes of links, which many clicks share.
pub struct BatchEnricher {
    store: Store,
    parser: UserAgentParser,
    user_agents: Cache<String, Arc<ParsedUserAgent>>,
    value_ids: ValueIds,
    links: LinkDirectory,
    clock: Clock,
}

/// A [`BatchEnricher`] that the writers of a process share. A writer holds the lock while it enriches, not while it writes.
pub type SharedBatchEnricher = Arc<tokio::sync::Mutex<BatchEnricher>>;

impl BatchEnricher {
    /// An enricher with empty caches.
    pub fn shared(store: Store, clock: Clock) -> SharedBatchEnricher {
        Arc::new(tokio::sync::Mutex::new(Self {
            store,
            parser: UserAgentParser::default(),
            user_agents: Cache::new(CACHED_USER_AGENTS),
            value_ids: ValueIds::new(),
            links: LinkDirectory::new(),
            clock,
        }))
    }

    /// Appends the rows of these batches to `rows`.
    pub(super) async fn enrich(
        &mut self,
        batches: &[Batch],
        rows: &mut Vec<ClickRow>,
    ) -> Result<(), StoreError> {
        let mut values = Vec::with_capacity(batches.len());
        let mut distinct: HashSet<ClickValue> = HashSet::new();
        for batch in batches {
            let batch_values = self.parse_texts(batch);
            distinct.extend(batch_values.all());
            values.push(batch_values);
        }
        let value_ids = self.value_ids.get(&self.store, &distinct).await?;
        let link_ids = batches.iter().flat_map(|batch| &batch.clicks).map(|click| click.url_id);
        let links = self.links.get(&self.store, &mut self.value_ids, link_ids).await?;
        let lookups = Lookups { value_ids, links, now: self.clock.now() };
        rows.reserve(batches.iter().map(|batch| batch.clicks.len()).sum());
        for (batch, values) in batches.iter().zip(&values) {
            rows.extend(batch.clicks.iter().map(|click| lookups.row(click, values)));
        }
        Ok(())
    }

    /// The values of a batch's texts. Each text is parsed once, however many clicks have it.
    fn parse_texts(&mut self, batch: &Batch) -> BatchValues {
        let text = |index: u32| {
            batch.texts.get(usize::try_from(index).unwrap_or(usize::MAX)).map_or("", String::as_str)
        };
        let mut values = BatchValues::default();
        for click in &batch.clicks {
            if let Some(index) = click.agent
                && !values.user_agents.contains_key(&index)
            {
                let agent = text(index);
                let parsed = self.user_agents.get(agent).cloned().unwrap_or_else(|| {
                    let parsed = Arc::new(self.parser.parse(agent));
                    self.user_agents.insert(agent.to_owned(), Arc::clone(&parsed));
                    parsed
                });
                values.user_agents.insert(index, parsed);
            }
            if let Some(index) = click.referrer {
                values.referrers.entry(index).or_insert_with(|| ClickValue {
                    kind: ValueKind::Referrer,
                    parts: vec![text(index).to_owned()],
                });
            }
            if click.country.is_some() || click.language.is_some() {
                values.origins.entry((click.country, click.language)).or_insert_with(|| {
                    let part = |index: Option<u32>| index.map_or("", text).to_owned();
                    ClickValue {
                        kind: ValueKind::Origin,
                        parts: vec![part(click.country), part(click.language)],
                    }
                });
            }
        }
        values
    }
}

/// The results of the lookups for some batches.
struct Lookups {
    value_ids: HashMap<ClickValue, i32>,
    links: HashMap<LinkId, LinkAttributes>,
    now: DateTime<Utc>,
}

impl Lookups {
    fn row(&self, click: &PackedClick, values: &BatchValues) -> ClickRow {
        let at = i64::try_from(click.at_ms).ok().and_then(DateTime::from_timestamp_millis);
        let user_agent = click.agent.and_then(|index| values.user_agents.get(&index));
        let is_bot = user_agent.is_none_or(|user_agent| user_agent.is_bot);
        let link = self.links.get(&click.url_id).copied().unwrap_or_default();
        let referrer = click.referrer.and_then(|index| values.referrers.get(&index));
        let origin = values.origins.get(&(click.country, click.language));
        let id_of = |value: Option<&ClickValue>| self.value_ids.get(value?).copied();
        let values = [
            id_of(user_agent.map(|user_agent| &user_agent.value)),
            id_of(origin),
            id_of(referrer),
            link.campaign_id,
        ];
        ClickRow {
            at: at.filter(|at| *at < self.now + MAX_AHEAD).unwrap_or(self.now),
            url_id: click.url_id,
            visitor: click.visitor.map(u64::cast_signed),
            // Ids come from an identity column of PostgreSQL, which starts at 1.
            values: values.map(|id| id.and_then(NonZeroI32::new)),
            user_id: link.user_id,
            kind: ClickKind::of(click.is_head, is_bot, click.is_prefetch),
            is_counted: click.is_counted,
        }
    }
}

/// The values of a batch, by the indexes of their texts.
#[derive(Default)]
struct BatchValues {
    user_agents: HashMap<u32, Arc<ParsedUserAgent>>,
    referrers: HashMap<u32, ClickValue>,
    origins: HashMap<(Option<u32>, Option<u32>), ClickValue>,
}

impl BatchValues {
    fn all(&self) -> impl Iterator<Item = ClickValue> {
        let user_agents = self.user_agents.values().map(|user_agent| user_agent.value.clone());
        user_agents.chain(self.referrers.values().cloned()).chain(self.origins.values().cloned())
    }
}
