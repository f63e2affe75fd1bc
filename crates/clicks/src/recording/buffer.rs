//! Where redirects leave their clicks: one buffer for each worker.
//!
//! A click is a fixed head and the bytes of three headers, appended to one growing array: no
//! allocation of its own. The lock is taken by the worker's own thread and, five times a second, by
//! the publisher, who only exchanges the array for an empty one; so it is practically never waited
//! for.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use linnet_domain::LinkId;
use tokio::sync::Notify;

use crate::{ClickMetrics, ClickSettings};

/// Clicks in a buffer that wake the publisher before its time.
const WAKE_AT: u32 = 1_000;
/// Longest part of a user agent that is kept, in bytes. In-app browsers have the longest, about 400.
const MAX_AGENT: usize = 512;
/// A referrer is kept as far as its host can reach: the scheme and the longest name.
const MAX_REFERRER: usize = 264;
/// `Accept-Language` begins with the language that matters.
const MAX_LANGUAGE: usize = 35;
/// An array that grew beyond this in a rush is not kept.
const KEEP_CAPACITY: usize = 512 * 1024;

const HEAD: usize = 8 + 8 + 1 + 16 + 2 + 2 + 1;

const IS_HEAD: u8 = 1;
const IS_PREFETCH: u8 = 2;
const IS_COUNTED: u8 = 4;
const OPTED_OUT: u8 = 8;
const HAS_CLIENT: u8 = 16;

/// What a redirect has seen of its request. The texts are as they came: any bytes, any length.
#[expect(clippy::struct_excessive_bools, reason = "four things that a request is or is not")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The link.
    pub url_id: LinkId,
    /// `HEAD` instead of `GET`.
    pub is_head: bool,
    /// The browser only looks ahead (`Sec-Purpose: prefetch`).
    pub is_prefetch: bool,
    /// The link's limit counted it already.
    pub is_counted: bool,
    /// `Sec-GPC: 1`: not to be recognised again.
    pub opted_out: bool,
    /// The visitor's address. It gets no further than the publisher.
    pub client: Option<IpAddr>,
    /// `User-Agent`.
    pub agent: &'a [u8],
    /// `Referer`.
    pub referrer: &'a [u8],
    /// `Accept-Language`.
    pub language: &'a [u8],
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    clicks: u32,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    limit: u32,
    wake: Arc<Notify>,
}

/// One worker's end.
#[derive(Clone)]
pub struct ClickBuffer {
    shared: Arc<Shared>,
    metrics: Arc<ClickMetrics>,
}

