//! The buffers to which redirects append clicks, one for each server thread.
//!
//! - A click is a fixed-length record followed by the bytes of three request headers. It is appended to one growing array,
//!   without an allocation of its own.
//! - The server thread's lock is practically uncontended: the publisher takes it a few times a second, and only to swap the
//!   array for an empty one.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

use linnet_domain::LinkId;
use linnet_platform::lock::MutexExt as _;
use tokio::sync::Notify;

use crate::{ClickSettings, enrich::MAX_AGENT};

use super::metrics::RecordingMetrics;

/// Clicks in a buffer at which the publisher wakes before its interval ends.
const WAKE_AT: u32 = 1_000;
/// Longest prefix of a referrer that is kept, in bytes: the scheme and the longest host name.
const MAX_REFERRER: usize = 264;
/// Longest prefix of `Accept-Language` that is kept, in bytes. The preferred language is at its beginning.
const MAX_LANGUAGE: usize = 35;
/// Capacity to which a recycled array shrinks, in bytes.
const KEEP_CAPACITY: usize = 512 * 1024;

/// Length of a click's fixed-length record, in bytes.
const HEADER_LEN: usize = 8 + 8 + 1 + 16 + 2 + 2 + 1;
/// Bytes for each click of a buffer's capacity. Clicks from browsers are shorter. A buffer is full with fewer clicks
/// than its capacity only if most of them have the longest headers.
const USUAL_CLICK_BYTES: usize = 320;
/// The maximum size of one buffered click, in bytes.
pub(super) const MAX_CLICK_BYTES: usize = HEADER_LEN + MAX_AGENT + MAX_REFERRER + MAX_LANGUAGE;

/// The maximum size of one thread's buffer, in bytes. The publisher needs as many again while it drains a buffer.
pub fn buffer_bytes(settings: &ClickSettings) -> u64 {
    u64::from(settings.buffer_clicks) * USUAL_CLICK_BYTES as u64 + MAX_CLICK_BYTES as u64
}

const IS_HEAD: u8 = 1;
const IS_PREFETCH: u8 = 2;
const IS_COUNTED: u8 = 4;
const HAS_OPTED_OUT: u8 = 8;
const HAS_CLIENT: u8 = 16;

/// A click as the redirect observes it. Header values are unchecked: any bytes, any length.
#[expect(clippy::struct_excessive_bools, reason = "four independent properties of a request")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickObservation<'a> {
    /// Time, in milliseconds since 1970.
    pub at_ms: u64,
    /// The link.
    pub url_id: LinkId,
    /// Whether the method was `HEAD`.
    pub is_head: bool,
    /// Whether the browser prefetches (`Sec-Purpose: prefetch`).
    pub is_prefetch: bool,
    /// Whether the link's `max_clicks` has counted it already.
    pub is_counted: bool,
    /// Whether the visitor has opted out of recognition (`Sec-GPC: 1`).
    pub has_opted_out: bool,
    /// The visitor's address. The publisher discards it.
    pub client: Option<IpAddr>,
    /// `User-Agent`.
    pub agent: &'a [u8],
    /// `Referer`.
    pub referrer: &'a [u8],
    /// `Accept-Language`.
    pub language: &'a [u8],
}

#[derive(Debug, Default)]
struct BufferedClicks {
    bytes: Vec<u8>,
    count: u32,
}

#[derive(Debug)]
struct SharedBuffer {
    clicks: Mutex<BufferedClicks>,
    capacity: u32,
    capacity_bytes: usize,
    wake: Arc<Notify>,
}

/// One server thread's buffer.
#[derive(Clone)]
pub struct ClickBuffer {
    shared: Arc<SharedBuffer>,
    metrics: Arc<RecordingMetrics>,
}

impl ClickBuffer {
    /// Appends a click; drops and counts it if the buffer is full.
    #[inline]
    pub fn push(&self, observation: &ClickObservation<'_>) {
        let mut clicks = self.shared.lock();
        if clicks.count >= self.shared.capacity || clicks.bytes.len() >= self.shared.capacity_bytes
        {
            drop(clicks);
            self.metrics.dropped_buffer_full.add(1);
            return;
        }
        append(&mut clicks.bytes, observation);
        clicks.count += 1;
        let wakes_publisher = clicks.count == WAKE_AT;
        drop(clicks);
        self.metrics.accepted.add(1);
        if wakes_publisher {
            self.shared.wake.notify_one();
        }
    }
}

