//! A batch of clicks as it travels: packed for Redis and for the spool, unpacked by the worker.
//!
//! ```text
//! 1 byte   version of this format
//! 16 bytes id
//! varint   number of clicks
//! varint   length of the rest when unpacked
//! …        LZ4 block:
//!            varint   earliest time, in milliseconds since 1970
//!            varint   number of texts; each: varint length, bytes
//!            columns, one value for each click: varint time since the earliest, varint link, 1 byte
//!            flags, varints agent, referrer, language and country (place in the texts + 1; 0: none),
//!            8 bytes visitor
//! ```
//! Columns of like values compress better than rows, and a user agent stands once in a batch however
//! many clicks have it.

use std::collections::HashMap;

use linnet_domain::LinkId;

/// A batch's identity: a random number of the process and a number that counts up.
pub type BatchId = [u8; 16];

const VERSION: u8 = 1;
const HEAD: usize = 1 + 16;
/// A batch that claims to be larger than this when unpacked is none of ours.
const MAX_UNPACKED: usize = 16 * 1024 * 1024;
/// Bytes of a click when unpacked, at least: seven columns of a byte or more, and the visitor.
const MIN_CLICK: usize = 7 + 8;

const IS_HEAD: u8 = 1;
const IS_PREFETCH: u8 = 2;
const IS_COUNTED: u8 = 4;
const HAS_VISITOR: u8 = 8;

/// Why bytes are no batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Another release's, or none at all.
    #[error("a batch of version {0}")]
    Version(u8),
    /// It ends too early or contradicts itself.
    #[error("a damaged batch: {0}")]
    Damaged(&'static str),
}

/// A click in a batch. Texts are places in [`Batch::texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedClick {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The link.
    pub url_id: LinkId,
    /// `HEAD` instead of `GET`.
    pub is_head: bool,
    /// The browser only looked ahead.
    pub is_prefetch: bool,
    /// The link's limit counted it already.
    pub is_counted: bool,
    /// Tells visitors of one day apart.
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

/// Clicks that travel together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tells it from every other batch.
    pub id: BatchId,
    /// The clicks.
    pub clicks: Vec<PackedClick>,
    /// What they refer to.
    pub texts: Vec<String>,
}

/// A batch in its packed form.
#[derive(Debug, Clone, Copy)]
pub struct PackedBatch<'a> {
    /// As in [`Batch`].
    pub id: BatchId,
    /// All of it.
    pub bytes: &'a [u8],
}

impl<'a> PackedBatch<'a> {
    /// Looks at the head only: whether the rest can be read shows when it is unpacked.
    pub fn of(bytes: &'a [u8]) -> Result<Self, BatchError> {
        Ok(Self { id: read_id(&mut Reader(bytes))?, bytes })
    }
}

/// Builds a batch, each text once.
#[derive(Default)]
pub struct BatchBuilder {
    batch: Batch,
    places: HashMap<String, u32>,
}

impl BatchBuilder {
    /// The place of a text; `None` for an empty one.
    pub fn text(&mut self, text: &str) -> Option<u32> {
        if text.is_empty() {
            return None;
        }
        if let Some(place) = self.places.get(text) {
            return Some(*place);
        }
        let place = u32::try_from(self.batch.texts.len()).ok()?;
        self.batch.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        Some(place)
    }

    /// Adds a click, whose texts are places in this batch.
    pub fn push(&mut self, click: PackedClick) {
        self.batch.clicks.push(click);
    }

    /// Clicks so far.
    pub fn click_count(&self) -> usize {
        self.batch.clicks.len()
    }

    /// The batch so far under this id; the builder is empty again.
    pub fn finish(&mut self, id: BatchId) -> Batch {
        self.places.clear();
        let mut batch = std::mem::take(&mut self.batch);
        batch.id = id;
        batch
    }
}

