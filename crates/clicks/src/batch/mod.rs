//! A batch: clicks that the publisher sends together, through Redis or the spool, to a worker.

mod codec;

use std::collections::HashMap;

use linnet_domain::LinkId;

/// A batch's id: 8 random bytes of the process, then a counter.
pub type BatchId = [u8; 16];

/// Why bytes cannot be read as a batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes have another release's format, or are not a batch.
    #[error("unknown batch version {0}")]
    Version(u8),
    /// Truncated or inconsistent data.
    #[error("damaged batch: {0}")]
    Damaged(&'static str),
}

/// A click in a batch. Texts are indexes into [`Batch::texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedClick {
    /// Time, in milliseconds since 1970.
    pub at_ms: u64,
    /// The link.
    pub url_id: LinkId,
    /// Whether the method was `HEAD`.
    pub is_head: bool,
    /// Whether the browser prefetched.
    pub is_prefetch: bool,
    /// Whether the link's `max_clicks` has counted it already.
    pub is_counted: bool,
    /// Keyed hash that distinguishes visitors of one day.
    pub visitor: Option<u64>,
    /// The user agent.
    pub agent: Option<u32>,
    /// The referring host.
    pub referrer: Option<u32>,
    /// The language.
    pub language: Option<u32>,
    /// The country.
    pub country: Option<u32>,
}

/// Clicks that are published, spooled and ingested together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its unique id.
    pub id: BatchId,
    /// The clicks.
    pub clicks: Vec<PackedClick>,
    /// The texts of the clicks, each once.
    pub texts: Vec<String>,
}

/// A packed batch with its id.
#[derive(Debug, Clone, Copy)]
pub struct PackedBatch<'a> {
    /// The batch's id.
    pub id: BatchId,
    /// The whole packed batch.
    pub bytes: &'a [u8],
}

/// Builds batches, one after the other.
#[derive(Default)]
pub struct BatchBuilder {
    batch: Batch,
    text_indexes: HashMap<String, u32>,
}

impl BatchBuilder {
    /// Adds a text unless the batch has it; returns its index, `None` for an empty text.
    pub fn intern(&mut self, text: &str) -> Option<u32> {
        if text.is_empty() {
            return None;
        }
        if let Some(index) = self.text_indexes.get(text) {
            return Some(*index);
        }
        let index = u32::try_from(self.batch.texts.len()).ok()?;
        self.batch.texts.push(text.to_owned());
        self.text_indexes.insert(text.to_owned(), index);
        Some(index)
    }

    /// Adds a click, whose texts this builder has interned.
    pub fn push(&mut self, click: PackedClick) {
        self.batch.clicks.push(click);
    }

    /// The number of clicks in the unfinished batch.
    pub fn click_count(&self) -> usize {
        self.batch.clicks.len()
    }

    /// Returns the batch with this id, and begins the next one.
    pub fn finish(&mut self, id: BatchId) -> Batch {
        self.text_indexes.clear();
        let mut batch = std::mem::take(&mut self.batch);
        batch.id = id;
        batch
    }
}

/// Generates the ids of one process's batches.
pub struct BatchIds {
    process: u64,
    next: u64,
}

impl Default for BatchIds {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchIds {
    /// Ids with a new random half.
    pub fn new() -> Self {
        Self { process: rand::random(), next: 0 }
    }

    /// The next id.
    pub fn next_id(&mut self) -> BatchId {
        self.next += 1;
        (u128::from(self.process) << 64 | u128::from(self.next)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builder_stores_each_text_once_and_starts_anew() {
        let mut builder = BatchBuilder::default();
        assert_eq!(
            ["a", "", "b", "a"].map(|text| builder.intern(text)),
            [Some(0), None, Some(1), Some(0)]
        );
        let click = PackedClick {
            at_ms: 7,
            url_id: LinkId::MIN,
            is_head: false,
            is_prefetch: false,
            is_counted: false,
            visitor: None,
            agent: Some(1),
            referrer: None,
            language: None,
            country: None,
        };
        builder.push(click);
        assert_eq!(builder.click_count(), 1);
        let batch = builder.finish([9; 16]);
        assert_eq!((batch.id, batch.clicks.len()), ([9; 16], 1));
        assert_eq!(batch.texts, ["a", "b"]);
        assert_eq!((builder.click_count(), builder.intern("b")), (0, Some(0)));
    }

    #[test]
    fn ids_of_a_process_differ_in_their_second_half_only() {
        let mut ids = BatchIds::default();
        let (first, second) = (ids.next_id(), ids.next_id());
        assert_eq!(first[..8], second[..8]);
        assert_eq!(
            (first[8..].to_vec(), second[8..].to_vec()),
            (vec![0, 0, 0, 0, 0, 0, 0, 1], vec![0, 0, 0, 0, 0, 0, 0, 2])
        );
        assert_ne!(first[..8], BatchIds::new().next_id()[..8]);
        assert_eq!(ids.process.to_be_bytes(), first[..8]);
    }
}
