//! Caches ids of `click_values`, and adds new values.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use quick_cache::unsync::Cache;

use linnet_domain::ClickValue;
use linnet_store::{Store, StoreError};

/// The maximum number of cached values.
pub(super) const CAPACITY: usize = 20_000;
/// The maximum number of values of one kind that get an id. Later clicks are recorded without new values. Clients
/// control referrers and user agents, so without a limit they could fill the table.
const MAX_VALUES_OF_KIND: i64 = 100_000;
/// Time between two counts of the table, to which other workers add too.
const COUNT_EVERY: Duration = Duration::from_mins(1);

/// The cached ids; `None` for a value that gets no id.
pub(super) struct ValueIds {
    cache: Cache<ClickValue, Option<i32>>,
    /// Approximate number of values of each kind.
    counts: HashMap<i16, i64>,
    counted_at: Option<Instant>,
}

impl ValueIds {
    pub(super) fn new() -> Self {
        Self { cache: Cache::new(CAPACITY), counts: HashMap::new(), counted_at: None }
    }

    /// The ids of these values, without values that get no id. New values are added to the table.
    pub(super) async fn get<'a>(
        &mut self,
        store: &Store,
        values: impl IntoIterator<Item = &'a ClickValue>,
    ) -> Result<HashMap<ClickValue, i32>, StoreError> {
        let mut ids = HashMap::new();
        let mut missing: Vec<ClickValue> = Vec::new();
        for value in values {
            match self.cache.get(value) {
                Some(Some(id)) => {
                    ids.insert(value.clone(), *id);
                }
                Some(None) => {}
                None => missing.push(value.clone()),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(ids);
        }
        ids.extend(store.find_click_values(&missing).await?);
        let new: Vec<ClickValue> =
            missing.iter().filter(|value| !ids.contains_key(*value)).cloned().collect();
        let new = self.within_limit(store, new).await?;
        if !new.is_empty() {
            store.add_click_values(&new).await?;
            // Another worker may have added some of them.
            ids.extend(store.find_click_values(&new).await?);
        }
        for value in missing {
            let id = ids.get(&value).copied();
            self.cache.insert(value, id);
        }
        Ok(ids)
    }

    /// The new values that do not exceed the limit of their kind.
    async fn within_limit(
        &mut self,
        store: &Store,
        mut new: Vec<ClickValue>,
    ) -> Result<Vec<ClickValue>, StoreError> {
        if new.is_empty() {
            return Ok(new);
        }
        if self.counted_at.is_none_or(|counted_at| counted_at.elapsed() > COUNT_EVERY) {
            self.counts = store.count_click_values().await?;
            self.counted_at = Some(Instant::now());
        }
        new.retain(|value| {
            let count = self.counts.entry(value.kind.number()).or_default();
            *count += 1;
            *count <= MAX_VALUES_OF_KIND
        });
        Ok(new)
    }
}
