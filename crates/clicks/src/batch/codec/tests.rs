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
fn must_25_a_batch_has_at_most_16_000_clicks() {
    let batch = |clicks| {
        let clicks = vec![PackedClick::EMPTY; clicks];
        Batch { id: [1; 16], clicks, texts: Vec::new() }
    };
    let largest = batch(16_000);
    assert_eq!(Batch::unpack(&largest.pack()), Ok(largest));
    let refused = Batch::unpack(&batch(16_001).pack());
    assert_eq!(refused, Err(BatchError::Damaged("impossible size")));
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
    assert_eq!(with_texts(1, &[0, 1, 1, 0xff]), Err(BatchError::Damaged("a text is not UTF-8")));
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