/// Ids for the batches of one process: a random number of the process, and a number that counts up.
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
    /// Ids of a process that starts: its half is random.
    pub fn new() -> Self {
        Self { process: rand::random(), next: 0 }
    }

    /// The next id, different from every other one.
    pub fn next_id(&mut self) -> BatchId {
        self.next += 1;
        (u128::from(self.process) << 64 | u128::from(self.next)).to_be_bytes()
    }
}

impl Batch {
    /// The packed form.
    pub fn pack(&self) -> Vec<u8> {
        let first = self.clicks.iter().map(|click| click.at_ms).min().unwrap_or(0);
        let mut rest = Vec::with_capacity(64 + self.clicks.len() * 24);
        put(&mut rest, first);
        put(&mut rest, self.texts.len() as u64);
        for text in &self.texts {
            put(&mut rest, text.len() as u64);
            rest.extend_from_slice(text.as_bytes());
        }
        for click in &self.clicks {
            put(&mut rest, click.at_ms - first);
        }
        for click in &self.clicks {
            put(&mut rest, click.url_id.get().cast_unsigned());
        }
        rest.extend(self.clicks.iter().map(flags));
        let columns: [fn(&PackedClick) -> Option<u32>; 4] =
            [|c| c.agent, |c| c.referrer, |c| c.language, |c| c.country];
        for column in columns {
            for click in &self.clicks {
                put(&mut rest, column(click).map_or(0, |place| u64::from(place) + 1));
            }
        }
        for click in &self.clicks {
            rest.extend_from_slice(&click.visitor.unwrap_or(0).to_le_bytes());
        }
        let mut packed = Vec::with_capacity(HEAD + 10 + rest.len() / 2);
        packed.push(VERSION);
        packed.extend_from_slice(&self.id);
        put(&mut packed, self.clicks.len() as u64);
        put(&mut packed, rest.len() as u64);
        packed.extend_from_slice(&lz4_flex::block::compress(&rest));
        packed
    }

    /// How many clicks packed bytes hold, by their own account; 0 for bytes that are no batch.
    pub fn count_of(packed: &[u8]) -> u64 {
        let mut head = Reader(packed.get(HEAD..).unwrap_or_default());
        head.number().unwrap_or(0)
    }

    /// Reads the packed form.
    pub fn unpack(packed: &[u8]) -> Result<Self, BatchError> {
        let mut packed = Reader(packed);
        let id = read_id(&mut packed)?;
        let count = packed.size()?;
        let length = packed.size()?;
        if length > MAX_UNPACKED || count > length / MIN_CLICK {
            return Err(BatchError::Damaged("impossible sizes"));
        }
        let rest = lz4_flex::block::decompress(packed.0, length)
            .map_err(|_| BatchError::Damaged("it cannot be decompressed"))?;
        let mut rest = Reader(&rest);
        let first = rest.number()?;
        let texts = rest.size()?;
        if texts > length {
            return Err(BatchError::Damaged("impossible sizes"));
        }
        let texts = (0..texts).map(|_| rest.text()).collect::<Result<Vec<_>, _>>()?;
        let mut clicks = Vec::with_capacity(count);
        for _ in 0..count {
            let at_ms = first.saturating_add(rest.number()?);
            clicks.push(PackedClick { at_ms, ..PackedClick::EMPTY });
        }
        for click in &mut clicks {
            let number = rest.number()?.cast_signed();
            click.url_id = LinkId::new(number).ok_or(BatchError::Damaged("an impossible link"))?;
        }
        let mut has_visitor = Vec::with_capacity(count);
        for click in &mut clicks {
            let flags = rest.byte()?;
            click.is_head = flags & IS_HEAD != 0;
            click.is_prefetch = flags & IS_PREFETCH != 0;
            click.is_counted = flags & IS_COUNTED != 0;
            has_visitor.push(flags & HAS_VISITOR != 0);
        }
        for set in [
            |click: &mut PackedClick, place| click.agent = place,
            |click: &mut PackedClick, place| click.referrer = place,
            |click: &mut PackedClick, place| click.language = place,
            |click: &mut PackedClick, place| click.country = place,
        ] {
            for click in &mut clicks {
                set(click, rest.place(texts.len())?);
            }
        }
        for (click, has_visitor) in clicks.iter_mut().zip(has_visitor) {
            let visitor = u64::from_le_bytes(rest.array()?);
            click.visitor = has_visitor.then_some(visitor);
        }
        Ok(Self { id, clicks, texts })
    }
}

