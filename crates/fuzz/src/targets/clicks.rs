//! Batches of clicks, and the headers of visitors.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use linnet_clicks::{
    Batch, BatchBuilder, MAX_AGENT, PackedBatch, PackedClick, UserAgentParser, agent_text,
    campaign, language, referrer_host,
};
use linnet_domain::{LinkId, is_speculative};

use crate::memory::bounded;

/// The largest batch that is accepted, unpacked in memory.
const BATCH_BYTES: usize = 64 * 1024 * 1024;

/// A packed batch from Redis, and a batch made from the same bytes: both are packed and unpacked again.
pub(super) fn click_batch(input: &[u8]) {
    if let Ok(batch) = bounded(input, BATCH_BYTES, 16, || Batch::unpack(input)) {
        let texts = batch.texts.len();
        for click in &batch.clicks {
            let indexes = [click.agent, click.referrer, click.language, click.country];
            assert!(indexes.into_iter().flatten().all(|index| (index as usize) < texts));
        }
        assert_eq!(Batch::packed_click_count(input), batch.clicks.len() as u64);
        assert_eq!(PackedBatch::from_bytes(input).expect("a batch").id, batch.id);
        assert_eq!(Batch::unpack(&batch.pack()).as_ref(), Ok(&batch));
    }
    if let Ok(batch) = built(&mut Unstructured::new(input)) {
        let packed = batch.pack();
        assert_eq!(Batch::unpack(&packed).as_ref(), Ok(&batch));
        // A damaged batch may have any clicks, but it must not stop the worker.
        if let Some((first, rest)) = input.split_first() {
            let mut damaged = packed;
            let place = usize::from(*first) % damaged.len();
            damaged[place] ^= rest.first().copied().unwrap_or(1);
            drop(bounded(&damaged, BATCH_BYTES, 16, || Batch::unpack(&damaged)));
        }
    }
}

fn built(input: &mut Unstructured<'_>) -> arbitrary::Result<Batch> {
    let mut builder = BatchBuilder::default();
    for _ in 0..input.int_in_range(0..=20)? {
        let mut text = || -> arbitrary::Result<Option<u32>> {
            let text = <&str>::arbitrary(input)?;
            Ok(builder.intern(text))
        };
        let (agent, referrer, language, country) = (text()?, text()?, text()?, text()?);
        let [is_head, is_prefetch, is_counted] = <[bool; 3]>::arbitrary(input)?;
        builder.push(PackedClick {
            at_ms: u64::arbitrary(input)?,
            url_id: LinkId::new(i64::arbitrary(input)?).unwrap_or(LinkId::MIN),
            is_head,
            is_prefetch,
            is_counted,
            visitor: Option::arbitrary(input)?,
            agent,
            referrer,
            language,
            country,
        });
    }
    Ok(builder.finish(<[u8; 16]>::arbitrary(input)?))
}

/// A user agent: the redirect and the recorded click agree on bots, and every attribute is short.
pub(super) fn user_agent(input: &[u8]) {
    static PARSER: LazyLock<UserAgentParser> = LazyLock::new(UserAgentParser::default);
    let kept = input.get(..MAX_AGENT).unwrap_or(input);
    let text = agent_text(kept);
    assert!(!text.chars().any(char::is_control));
    let parsed = PARSER.parse(&text);
    assert_eq!(parsed.is_bot, PARSER.is_bot(input), "{text}");
    // Invalid bytes become characters of three bytes, so the text may be longer than what is kept.
    if text.len() <= MAX_AGENT {
        assert_eq!(parsed.is_bot, PARSER.is_bot(text.as_bytes()), "{text}");
    }
    let [browser, os, device] = &parsed.value.parts[..] else { panic!("three parts") };
    assert!(browser.len() <= 64 && os.len() <= 64, "{browser} {os}");
    assert!(["", "desktop", "mobile", "tablet", "tv", "console"].contains(&device.as_str()));
}

/// `Referer`, `Accept-Language`, `Sec-Purpose`, and the parameters of a campaign: output is short and is read again.
pub(super) fn visit_headers(input: &[u8]) {
    let host = referrer_host(input);
    assert!(host.len() <= 253 && !host.chars().any(|c| c.is_control() || c.is_uppercase()));
    if !host.is_empty() {
        // A second `www.` is part of the name.
        let prefix = if host.starts_with("www.") { "www." } else { "" };
        assert_eq!(referrer_host(format!("HTTPS://{prefix}{host}/x").as_bytes()), host);
    }
    let language_ = language(input);
    assert!(language_.bytes().all(|byte| byte.is_ascii_lowercase()) && language_.len() <= 3);
    assert_eq!(language(language_.as_bytes()), language_);
    let upper = input.to_ascii_uppercase();
    assert_eq!(is_speculative(&upper), is_speculative(input));
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(value) = campaign(text)
    {
        assert_eq!(value.parts.len(), value.kind.parts().len());
        for part in value.parts {
            assert!(part.chars().count() <= 100 && !part.chars().any(char::is_control));
        }
    }
}
