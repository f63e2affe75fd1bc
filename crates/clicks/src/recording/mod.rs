//! The shortener's end of the pipeline: from a redirect to the stream.

mod buffer;
mod country;
mod live;
mod metrics;
mod publisher;
mod spool;
mod visitor;

use std::{io, sync::Arc};

use linnet_platform::{clock::Clock, lifecycle::Lifecycle, settings::RedisSettings};
use linnet_store::Store;
use linnet_telemetry::metrics::Meter;

use crate::{ClickSettings, UserAgentParser};

use country::CountryDatabase;
use metrics::RecordingMetrics;
use publisher::PublisherContext;
use visitor::{VisitorKeys, refresh_visitor_keys};

pub use buffer::{ClickBuffer, ClickBuffers, ClickObservation, buffer_bytes};
pub use live::{
    LIVE_READ_BYTES, LIVE_STREAM_BYTES, LiveClick, LiveClickId, LiveClickSubscription, LiveClicks,
    ParseLiveClickIdError,
};
pub use publisher::{MAX_BATCH_BYTES, PublisherHandle};

/// The running tasks that record a serving process's clicks.
pub struct ClickRecording {
    /// The buffers of the server threads.
    pub buffers: ClickBuffers,
    /// Flushes the last clicks at shutdown.
    pub publisher: PublisherHandle,
    /// The live streams of clicks.
    pub live: LiveClicks,
}

impl ClickRecording {
    /// Starts the publisher and its tasks; `None` if clicks are not recorded.
    ///
    /// # Errors
    /// If the publisher's thread or runtime cannot be created.
    pub fn start(
        settings: &ClickSettings,
        redis: &RedisSettings,
        meter: &Meter,
        store: &Store,
        user_agents: &Arc<UserAgentParser>,
        lifecycle: &Lifecycle,
    ) -> io::Result<Option<Self>> {
        if !settings.enabled {
            return Ok(None);
        }
        let metrics = Arc::new(RecordingMetrics::new(meter));
        let buffers = ClickBuffers::new(settings, Arc::clone(&metrics));
        let keys = VisitorKeys::default();
        let refresh = refresh_visitor_keys(keys.clone(), store.clone(), Clock::System);
        lifecycle.spawn_critical("visitor keys", refresh);
        let countries = CountryDatabase::default();
        if !settings.country_file.as_os_str().is_empty() {
            let reload = countries.clone().keep_loaded(settings.country_file.clone());
            lifecycle.spawn_critical("country file", reload);
        }
        let publisher = PublisherContext {
            buffers: buffers.clone(),
            settings: settings.clone(),
            redis: redis.clone(),
            keys,
            countries,
            metrics,
        };
        let live = LiveClicks::new(Arc::clone(user_agents));
        lifecycle.spawn_critical("live clicks", live.clone().run(redis.clone()));
        Ok(Some(Self { buffers, publisher: publisher.start(lifecycle)?, live }))
    }
}
