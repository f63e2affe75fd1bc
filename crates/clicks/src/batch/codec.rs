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
/// Most clicks that are accepted. The publisher sends 1,000.
const MAX_CLICKS: usize = 16_000;
/// Most texts of a click: user agent, referrer, language and country.
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
        let mut rest = Vec::with_capacity(64 + self.clicks.len() * 24);
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
        let mut packed = Vec::with_capacity(HEADER_LEN + 10 + rest.len() / 2);
        packed.push(VERSION);
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
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
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
mod tests {
    use super::*;
    use crate::BatchBuilder;

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
                agent: builder.intern(&format!("agent {}", n % 3)),
                referrer: builder.intern(if n % 2 == 0 { "news.example" } else { "" }),
                language: builder.intern("de"),
                country: None,
            };
            builder.push(click);
        }
        builder.finish([7; 16])
    }

    #[test]
    fn unpacked_batches_equal_the_packed_ones() {
        for batch in [batch(), Batch::default()] {
            let packed = batch.pack();
            assert_eq!(Batch::unpack(&packed).unwrap(), batch);
            assert_eq!(Batch::packed_click_count(&packed), batch.clicks.len() as u64);
        }
        assert_eq!(batch().texts, ["agent 0", "news.example", "de", "agent 1", "agent 2"]);
    }

    /// A batch whose bytes are these after decompression.
    fn packed(clicks: u64, rest: &[u8]) -> Vec<u8> {
        let mut packed = vec![VERSION];
        packed.extend([0; 16]);
        put_varint(&mut packed, clicks);
        put_varint(&mut packed, rest.len() as u64);
        packed.extend(lz4_flex::block::compress(rest));
        packed
    }

    #[test]
    fn must_25_a_damaged_batch_of_many_texts_or_clicks_is_not_built() {
        for (clicks, texts, rest) in
            [(0, 1, 20), (1, 5, 1_000), (1, 4_000_000, 8_000_000), (MAX_CLICKS + 1, 0, 8_000_000)]
        {
            let mut content = vec![1];
            put_varint(&mut content, texts);
            content.resize(rest, 0);
            let error = Batch::unpack(&packed(clicks as u64, &content));
            assert_eq!(error, Err(BatchError::Damaged("impossible size")), "{clicks} {texts}");
        }
    }

    #[test]
    fn damaged_batch_returns_an_error_without_a_panic() {
        let packed = batch().pack();
        for length in 0..packed.len() {
            assert!(Batch::unpack(&packed[..length]).is_err(), "cut at {length}");
        }
        for position in 0..packed.len() {
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[position] ^= 1 << bit;
                // A flipped bit may yield other valid clicks. Redis and the spool detect damage, the codec does not.
                let _ = Batch::unpack(&damaged);
            }
        }
        assert_eq!(Batch::unpack(&[9]), Err(BatchError::Version(9)));
        let mut huge = vec![VERSION];
        huge.extend([0; 16]);
        put_varint(&mut huge, u64::MAX);
        put_varint(&mut huge, u64::MAX);
        assert!(Batch::unpack(&huge).is_err());
    }

    #[test]
    fn numbers_have_seven_bits_in_each_byte() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut written = Vec::new();
            put_varint(&mut written, number);
            assert_eq!(written, bytes);
            assert_eq!(Reader(bytes).number(), Ok(number));
        }
        let too_long = Err(BatchError::Damaged("a number is too long"));
        assert_eq!(Reader(&[0x80; 10]).number(), too_long);
        assert_eq!(Reader(&[0x80; 9]).number(), Err(TRUNCATED));
    }

    #[test]
    fn each_property_has_its_own_bit() {
        let click = PackedClick::EMPTY;
        for (click, bits) in [
            (click, 0),
            (PackedClick { is_head: true, ..click }, 1),
            (PackedClick { is_prefetch: true, ..click }, 2),
            (PackedClick { is_counted: true, ..click }, 4),
            (PackedClick { visitor: Some(0), ..click }, 8),
            (PackedClick { is_head: true, is_counted: true, ..click }, 5),
        ] {
            assert_eq!(flags(&click), bits);
            let batch = Batch { id: [1; 16], clicks: vec![click], texts: Vec::new() };
            assert_eq!(Batch::unpack(&batch.pack()), Ok(batch));
        }
    }

    #[test]
    fn each_column_has_its_own_text() {
        let click = PackedClick {
            agent: Some(0),
            referrer: Some(1),
            language: Some(2),
            country: Some(3),
            ..PackedClick::EMPTY
        };
        let texts = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let batch = Batch { id: [1; 16], clicks: vec![click], texts };
        assert_eq!(Batch::unpack(&batch.pack()), Ok(batch.clone()));
        let texts = batch.texts[..3].to_vec();
        let packed = Batch { texts, ..batch }.pack();
        assert_eq!(Batch::unpack(&packed), Err(BatchError::Damaged("a text is missing")));
    }

    /// A batch whose header declares these sizes.
    fn declared(count: u64, length: u64, content: &[u8]) -> Result<Batch, BatchError> {
        let mut packed = vec![VERSION];
        packed.extend([0; 16]);
        put_varint(&mut packed, count);
        put_varint(&mut packed, length);
        packed.extend(lz4_flex::block::compress(content));
        assert_eq!(Batch::packed_click_count(&packed), count);
        assert_eq!(PackedBatch::from_bytes(&packed).map(|packed| packed.id), Ok([0; 16]));
        Batch::unpack(&packed)
    }

    #[test]
    fn must_25_declared_sizes_are_bounded_before_memory_is_taken() {
        let impossible = Err(BatchError::Damaged("impossible size"));
        let most = 16 * 1024 * 1024;
        assert_eq!(declared(0, most, &[]), Err(TRUNCATED));
        assert_eq!(declared(0, most + 1, &[]), impossible);
        // Seven columns of a byte and eight bytes of a visitor.
        assert_eq!(declared(2, 30, &[1; 30]), Err(TRUNCATED));
        assert_eq!(declared(3, 30, &[1; 30]), impossible);
        assert_eq!(declared(2, 29, &[1; 29]), impossible);
        // The first number is the time, the second the number of texts. A click has four at most.
        let with_texts = |clicks, first: &[u8]| {
            let mut content = first.to_vec();
            content.resize(15, 0);
            declared(clicks, 15, &content)
        };
        assert_eq!(with_texts(0, &[0, 1, 9]), impossible);
        assert_eq!(with_texts(1, &[0, 4, 9]), Err(TRUNCATED));
        assert_eq!(with_texts(1, &[0, 5, 9]), impossible);
        assert_eq!(
            with_texts(1, &[0, 1, 1, 0xff]),
            Err(BatchError::Damaged("a text is not UTF-8"))
        );
        assert_eq!(PackedBatch::from_bytes(&[]).map(|packed| packed.id), Err(TRUNCATED));
        assert_eq!(Batch::packed_click_count(&[1, 2]), 0);
    }

    #[test]
    fn clicks_need_a_link_and_times_do_not_overflow() {
        let mut content = vec![0xff; 9];
        content.extend([1, 0, 5, 1]);
        content.extend([0; 5 + 8]);
        let length = content.len() as u64;
        let batch = declared(1, length, &content).unwrap();
        assert_eq!(batch.clicks[0].at_ms, u64::MAX);
        content[12] = 0;
        assert_eq!(declared(1, length, &content), Err(BatchError::Damaged("invalid link id")));
    }
}