impl SharedBuffer {
    /// Poison is harmless: `ObservationReader` stops at a click that a panic left incomplete.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, BufferedClicks> {
        self.clicks.lock_ignoring_poison()
    }
}

/// All buffers of the process, for the publisher.
#[derive(Clone)]
pub struct ClickBuffers {
    all: Arc<Mutex<Vec<Arc<SharedBuffer>>>>,
    capacity: u32,
    wake: Arc<Notify>,
    metrics: Arc<RecordingMetrics>,
}

impl ClickBuffers {
    /// An empty set of buffers.
    pub(super) fn new(settings: &ClickSettings, metrics: Arc<RecordingMetrics>) -> Self {
        Self {
            all: Arc::default(),
            capacity: settings.buffer_clicks,
            wake: Arc::new(Notify::new()),
            metrics,
        }
    }

    /// Adds a buffer for one more server thread.
    pub fn open(&self) -> ClickBuffer {
        let shared = Arc::new(SharedBuffer {
            clicks: Mutex::default(),
            capacity: self.capacity,
            capacity_bytes: self.capacity as usize * USUAL_CLICK_BYTES,
            wake: Arc::clone(&self.wake),
        });
        self.all.lock_ignoring_poison().push(Arc::clone(&shared));
        ClickBuffer { shared, metrics: Arc::clone(&self.metrics) }
    }

    /// Returns once a buffer has [`WAKE_AT`] clicks.
    pub(super) async fn wait_for_many(&self) {
        self.wake.notified().await;
    }

    /// Returns the arrays of all buffers that have clicks, and replaces each by an array of `spare`.
    pub(super) fn drain(&self, spare: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let buffers = self.all.lock_ignoring_poison();
        let mut drained = Vec::with_capacity(buffers.len());
        for buffer in buffers.iter() {
            let mut bytes = spare.pop().unwrap_or_default();
            let mut clicks = buffer.lock();
            if clicks.count == 0 {
                drop(clicks);
                spare.push(bytes);
                continue;
            }
            std::mem::swap(&mut clicks.bytes, &mut bytes);
            clicks.count = 0;
            drop(clicks);
            drained.push(bytes);
        }
        drained
    }

    /// Adds a drained array to the spare ones.
    pub(super) fn recycle(spare: &mut Vec<Vec<u8>>, mut bytes: Vec<u8>) {
        bytes.clear();
        bytes.shrink_to(KEEP_CAPACITY);
        spare.push(bytes);
    }
}

#[inline]
fn cut(text: &[u8], max: usize) -> &[u8] {
    text.get(..max).unwrap_or(text)
}

