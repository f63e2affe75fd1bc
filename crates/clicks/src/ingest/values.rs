//! Ids of `click_values`, remembered.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use quick_cache::unsync::Cache;

use linnet_domain::ClickValue;
use linnet_store::{Store, StoreError};

/// Values that are remembered.
const ENTRIES: usize = 20_000;
/// Values of one kind that get an id. Strangers choose referrers and user agents: beyond this number
/// a new one is recorded as unknown, and the clicks count all the same.
const MOST_OF_A_KIND: i64 = 100_000;
/// Other workers add values, too.
const COUNT_EVERY: Duration = Duration::from_mins(1);

/// The memory of one ingester.
pub(super) struct Values {
    held: Cache<ClickValue, Option<i32>>,
    /// Values of each kind, about.
    counts: HashMap<i16, i64>,
    counted: Option<Instant>,
}

impl Values {
    pub(super) fn new() -> Self {
        Self { held: Cache::new(ENTRIES), counts: HashMap::new(), counted: None }
    }

    /// The ids of these values; one without an id is left out.
    pub(super) async fn get<'a>(
        &mut self,
        store: &Store,
        values: impl IntoIterator<Item = &'a ClickValue>,
    ) -> Result<HashMap<ClickValue, i32>, StoreError> {
        let mut ids = HashMap::new();
        let mut missing: Vec<ClickValue> = Vec::new();
        for value in values {
            match self.held.get(value) {
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
        ids.extend(store.find_values(&missing).await?);
        let new: Vec<ClickValue> =
            missing.iter().filter(|value| !ids.contains_key(*value)).cloned().collect();
        let new = self.with_room(store, new).await?;
        if !new.is_empty() {
            store.add_values(&new).await?;
            // Another worker may have added some of them.
            ids.extend(store.find_values(&new).await?);
        }
        for value in missing {
            let id = ids.get(&value).copied();
            self.held.insert(value, id);
        }
        Ok(ids)
    }

    /// Those of the values whose kind may have more.
    async fn with_room(
        &mut self,
        store: &Store,
        mut new: Vec<ClickValue>,
    ) -> Result<Vec<ClickValue>, StoreError> {
        if new.is_empty() {
            return Ok(new);
        }
        if self.counted.is_none_or(|counted| counted.elapsed() > COUNT_EVERY) {
            self.counts = store.count_values().await?;
            self.counted = Some(Instant::now());
        }
        new.retain(|value| {
            let count = self.counts.entry(value.kind.number()).or_default();
            *count += 1;
            *count <= MOST_OF_A_KIND
        });
        Ok(new)
    }
}
