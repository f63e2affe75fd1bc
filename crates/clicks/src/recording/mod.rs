//! The shortener's end of the pipeline: from the redirect to the stream.

mod buffer;
mod country;
pub(crate) mod live;
mod metrics;
mod publisher;
mod spool;
mod visitor;

pub use buffer::{ClickBuffer, ClickBuffers, Seen};
pub use country::Countries;
pub use live::{LiveClick, LiveClicks, LiveId, ParseLiveIdError, Watch};
pub use metrics::ClickMetrics;
pub use publisher::{Publisher, PublisherHandle};
pub use visitor::{VisitorKeys, keep_visitor_keys};