#[inline]
fn append(bytes: &mut Vec<u8>, click: &ClickObservation<'_>) {
    let agent = cut(click.agent, MAX_AGENT);
    let referrer = cut(click.referrer, MAX_REFERRER);
    let language = cut(click.language, MAX_LANGUAGE);
    let mut flags = 0;
    for (is_set, flag) in [
        (click.is_head, IS_HEAD),
        (click.is_prefetch, IS_PREFETCH),
        (click.is_counted, IS_COUNTED),
        (click.has_opted_out, HAS_OPTED_OUT),
        (click.client.is_some(), HAS_CLIENT),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    let client = match click.client {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
        None => Ipv6Addr::UNSPECIFIED,
    };
    bytes.reserve(HEADER_LEN + agent.len() + referrer.len() + language.len());
    bytes.extend_from_slice(&click.at_ms.to_le_bytes());
    bytes.extend_from_slice(&click.url_id.get().to_le_bytes());
    bytes.push(flags);
    bytes.extend_from_slice(&client.octets());
    // The lengths fit: the values are cut above.
    bytes.extend_from_slice(&u16::try_from(agent.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(referrer.len()).unwrap_or(0).to_le_bytes());
    bytes.push(u8::try_from(language.len()).unwrap_or(0));
    bytes.extend_from_slice(agent);
    bytes.extend_from_slice(referrer);
    bytes.extend_from_slice(language);
}

/// Iterates over the clicks of a drained array; ends at an incomplete one.
pub(super) struct ObservationReader<'a>(&'a [u8]);

impl<'a> ObservationReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn click(&mut self) -> Option<ClickObservation<'a>> {
        let at_ms = u64::from_le_bytes(self.number()?);
        let url_id = LinkId::new(i64::from_le_bytes(self.number()?))?;
        let [flags] = self.number()?;
        let client = Ipv6Addr::from(self.number::<16>()?);
        let agent = u16::from_le_bytes(self.number()?);
        let referrer = u16::from_le_bytes(self.number()?);
        let [language] = self.number()?;
        let client = client.to_ipv4_mapped().map_or(IpAddr::V6(client), IpAddr::V4);
        Some(ClickObservation {
            at_ms,
            url_id,
            is_head: flags & IS_HEAD != 0,
            is_prefetch: flags & IS_PREFETCH != 0,
            is_counted: flags & IS_COUNTED != 0,
            has_opted_out: flags & HAS_OPTED_OUT != 0,
            client: (flags & HAS_CLIENT != 0).then_some(client),
            agent: self.take(agent.into())?,
            referrer: self.take(referrer.into())?,
            language: self.take(language.into())?,
        })
    }
}

impl<'a> Iterator for ObservationReader<'a> {
    type Item = ClickObservation<'a>;

    fn next(&mut self) -> Option<ClickObservation<'a>> {
        self.click()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_telemetry::testing;

    fn observation(agent: &[u8]) -> ClickObservation<'_> {
        ClickObservation {
            at_ms: 1_763_700_000_123,
            url_id: LinkId::new(i64::MAX - 7).unwrap(),
            is_head: true,
            is_prefetch: false,
            is_counted: true,
            has_opted_out: false,
            client: Some("192.0.2.77".parse().unwrap()),
            agent,
            referrer: b"https://blog.example/a?b",
            language: b"de-CH,de;q=0.9",
        }
    }

    #[test]
    fn clicks_are_drained_in_order_and_dropped_when_the_buffer_is_full() {
        let (telemetry, reader) = testing::telemetry();
        let metrics = Arc::new(RecordingMetrics::new(&telemetry.meter()));
        let settings = ClickSettings { buffer_clicks: 3, ..ClickSettings::default() };
        let buffers = ClickBuffers::new(&settings, metrics);
        let (one, two) = (buffers.open(), buffers.open());
        let long = vec![0xff; 5_000];
        one.push(&observation(b"first"));
        one.push(&observation(&long));
        one.push(&ClickObservation {
            client: Some("2001:db8::7".parse().unwrap()),
            ..observation(b"")
        });
        one.push(&observation(b"one too many"));
        two.push(&ClickObservation { client: None, ..observation(b"other") });
        let mut spare = Vec::new();
        let drained = buffers.drain(&mut spare);
        assert_eq!(drained.len(), 2);
        let read: Vec<_> = ObservationReader::new(&drained[0]).collect();
        assert_eq!(read[0], observation(b"first"));
        assert_eq!(read[1].agent, &long[..MAX_AGENT]);
        assert_eq!(read[2].client, Some("2001:db8::7".parse().unwrap()));
        assert_eq!(read.len(), 3);
        assert_eq!(ObservationReader::new(&drained[1]).next().unwrap().client, None);
        assert!(buffers.drain(&mut spare).is_empty());
        assert_eq!(reader.value("linnet_clicks_accepted_total", &[]), Some(4.0));
        let dropped = reader.value("linnet_clicks_dropped_total", &[("reason", "buffer_full")]);
        assert_eq!(dropped, Some(1.0));
    }

    #[test]
    fn truncated_array_yields_its_complete_clicks() {
        let mut bytes = Vec::new();
        append(&mut bytes, &observation(b"first"));
        let first = bytes.len();
        append(&mut bytes, &observation(b"second"));
        for length in first..bytes.len() {
            assert_eq!(ObservationReader::new(&bytes[..length]).count(), 1);
        }
    }
}
