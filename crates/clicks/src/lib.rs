//! Clicks: from the redirect to the stream.
//!
//! The way of a click, and who does what:
//! 1. The redirect copies the few bytes that it has of the request into its worker's [`ClickBuffer`]
//!    and answers. Nothing here makes it wait, and a full buffer drops and counts.
//! 2. The [`Publisher`], a thread of its own, empties the buffers every 200 ms or 1,000 clicks. It
//!    turns the visitor's address into a keyed hash and a country, forgets the address, and packs
//!    what came into one [`Batch`] with an id.
//! 3. A batch becomes one entry of a Redis stream. While Redis is away or the stream is full, it goes
//!    into the [`spool`], a bounded file, and from there into the stream later, in order.
//! 4. The worker process (`crate::ingest`) reads the stream and writes PostgreSQL. It knows a batch
//!    by its id, so one that comes twice counts once.
//!
//! What each fault loses is in `docs/ARCHITECTURE.md`, "Delivery of clicks".

mod batch;
mod enrich;
pub mod ingest;
mod recording;
mod settings;
mod stream;

pub use batch::{Batch, BatchBuilder, BatchError, BatchId, BatchIds, PackedBatch, PackedClick};
pub use enrich::{AgentKnown, Enricher, campaign};
pub use recording::{
    ClickBuffer, ClickBuffers, ClickMetrics, Countries, LiveClick, LiveClicks, LiveId,
    ParseLiveIdError, Publisher, PublisherHandle, Seen, VisitorKeys, Watch, keep_visitor_keys,
};
pub use settings::ClickSettings;
pub use stream::{DEAD_LETTERS, FIELD, GROUP, STREAM};