impl PackedClick {
    const EMPTY: Self = Self {
        at_ms: 0,
        url_id: LinkId::MIN,
        is_head: false,
        is_prefetch: false,
        is_counted: false,
        visitor: None,
        agent: None,
        referrer: None,
        language: None,
        country: None,
    };
}

fn read_id(packed: &mut Reader<'_>) -> Result<BatchId, BatchError> {
    let version = packed.byte()?;
    if version != VERSION {
        return Err(BatchError::Version(version));
    }
    packed.array()
}

fn flags(click: &PackedClick) -> u8 {
    let mut flags = 0;
    for (is_set, flag) in [
        (click.is_head, IS_HEAD),
        (click.is_prefetch, IS_PREFETCH),
        (click.is_counted, IS_COUNTED),
        (click.visitor.is_some(), HAS_VISITOR),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    flags
}

/// LEB128: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

struct Reader<'a>(&'a [u8]);

const CUT: BatchError = BatchError::Damaged("it ends too early");

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        self.take(N)?.try_into().map_err(|_| CUT)
    }

    fn byte(&mut self) -> Result<u8, BatchError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, BatchError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(BatchError::Damaged("a number without an end"))
    }

    fn size(&mut self) -> Result<usize, BatchError> {
        usize::try_from(self.number()?).map_err(|_| BatchError::Damaged("impossible sizes"))
    }

    fn text(&mut self) -> Result<String, BatchError> {
        let length = self.size()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| BatchError::Damaged("a text is no UTF-8"))
    }

    fn place(&mut self, texts: usize) -> Result<Option<u32>, BatchError> {
        let place = self.number()?;
        if place > texts as u64 {
            return Err(BatchError::Damaged("a text that is not there"));
        }
        Ok(place.checked_sub(1).and_then(|place| u32::try_from(place).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut builder = BatchBuilder::default();
        for n in 0..50_u64 {
            let click = PackedClick {
                at_ms: 1_763_700_000_000 + n * 37 % 200,
                url_id: LinkId::new(i64::try_from(n * n + 1).unwrap()).unwrap(),
                is_head: n % 7 == 0,
                is_prefetch: n % 5 == 0,
                is_counted: n % 3 == 0,
                visitor: (n % 4 != 0).then_some(u64::MAX - n),
                agent: builder.text(&format!("agent {}", n % 3)),
                referrer: builder.text(if n % 2 == 0 { "news.example" } else { "" }),
                language: builder.text("de"),
                country: None,
            };
            builder.push(click);
        }
        builder.finish([7; 16])
    }

    #[test]
    fn batches_round_trip() {
        for batch in [batch(), Batch::default()] {
            let packed = batch.pack();
            assert_eq!(Batch::unpack(&packed).unwrap(), batch);
            assert_eq!(Batch::count_of(&packed), batch.clicks.len() as u64);
        }
        assert_eq!(batch().texts, ["agent 0", "news.example", "de", "agent 1", "agent 2"]);
    }

    #[test]
    fn a_damaged_batch_is_an_error_and_never_a_panic() {
        let packed = batch().pack();
        for length in 0..packed.len() {
            assert!(Batch::unpack(&packed[..length]).is_err(), "cut at {length}");
        }
        for place in 0..packed.len() {
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[place] ^= 1 << bit;
                // Some still read as other clicks; a checksum is the transport's business.
                let _ = Batch::unpack(&damaged);
            }
        }
        assert_eq!(Batch::unpack(&[9]), Err(BatchError::Version(9)));
        let mut huge = vec![VERSION];
        huge.extend([0; 16]);
        put(&mut huge, u64::MAX);
        put(&mut huge, u64::MAX);
        assert!(Batch::unpack(&huge).is_err());
    }
}
