//! What ingestion must know of links, remembered for a while.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use quick_cache::unsync::Cache;

use crate::campaign;
use linnet_domain::{ClickValue, LinkId, UserId};
use linnet_store::{Store, StoreError};

use super::values::Values;

/// Links that are remembered.
const ENTRIES: usize = 50_000;
/// A target may be edited, and its campaign with it.
const LIFE: Duration = Duration::from_mins(1);

/// Owner and campaign of a link; neither when it is gone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) user_id: Option<UserId>,
    pub(super) campaign_id: Option<i32>,
}

/// The memory of one ingester.
pub(super) struct Links {
    held: Cache<LinkId, (Known, Instant)>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self { held: Cache::new(ENTRIES) }
    }

    /// What is known of these links, asking the database for the rest.
    pub(super) async fn get(
        &mut self,
        store: &Store,
        values: &mut Values,
        ids: impl IntoIterator<Item = LinkId>,
    ) -> Result<HashMap<LinkId, Known>, StoreError> {
        let now = Instant::now();
        let mut known: HashMap<LinkId, Known> = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            if known.contains_key(&id) {
                continue;
            }
            let held = self.held.get(&id).filter(|(_, until)| *until > now);
            if held.is_none() {
                missing.push(id);
            }
            known.insert(id, held.map(|(known, _)| *known).unwrap_or_default());
        }
        if missing.is_empty() {
            return Ok(known);
        }
        let facts = store.link_facts(&missing).await?;
        let campaigns: HashMap<LinkId, ClickValue> = facts
            .iter()
            .filter_map(|link| Some((link.id, campaign(link.campaign_target.as_deref()?)?)))
            .collect();
        let ids = values.get(store, campaigns.values()).await?;
        for link in facts {
            let campaign_id = campaigns.get(&link.id).and_then(|value| ids.get(value)).copied();
            known.insert(link.id, Known { user_id: link.user_id, campaign_id });
        }
        for id in missing {
            let found = known.get(&id).copied().unwrap_or_default();
            self.held.insert(id, (found, now + LIFE));
        }
        Ok(known)
    }
}
