//! Both ends of the click pipeline: from a redirect to the stream ([`recording`]), from the stream to PostgreSQL
//! ([`ingest`]).
//!
//! 1. A redirect appends its click to the [`ClickBuffer`] of its server thread and responds. It never waits; a full
//!    buffer drops and counts the click.
//! 2. The publisher runs on its own thread. It drains the buffers every `clicks.flush_ms`, or when a buffer has 1,000
//!    clicks. It replaces each visitor's address by a keyed hash and a country, and packs the clicks into a [`Batch`]
//!    with an id.
//! 3. A batch becomes one entry of a Redis stream. While Redis is unreachable or the stream is full, batches go to the
//!    spool, a bounded file, and from there to the stream later, in order.
//! 4. The worker process reads the stream and writes to PostgreSQL. It skips batches whose id it has already written.
//!
//! `docs/ARCHITECTURE.md`, *Delivery of clicks*, lists the loss that each fault causes.

mod batch;
mod bots;
mod enrich;
pub mod ingest;
pub mod recording;
mod settings;
mod stream;

pub use batch::{Batch, BatchBuilder, BatchError, BatchId, BatchIds, PackedBatch, PackedClick};
pub use enrich::{
    MAX_AGENT, ParsedUserAgent, UserAgentParser, agent_text, campaign, language, referrer_host,
};
pub use recording::{
    ClickBuffer, ClickBuffers, ClickObservation, ClickRecording, LiveClick, LiveClickId,
    LiveClickSubscription, LiveClicks,
};
pub use recording::{LIVE_READ_BYTES, LIVE_STREAM_BYTES, MAX_BATCH_BYTES, buffer_bytes};
pub use settings::ClickSettings;
pub use stream::{DEAD_LETTERS, FIELD, GROUP, STREAM, StreamNames};
