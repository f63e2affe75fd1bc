//! Rows of `raw_clicks`, each with up to [`MAX_CLICKS`] clicks of one link and second.

use std::num::NonZeroI32;

use sqlx::{PgConnection, postgres::PgCopyIn};

use crate::{StoreError, copy::BinaryRows};

use super::ClickRow;

/// The most clicks of a row. It takes 1.6 kB then: a fifth of a page, and less than the 2 kB from which PostgreSQL moves a
/// row out of its page.
const MAX_CLICKS: usize = 48;
/// Numbers of a click that is not the first one of its row.
const NUMBERS_PER_CLICK: usize = 8;
/// Bytes of rows that are sent at once.
const SENT_BYTES: usize = 256 * 1024;

/// Copies clicks that are sorted by link and time.
pub(super) async fn write_raw_clicks(
    connection: &mut PgConnection,
    clicks: &[ClickRow],
) -> Result<(), StoreError> {
    if clicks.is_empty() {
        return Ok(());
    }
    // In ascending order, but with gaps if other transactions insert events at the same time.
    let ids = sqlx::query_scalar!(
        r#"SELECT nextval('events_id_seq') AS "id!" FROM generate_series(1, $1::bigint)"#,
        i64::try_from(clicks.len()).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut copy = connection
        .copy_in_raw(
            "COPY raw_clicks (id, clicked_at, url_id, visitor, agent_and_kind, origin_id, sources,
                              more) FROM STDIN (FORMAT binary)",
        )
        .await?;
    if let Err(error) = send(&mut copy, clicks, &ids).await {
        // An error of the abort is less relevant than the first one.
        let _ = copy.abort("sending the rows failed").await;
        return Err(error.into());
    }
    copy.finish().await?;
    Ok(())
}

async fn send(
    copy: &mut PgCopyIn<&mut PgConnection>,
    clicks: &[ClickRow],
    mut ids: &[i64],
) -> Result<(), sqlx::Error> {
    let mut binary = BinaryRows::new(SENT_BYTES);
    let mut numbers = Vec::with_capacity(MAX_CLICKS * NUMBERS_PER_CLICK);
    for row in rows(clicks) {
        let (own, others) = ids.split_at_checked(row.len()).unwrap_or((ids, &[]));
        ids = others;
        write_row(&mut binary, &mut numbers, row, own);
        if binary.bytes().len() >= SENT_BYTES {
            copy.send(binary.bytes()).await?;
            binary.clear_sent();
        }
    }
    copy.send(binary.finish()).await?;
    Ok(())
}

/// The clicks of each row.
fn rows(clicks: &[ClickRow]) -> impl Iterator<Item = &[ClickRow]> {
    clicks
        .chunk_by(|one, next| {
            one.url_id == next.url_id && one.at.timestamp() == next.at.timestamp()
        })
        .flat_map(|clicks| clicks.chunks(MAX_CLICKS))
}

fn write_row(binary: &mut BinaryRows, numbers: &mut Vec<i32>, row: &[ClickRow], ids: &[i64]) {
    let ([first, more @ ..], [id, more_ids @ ..]) = (row, ids) else { return };
    let [_, origin, referrer, campaign] = first.values;
    binary.begin(8);
    binary.bigint(*id);
    binary.timestamp(first.at);
    binary.bigint(first.url_id.get());
    binary.nullable(first.visitor, BinaryRows::bigint);
    binary.integer(agent_and_kind(first));
    binary.nullable(origin.map(NonZeroI32::get), BinaryRows::integer);
    let sources = (i64::from(number(campaign)) << 32) | i64::from(number(referrer));
    binary.nullable(Some(sources).filter(|sources| *sources != 0), BinaryRows::bigint);
    numbers.clear();
    for (click, click_id) in more.iter().zip(more_ids) {
        let [_, origin, referrer, campaign] = click.values;
        let since_first = click.at.timestamp_micros() - first.at.timestamp_micros();
        let [upper, lower] = halves(click.visitor.unwrap_or(0));
        numbers.extend([
            // The ids of a group are from one statement, and a row is within a second.
            i32::try_from(click_id - id).unwrap_or(i32::MAX),
            i32::try_from(since_first).unwrap_or(0),
            upper,
            lower,
            agent_and_kind(click),
            number(origin),
            number(referrer),
            number(campaign),
        ]);
    }
    binary.nullable(Some(&*numbers).filter(|numbers| !numbers.is_empty()), |binary, numbers| {
        binary.integers(numbers);
    });
}

/// Four times the agent's id plus the kind. Ids that are too large for it, which the limit of values prevents, are unknown.
fn agent_and_kind(click: &ClickRow) -> i32 {
    let [agent, ..] = click.values;
    number(agent).checked_mul(4).unwrap_or(0) | i32::from(click.kind as u8)
}

fn number(id: Option<NonZeroI32>) -> i32 {
    id.map_or(0, NonZeroI32::get)
}

/// The upper and the lower 32 bits.
fn halves(number: i64) -> [i32; 2] {
    let [upper @ .., _, _, _, _] = number.to_be_bytes();
    let [_, _, _, _, lower @ ..] = number.to_be_bytes();
    [i32::from_be_bytes(upper), i32::from_be_bytes(lower)]
}
