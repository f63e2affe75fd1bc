//! The packed form of a batch.
//!
//! ```text
//! 1 byte   version of this format
//! 16 bytes id
//! varint   number of clicks
//! varint   length of the rest when decompressed
//! …        LZ4 block:
//!            varint   earliest time, in milliseconds since 1970
//!            varint   number of texts; for each text: varint length, bytes
//!            columns, with one value for each click: varint time since the earliest, varint link, 1 byte flags,
//!            varints user agent, referrer, language and country (index of the text + 1; 0: none), 8 bytes visitor
//! ```
//! Columns of similar values compress better than rows. A text is stored once in a batch, however many clicks have it.

use linnet_domain::LinkId;

use super::{Batch, BatchError, BatchId, PackedBatch, PackedClick};

const VERSION: u8 = 1;
/// Length of version and id, in bytes.
const HEADER_LEN: usize = 1 + 16;
/// Largest decompressed size that is accepted, in bytes. Batches of the publisher are far smaller.
const MAX_UNPACKED: usize = 16 * 1024 * 1024;
/// The maximum number of clicks that are accepted. The publisher sends 1,000.
const MAX_CLICKS: usize = 16_000;
/// The maximum number of texts of a click: user agent, referrer, language and country.
const TEXTS_OF_CLICK: usize = 4;
/// Smallest decompressed size of a click, in bytes: seven columns of at least one byte, and the visitor.
const MIN_CLICK: usize = 7 + 8;

const IS_HEAD: u8 = 1;
const IS_PREFETCH: u8 = 2;
const IS_COUNTED: u8 = 4;
const HAS_VISITOR: u8 = 8;

impl<'a> PackedBatch<'a> {
    /// Reads version and id only. The rest is checked by [`Batch::unpack`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, BatchError> {
        Ok(Self { id: read_id(&mut Reader(bytes))?, bytes })
    }
}

impl Batch {
    /// Encodes the batch.
    pub fn pack(&self) -> Vec<u8> {
        let first = self.clicks.iter().map(|click| click.at_ms).min().unwrap_or(0);
        let mut rest = Vec::new();
        put_varint(&mut rest, first);
        put_varint(&mut rest, self.texts.len() as u64);
        for text in &self.texts {
            put_varint(&mut rest, text.len() as u64);
            rest.extend_from_slice(text.as_bytes());
        }
        for click in &self.clicks {
            put_varint(&mut rest, click.at_ms - first);
        }
        for click in &self.clicks {
            put_varint(&mut rest, click.url_id.get().cast_unsigned());
        }
        rest.extend(self.clicks.iter().map(flags));
        let columns: [fn(&PackedClick) -> Option<u32>; 4] =
            [|c| c.agent, |c| c.referrer, |c| c.language, |c| c.country];
        for column in columns {
            for click in &self.clicks {
                put_varint(&mut rest, column(click).map_or(0, |index| u64::from(index) + 1));
            }
        }
        for click in &self.clicks {
            rest.extend_from_slice(&click.visitor.unwrap_or(0).to_le_bytes());
        }
        let mut packed = vec![VERSION];
        packed.extend_from_slice(&self.id);
        put_varint(&mut packed, self.clicks.len() as u64);
        put_varint(&mut packed, rest.len() as u64);
        packed.extend_from_slice(&lz4_flex::block::compress(&rest));
        packed
    }

    /// The number of clicks that a packed batch declares; 0 if the bytes are not a batch.
    pub fn packed_click_count(packed: &[u8]) -> u64 {
        let mut header = Reader(packed.get(HEADER_LEN..).unwrap_or_default());
        header.number().unwrap_or(0)
    }

    /// Decodes a batch. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// If the bytes are not a batch of this version.
    pub fn unpack(packed: &[u8]) -> Result<Self, BatchError> {
        let mut packed = Reader(packed);
        let id = read_id(&mut packed)?;
        let count = packed.size()?;
        let length = packed.size()?;
        if length > MAX_UNPACKED || count > MAX_CLICKS || count > length / MIN_CLICK {
            return Err(BatchError::Damaged("impossible size"));
        }
        let rest = lz4_flex::block::decompress(packed.0, length)
            .map_err(|_| BatchError::Damaged("the content cannot be decompressed"))?;
        let mut rest = Reader(&rest);
        let first = rest.number()?;
        let texts = rest.size()?;
        if texts > count * TEXTS_OF_CLICK {
            return Err(BatchError::Damaged("impossible size"));
        }
        let texts = (0..texts).map(|_| rest.text()).collect::<Result<Vec<_>, _>>()?;
        let mut clicks = Vec::with_capacity(count);
        for _ in 0..count {
            let at_ms = first.saturating_add(rest.number()?);
            clicks.push(PackedClick { at_ms, ..PackedClick::EMPTY });
        }
        for click in &mut clicks {
            let number = rest.number()?.cast_signed();
            click.url_id = LinkId::new(number).ok_or(BatchError::Damaged("invalid link id"))?;
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
            |click: &mut PackedClick, index| click.agent = index,
            |click: &mut PackedClick, index| click.referrer = index,
            |click: &mut PackedClick, index| click.language = index,
            |click: &mut PackedClick, index| click.country = index,
        ] {
            for click in &mut clicks {
                set(click, rest.text_index(texts.len())?);
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

/// Appends a number as LEB128: seven bits in each byte, the lowest first.
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

struct Reader<'a>(&'a [u8]);

const TRUNCATED: BatchError = BatchError::Damaged("truncated");

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        self.take(N)?.try_into().map_err(|_| TRUNCATED)
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
        Err(BatchError::Damaged("a number is too long"))
    }

    fn size(&mut self) -> Result<usize, BatchError> {
        usize::try_from(self.number()?).map_err(|_| BatchError::Damaged("impossible size"))
    }

    fn text(&mut self) -> Result<String, BatchError> {
        let length = self.size()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| BatchError::Damaged("a text is not UTF-8"))
    }

    fn text_index(&mut self, text_count: usize) -> Result<Option<u32>, BatchError> {
        let index_plus_1 = self.number()?;
        if index_plus_1 > text_count as u64 {
            return Err(BatchError::Damaged("a text is missing"));
        }
        Ok(index_plus_1.checked_sub(1).and_then(|index| u32::try_from(index).ok()))
    }
}

#[cfg(test)]
mod tests;