impl ClickBuffer {
    /// Leaves a click. When the publisher has not come for long the click is dropped and counted.
    #[inline]
    pub fn push(&self, seen: &Seen<'_>) {
        let mut inner = self.shared.lock();
        if inner.clicks >= self.shared.limit {
            drop(inner);
            self.metrics.dropped_buffer.add(1);
            return;
        }
        append(&mut inner.bytes, seen);
        inner.clicks += 1;
        let wake = inner.clicks == WAKE_AT;
        drop(inner);
        self.metrics.accepted.add(1);
        if wake {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A click is appended whole or, after a panic within, not read: see `Clicks::next`.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All buffers of the process: the publisher's end.
#[derive(Clone)]
pub struct ClickBuffers {
    all: Arc<Mutex<Vec<Arc<Shared>>>>,
    limit: u32,
    wake: Arc<Notify>,
    metrics: Arc<ClickMetrics>,
}

impl ClickBuffers {
    /// No buffers yet.
    pub fn new(settings: &ClickSettings, metrics: Arc<ClickMetrics>) -> Self {
        Self {
            all: Arc::default(),
            limit: settings.buffer_clicks,
            wake: Arc::new(Notify::new()),
            metrics,
        }
    }

    /// A buffer for one more worker.
    pub fn open(&self) -> ClickBuffer {
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            limit: self.limit,
            wake: Arc::clone(&self.wake),
        });
        self.list().push(Arc::clone(&shared));
        ClickBuffer { shared, metrics: Arc::clone(&self.metrics) }
    }

    /// Returns when a buffer has many clicks.
    pub(super) async fn many(&self) {
        self.wake.notified().await;
    }

    /// Takes what all workers have left, giving each an array of `spare` in exchange.
    pub(super) fn take(&self, spare: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let buffers = self.list();
        let mut taken = Vec::with_capacity(buffers.len());
        for buffer in buffers.iter() {
            let mut empty = spare.pop().unwrap_or_default();
            let mut inner = buffer.lock();
            if inner.clicks == 0 {
                drop(inner);
                spare.push(empty);
                continue;
            }
            std::mem::swap(&mut inner.bytes, &mut empty);
            inner.clicks = 0;
            drop(inner);
            taken.push(empty);
        }
        taken
    }

    /// Makes an array that was taken ready for [`ClickBuffers::take`].
    pub(super) fn recycle(spare: &mut Vec<Vec<u8>>, mut bytes: Vec<u8>) {
        bytes.clear();
        bytes.shrink_to(KEEP_CAPACITY);
        spare.push(bytes);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[inline]
fn cut(text: &[u8], max: usize) -> &[u8] {
    text.get(..max).unwrap_or(text)
}

#[inline]
fn append(bytes: &mut Vec<u8>, seen: &Seen<'_>) {
    let agent = cut(seen.agent, MAX_AGENT);
    let referrer = cut(seen.referrer, MAX_REFERRER);
    let language = cut(seen.language, MAX_LANGUAGE);
    let mut flags = 0;
    for (is_set, flag) in [
        (seen.is_head, IS_HEAD),
        (seen.is_prefetch, IS_PREFETCH),
        (seen.is_counted, IS_COUNTED),
        (seen.opted_out, OPTED_OUT),
        (seen.client.is_some(), HAS_CLIENT),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    let client = match seen.client {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
        None => Ipv6Addr::UNSPECIFIED,
    };
    bytes.reserve(HEAD + agent.len() + referrer.len() + language.len());
    bytes.extend_from_slice(&seen.at_ms.to_le_bytes());
    bytes.extend_from_slice(&seen.url_id.get().to_le_bytes());
    bytes.push(flags);
    bytes.extend_from_slice(&client.octets());
    // Cut above, so each length fits.
    bytes.extend_from_slice(&u16::try_from(agent.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(referrer.len()).unwrap_or(0).to_le_bytes());
    bytes.push(u8::try_from(language.len()).unwrap_or(0));
    bytes.extend_from_slice(agent);
    bytes.extend_from_slice(referrer);
    bytes.extend_from_slice(language);
}

/// Reads back what [`ClickBuffer::push`] wrote.
pub(super) struct Clicks<'a>(&'a [u8]);

impl<'a> Clicks<'a> {
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

    fn click(&mut self) -> Option<Seen<'a>> {
        let at_ms = u64::from_le_bytes(self.number()?);
        let url_id = LinkId::new(i64::from_le_bytes(self.number()?))?;
        let [flags] = self.number()?;
        let client = Ipv6Addr::from(self.number::<16>()?);
        let agent = u16::from_le_bytes(self.number()?);
        let referrer = u16::from_le_bytes(self.number()?);
        let [language] = self.number()?;
        let client = client.to_ipv4_mapped().map_or(IpAddr::V6(client), IpAddr::V4);
        Some(Seen {
            at_ms,
            url_id,
            is_head: flags & IS_HEAD != 0,
            is_prefetch: flags & IS_PREFETCH != 0,
            is_counted: flags & IS_COUNTED != 0,
            opted_out: flags & OPTED_OUT != 0,
            client: (flags & HAS_CLIENT != 0).then_some(client),
            agent: self.take(agent.into())?,
            referrer: self.take(referrer.into())?,
            language: self.take(language.into())?,
        })
    }
}

impl<'a> Iterator for Clicks<'a> {
    type Item = Seen<'a>;

    fn next(&mut self) -> Option<Seen<'a>> {
        self.click()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_telemetry::testing;

    fn seen(agent: &[u8]) -> Seen<'_> {
        Seen {
            at_ms: 1_763_700_000_123,
            url_id: LinkId::new(i64::MAX - 7).unwrap(),
            is_head: true,
            is_prefetch: false,
            is_counted: true,
            opted_out: false,
            client: Some("192.0.2.77".parse().unwrap()),
            agent,
            referrer: b"https://news.example/a?b",
            language: b"de-CH,de;q=0.9",
        }
    }

    #[test]
    fn what_is_pushed_is_taken_in_order() {
        let (telemetry, reader) = testing::telemetry();
        let metrics = Arc::new(ClickMetrics::new(&telemetry.meter()));
        let settings = ClickSettings { buffer_clicks: 3, ..ClickSettings::default() };
        let buffers = ClickBuffers::new(&settings, metrics);
        let (one, two) = (buffers.open(), buffers.open());
        let long = vec![0xff; 5_000];
        one.push(&seen(b"first"));
        one.push(&seen(&long));
        one.push(&Seen { client: Some("2001:db8::7".parse().unwrap()), ..seen(b"") });
        one.push(&seen(b"one too many"));
        two.push(&Seen { client: None, ..seen(b"other") });
        let mut spare = Vec::new();
        let taken = buffers.take(&mut spare);
        assert_eq!(taken.len(), 2);
        let read: Vec<_> = Clicks::new(&taken[0]).collect();
        assert_eq!(read[0], seen(b"first"));
        assert_eq!(read[1].agent, &long[..MAX_AGENT]);
        assert_eq!(read[2].client, Some("2001:db8::7".parse().unwrap()));
        assert_eq!(read.len(), 3);
        assert_eq!(Clicks::new(&taken[1]).next().unwrap().client, None);
        assert!(buffers.take(&mut spare).is_empty());
        assert_eq!(reader.value("linnet_clicks_accepted_total", &[]), Some(4.0));
        let dropped = reader.value("linnet_clicks_dropped_total", &[("reason", "buffer_full")]);
        assert_eq!(dropped, Some(1.0));
    }

    #[test]
    fn a_cut_array_gives_its_whole_clicks() {
        let mut bytes = Vec::new();
        append(&mut bytes, &seen(b"first"));
        let first = bytes.len();
        append(&mut bytes, &seen(b"second"));
        for length in first..bytes.len() {
            assert_eq!(Clicks::new(&bytes[..length]).count(), 1);
        }
    }
}
