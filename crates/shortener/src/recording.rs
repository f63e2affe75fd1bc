//! What a serving process needs to record clicks, started together.

use std::{io, sync::Arc};

use linnet_platform::{clock::Clock, lifecycle::Lifecycle};
use linnet_telemetry::metrics::Meter;

use crate::config::Settings;
use linnet_clicks::{
    ClickBuffers, ClickMetrics, Countries, Enricher, LiveClicks, Publisher, PublisherHandle,
    VisitorKeys, keep_visitor_keys,
};
use linnet_store::Store;

/// The recording of clicks.
pub(crate) struct Recording {
    /// Where redirects leave them.
    pub(crate) buffers: ClickBuffers,
    /// To be finished when nobody serves any more.
    pub(crate) publisher: PublisherHandle,
    /// Shows them as they come.
    pub(crate) live: LiveClicks,
}

impl Recording {
    /// Starts everything, unless clicks are not to be recorded.
    pub(crate) fn start(
        settings: &Settings,
        meter: &Meter,
        store: &Store,
        agents: &Arc<Enricher>,
        lifecycle: &Lifecycle,
    ) -> io::Result<Option<Self>> {
        let clicks = &settings.clicks;
        if !clicks.enabled {
            return Ok(None);
        }
        let metrics = Arc::new(ClickMetrics::new(meter));
        let buffers = ClickBuffers::new(clicks, Arc::clone(&metrics));
        let keys = VisitorKeys::default();
        lifecycle
            .own("visitor keys", keep_visitor_keys(keys.clone(), store.clone(), Clock::System));
        let countries = Countries::default();
        if !clicks.country_file.as_os_str().is_empty() {
            lifecycle.own("countries", countries.clone().follow(clicks.country_file.clone()));
        }
        let publisher = Publisher {
            buffers: buffers.clone(),
            settings: clicks.clone(),
            redis: settings.redis.clone(),
            keys,
            countries,
            metrics,
        };
        let live = LiveClicks::new(Arc::clone(agents));
        lifecycle.own("live clicks", live.clone().follow(settings.redis.clone()));
        Ok(Some(Self { buffers, publisher: publisher.start(lifecycle)?, live }))
    }
}
