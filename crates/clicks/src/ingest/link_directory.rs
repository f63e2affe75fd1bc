//! Caches owner and campaign of links for ingestion.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use quick_cache::unsync::Cache;

use crate::campaign;
use linnet_domain::{ClickValue, LinkId, UserId};
use linnet_store::{ERASURE_DELAY, Store, StoreError};

use super::value_ids::ValueIds;

/// The maximum number of cached links.
pub(super) const CAPACITY: usize = 50_000;
/// TTL of a cached link. It is short because an edit of the target can change the campaign.
const TTL: Duration = Duration::from_mins(1);
const _: () = assert!(TTL.as_secs() < ERASURE_DELAY.as_secs());

/// Owner and campaign of a link. A deleted link has neither.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkAttributes {
    pub(super) user_id: Option<UserId>,
    pub(super) campaign_id: Option<i32>,
    /// The link's history was erased: a click that arrives later must not be recorded.
    pub(super) is_erased: bool,
}

/// The cached links, with the time until which each may be used.
pub(super) struct LinkDirectory {
    cache: Cache<LinkId, (LinkAttributes, Instant)>,
}

impl LinkDirectory {
    pub(super) fn new() -> Self {
        Self { cache: Cache::new(CAPACITY) }
    }

    /// The attributes of these links; uncached ones are read from the database.
    pub(super) async fn get(
        &mut self,
        store: &Store,
        value_ids: &mut ValueIds,
        ids: impl IntoIterator<Item = LinkId>,
    ) -> Result<HashMap<LinkId, LinkAttributes>, StoreError> {
        let now = Instant::now();
        let mut links: HashMap<LinkId, LinkAttributes> = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            if links.contains_key(&id) {
                continue;
            }
            let cached = self.cache.get(&id).filter(|(_, usable_until)| *usable_until > now);
            if cached.is_none() {
                missing.push(id);
            }
            links.insert(id, cached.map(|(link, _)| *link).unwrap_or_default());
        }
        if missing.is_empty() {
            return Ok(links);
        }
        let facts = store.link_facts(&missing).await?;
        let found: HashSet<LinkId> = facts.iter().map(|link| link.id).collect();
        let campaigns: HashMap<LinkId, ClickValue> = facts
            .iter()
            .filter_map(|link| Some((link.id, campaign(link.campaign_target.as_deref()?)?)))
            .collect();
        let campaign_ids = value_ids.get(store, campaigns.values()).await?;
        for link in facts {
            let campaign = campaigns.get(&link.id);
            let campaign_id = campaign.and_then(|campaign| campaign_ids.get(campaign)).copied();
            let link_attributes =
                LinkAttributes { user_id: link.user_id, campaign_id, is_erased: false };
            links.insert(link.id, link_attributes);
            self.cache.insert(link.id, (link_attributes, now + TTL));
        }
        // Deleted links are not cached, because their history can be erased at any time.
        missing.retain(|id| !found.contains(id));
        if !missing.is_empty() {
            for id in store.links_without_history(&missing).await? {
                links.insert(id, LinkAttributes { is_erased: true, ..LinkAttributes::default() });
            }
        }
        Ok(links)
    }
}
