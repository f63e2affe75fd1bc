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

    /// Appends the rows of these batches to `rows`, but none for a link whose history was erased.
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
        let lookups = Lookups { links, now: self.clock.now() };
        rows.reserve(batches.iter().map(|batch| batch.clicks.len()).sum());
        for (batch, values) in batches.iter().zip(values) {
            let ids = values.ids(&value_ids);
            rows.extend(batch.clicks.iter().filter_map(|click| lookups.row(click, &ids)));
        }
        Ok(())
    }

    /// The values of a batch's texts. Each text is parsed once, however many clicks have it.
    fn parse_texts(&mut self, batch: &Batch) -> BatchValues {
        let text = |index: u32| {
            batch.texts.get(usize::try_from(index).unwrap_or(usize::MAX)).map_or("", String::as_str)
        };
        let mut values = BatchValues {
            user_agents: ByText::new(batch.texts.len()),
            referrers: ByText::new(batch.texts.len()),
            origins: HashMap::new(),
        };
        for click in &batch.clicks {
            if let Some(index) = click.agent {
                values.user_agents.insert_with(index, || {
                    let agent = text(index);
                    self.user_agents.get(agent).cloned().unwrap_or_else(|| {
                        let parsed = Arc::new(self.parser.parse(agent));
                        self.user_agents.insert(agent.to_owned(), Arc::clone(&parsed));
                        parsed
                    })
                });
            }
            if let Some(index) = click.referrer {
                values.referrers.insert_with(index, || ClickValue {
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
    links: HashMap<LinkId, LinkAttributes>,
    now: DateTime<Utc>,
}

impl Lookups {
    /// `None` if the link's history was erased.
    fn row(&self, click: &PackedClick, ids: &BatchValueIds) -> Option<ClickRow> {
        let link = self.links.get(&click.url_id).copied().unwrap_or_default();
        if link.is_erased {
            return None;
        }
        let at = i64::try_from(click.at_ms).ok().and_then(DateTime::from_timestamp_millis);
        let (is_bot, agent_id) = click
            .agent
            .and_then(|index| ids.user_agents.get(index).copied())
            .unwrap_or((true, None));
        let referrer_id =
            click.referrer.and_then(|index| ids.referrers.get(index).copied()).flatten();
        let origin_id = ids.origins.get(&(click.country, click.language)).copied().flatten();
        Some(ClickRow {
            at: at.filter(|at| *at < self.now + MAX_AHEAD).unwrap_or(self.now),
            url_id: click.url_id,
            visitor: click.visitor.map(u64::cast_signed),
            values: [agent_id, origin_id, referrer_id, link.campaign_id.and_then(NonZeroI32::new)],
            user_id: link.user_id,
            kind: ClickKind::of(click.is_head, is_bot, click.is_prefetch),
            is_counted: click.is_counted,
        })
    }
}

/// The indexes of a country and a language.
type OriginIndexes = (Option<u32>, Option<u32>);

/// The values of a batch.
struct BatchValues {
    user_agents: ByText<Arc<ParsedUserAgent>>,
    referrers: ByText<ClickValue>,
    origins: HashMap<OriginIndexes, ClickValue>,
}

/// The ids of the values of a batch, which are looked up once for all its clicks.
struct BatchValueIds {
    /// Whether it is a bot's, and the id.
    user_agents: ByText<(bool, Option<NonZeroI32>)>,
    referrers: ByText<Option<NonZeroI32>>,
    origins: HashMap<OriginIndexes, Option<NonZeroI32>>,
}

impl BatchValues {
    fn all(&self) -> impl Iterator<Item = ClickValue> {
        let user_agents = self.user_agents.values().map(|user_agent| user_agent.value.clone());
        user_agents.chain(self.referrers.values().cloned()).chain(self.origins.values().cloned())
    }

    fn ids(self, ids: &HashMap<ClickValue, i32>) -> BatchValueIds {
        // Ids come from an identity column of PostgreSQL, which starts at 1.
        let id_of = |value: &ClickValue| ids.get(value).copied().and_then(NonZeroI32::new);
        BatchValueIds {
            user_agents: self.user_agents.map(|agent| (agent.is_bot, id_of(&agent.value))),
            referrers: self.referrers.map(|referrer| id_of(&referrer)),
            origins: self.origins.into_iter().map(|(key, value)| (key, id_of(&value))).collect(),
        }
    }
}

/// Something for each text of a batch, by the index of the text.
struct ByText<T>(Vec<Option<T>>);

impl<T> ByText<T> {
    fn new(texts: usize) -> Self {
        // The last place is for indexes without a text.
        Self(std::iter::repeat_with(|| None).take(texts + 1).collect())
    }

    fn insert_with(&mut self, index: u32, value: impl FnOnce() -> T) {
        let at = self.place(index);
        if let Some(place) = self.0.get_mut(at) {
            place.get_or_insert_with(value);
        }
    }

    fn get(&self, index: u32) -> Option<&T> {
        self.0.get(self.place(index))?.as_ref()
    }

    fn place(&self, index: u32) -> usize {
        usize::try_from(index).unwrap_or(usize::MAX).min(self.0.len() - 1)
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    fn map<U>(self, map: impl Fn(T) -> U) -> ByText<U> {
        ByText(self.0.into_iter().map(|value| value.map(&map)).collect())
    }
}
