//! Aggregates clicks into roll-ups, and splits rows and roll-ups by shard. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroI32,
};

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc};

use linnet_domain::{ClickKind, LinkId, Subject, UserId};
use linnet_store::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, HourDelta, KindCounts, LinkDay, LinkDays,
    LinkDelta, SHARDS, ValueDelta, shard_of,
};

/// The distinct visitors of each subject on each day.
pub(super) type VisitorsByDay = HashMap<(Subject, NaiveDate), Vec<i64>>;

/// The subjects that several links share: the link's owner, and the whole service.
fn shared_subjects(user_id: Option<UserId>) -> impl Iterator<Item = Subject> {
    user_id.map(Subject::User).into_iter().chain([Subject::Service])
}

/// All subjects whose roll-ups count a click: the link, its owner, and the whole service.
pub(super) fn subjects(url_id: LinkId, user_id: Option<UserId>) -> impl Iterator<Item = Subject> {
    std::iter::once(Subject::Link(url_id)).chain(shared_subjects(user_id))
}

/// Sorts clicks by shard, link and time; the other functions of this module rely on it.
///
/// The order also makes insertion cheap: rows of one link are adjacent in the table, and the index by link, its most
/// expensive part, is descended once for each link instead of once for each row.
pub(super) fn sort(clicks: &mut [ClickRow]) {
    clicks.sort_unstable_by_key(|click| (shard_of_click(click), click.url_id, click.at));
}

/// The clicks of each link.
fn by_link(clicks: &[ClickRow]) -> impl Iterator<Item = &[ClickRow]> {
    clicks.chunk_by(|one, next| one.url_id == next.url_id)
}

/// The clicks of the link that has the most in these sorted clicks.
pub(super) fn clicks_of_top_link(clicks: &[ClickRow]) -> usize {
    by_link(clicks).map(<[_]>::len).max().unwrap_or(0)
}

/// The clicks of each day of a link.
fn by_day(clicks: &[ClickRow]) -> impl Iterator<Item = &[ClickRow]> {
    clicks.chunk_by(|one, next| day_of(one) == day_of(next))
}

fn day_of(click: &ClickRow) -> NaiveDate {
    click.at.date_naive()
}

/// Collects the distinct visitors in these sorted clicks. Redis counts them before the group is written.
pub(super) fn visitors(clicks: &[ClickRow]) -> VisitorsByDay {
    let mut all = VisitorsByDay::new();
    for clicks in by_link(clicks).flat_map(by_day) {
        let visitors = distinct(person_clicks(clicks).filter_map(|click| click.visitor).collect());
        let Some(first) = clicks.first().filter(|_| !visitors.is_empty()) else { continue };
        for subject in shared_subjects(first.user_id) {
            all.entry((subject, day_of(first))).or_default().extend(&visitors);
        }
        all.insert((Subject::Link(first.url_id), day_of(first)), visitors);
    }
    for ((subject, _), visitors) in &mut all {
        if subject.link_id().is_none() {
            *visitors = distinct(std::mem::take(visitors));
        }
    }
    all
}

fn shard_of_click(click: &ClickRow) -> i16 {
    shard_of(Subject::Link(click.url_id))
}

fn distinct(mut all: Vec<i64>) -> Vec<i64> {
    all.sort_unstable();
    all.dedup();
    all
}

/// How many transactions write a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// One transaction. PostgreSQL uses one core for it and leaves the others to redirects.
    Sequential,
    /// One concurrent transaction for each shard.
    Parallel,
}

/// Fewest clicks that are written in several transactions. For fewer, a second transaction costs more than it gains.
const MIN_CLICKS_TO_SPLIT: usize = 1_000;

/// Builds the groups, one for each transaction, from the sorted `clicks` that belong to `shards`. `visitors` is the current
/// number of visitors of each subject and day.
pub(super) fn build_groups<'a>(
    batches: &'a [Vec<u8>],
    shards: &[i16],
    clicks: &'a [ClickRow],
    visitors: &HashMap<(Subject, NaiveDate), i64>,
    mode: WriteMode,
) -> Vec<ClickGroup<'a>> {
    let mut totals = add_up(clicks, visitors);
    totals.retain(|shard, _| shards.contains(shard));
    let is_split = mode == WriteMode::Parallel && clicks.len() >= MIN_CLICKS_TO_SPLIT;
    if !is_split {
        let mut whole = ClickTotals::default();
        for shard in totals.values_mut() {
            append(&mut whole, shard);
        }
        sort_for_locking(&mut whole);
        let rows = rows_of(clicks, shards);
        return vec![ClickGroup { batches, shards: shards.to_vec(), rows, totals: whole }];
    }
    let groups = totals.into_iter().map(|(shard, totals)| ClickGroup {
        batches,
        shards: vec![shard],
        rows: rows_of(clicks, &[shard]),
        totals,
    });
    groups.collect()
}

// `rows_of` takes every row from the first shard to the last. With three shards, that could include one that was not passed.
const _: () = assert!(SHARDS.len() == 2);

/// The clicks of these shards, which are adjacent in `SHARDS`.
fn rows_of<'a>(clicks: &'a [ClickRow], shards: &[i16]) -> &'a [ClickRow] {
    let (Some(first), Some(last)) = (shards.first(), shards.last()) else { return &[] };
    let from = clicks.partition_point(|click| shard_of_click(click) < *first);
    let to = clicks.partition_point(|click| shard_of_click(click) <= *last);
    clicks.get(from..to).unwrap_or_default()
}

/// The roll-ups of users and of the whole service.
#[derive(Default)]
struct SharedTotals {
    hours: BTreeMap<(Subject, DateTime<Utc>), KindCounts>,
    days: BTreeMap<(Subject, NaiveDate), KindCounts>,
    values: BTreeMap<(Subject, NaiveDate, i32), i64>,
}

/// The totals of each shard, in locking order.
fn add_up(
    clicks: &[ClickRow],
    visitors: &HashMap<(Subject, NaiveDate), i64>,
) -> BTreeMap<i16, ClickTotals> {
    let visitors = |subject, day| visitors.get(&(subject, day)).copied().unwrap_or(0);
    let mut totals: BTreeMap<i16, ClickTotals> =
        SHARDS.map(|shard| (shard, ClickTotals::default())).into();
    let mut shared = SharedTotals::default();
    for clicks in by_link(clicks) {
        let Some(first) = clicks.first() else { continue };
        let totals = totals.entry(shard_of_click(first)).or_default();
        for clicks in by_day(clicks) {
            add_day(&mut totals.link_days, clicks, visitors);
            let Some(day) = totals.link_days.last() else { continue };
            for subject in shared_subjects(first.user_id) {
                shared.add(subject, day);
            }
        }
        totals.links.extend(link_delta(clicks));
    }
    shared.divide(&mut totals);
    for row in totals.values_mut().flat_map(|totals| &mut totals.days) {
        row.visitors = visitors(row.subject, row.day);
    }
    totals
}

/// Adds up the clicks of one link and day, which are sorted by time.
fn add_day(days: &mut LinkDays, clicks: &[ClickRow], visitors: impl Fn(Subject, NaiveDate) -> i64) {
    let Some(first) = clicks.first() else { return };
    let visitors = visitors(Subject::Link(first.url_id), day_of(first));
    days.begin(first.url_id, day_of(first), visitors);
    for clicks in clicks.chunk_by(|one, next| one.at.hour() == next.at.hour()) {
        let mut counts = KindCounts::default();
        for click in clicks {
            counts += KindCounts::one(click.kind);
        }
        days.add_hour(clicks.first().map_or(0, |click| click.at.hour().cast_signed()), counts);
    }
    let mut values: Vec<NonZeroI32> =
        person_clicks(clicks).flat_map(|c| c.values).flatten().collect();
    values.sort_unstable();
    for value in values.chunk_by(PartialEq::eq) {
        let clicks = i64::try_from(value.len()).unwrap_or(i64::MAX);
        days.add_value(value.first().map_or(0, |id| id.get()), clicks);
    }
}

fn person_clicks(clicks: &[ClickRow]) -> impl DoubleEndedIterator<Item = &ClickRow> {
    clicks.iter().filter(|click| click.kind == ClickKind::Person)
}

/// The change to the counter in the link's row. `clicks` are sorted by time.
fn link_delta(clicks: &[ClickRow]) -> Option<LinkDelta> {
    let last = person_clicks(clicks).next_back()?;
    let count = person_clicks(clicks).filter(|click| !click.is_counted).count();
    let clicks = i64::try_from(count).unwrap_or(i64::MAX);
    Some(LinkDelta { url_id: last.url_id, clicks, last: last.at })
}

/// Moves all rows of `other` to the end of `totals`.
fn append(totals: &mut ClickTotals, other: &mut ClickTotals) {
    totals.link_days.append(&mut other.link_days);
    totals.hours.append(&mut other.hours);
    totals.days.append(&mut other.days);
    totals.values.append(&mut other.values);
    totals.links.append(&mut other.links);
}

impl SharedTotals {
    fn add(&mut self, subject: Subject, link: LinkDay<'_>) {
        let midnight = link.day.and_time(NaiveTime::MIN).and_utc();
        for (hour, counts) in link.hours() {
            let hour = midnight + TimeDelta::hours(hour.into());
            *self.hours.entry((subject, hour)).or_default() += counts;
        }
        *self.days.entry((subject, link.day)).or_default() += link.counts();
        for (value_id, clicks) in link.values() {
            *self.values.entry((subject, link.day, value_id)).or_default() += clicks;
        }
    }

    /// Adds each subject's rows to the totals of its shard.
    fn divide(self, totals: &mut BTreeMap<i16, ClickTotals>) {
        for ((subject, hour), counts) in self.hours {
            let rows = &mut totals.entry(shard_of(subject)).or_default().hours;
            rows.push(HourDelta { subject, hour, counts });
        }
        for ((subject, day), counts) in self.days {
            let rows = &mut totals.entry(shard_of(subject)).or_default().days;
            rows.push(DayDelta { subject, day, counts, visitors: 0 });
        }
        for ((subject, day, value_id), clicks) in self.values {
            let rows = &mut totals.entry(shard_of(subject)).or_default().values;
            rows.push(ValueDelta { subject, day, value_id, clicks });
        }
    }
}

/// Sorts rows into the order in which every transaction locks them, which rules out deadlocks. The totals of one shard
/// already have this order.
fn sort_for_locking(totals: &mut ClickTotals) {
    totals.hours.sort_unstable_by_key(|row| (row.subject, row.hour));
    totals.days.sort_unstable_by_key(|row| (row.subject, row.day));
    totals.values.sort_unstable_by_key(|row| (row.subject, row.day, row.value_id));
    totals.links.sort_unstable_by_key(|row| row.url_id);
}

#[cfg(test)]
mod tests {
    use linnet_store::SHARDS;

    use super::*;

    fn link(id: i64) -> LinkId {
        LinkId::new(id).unwrap()
    }

    fn click(at: &str, url_id: i64, kind: ClickKind, visitor: i64) -> ClickRow {
        ClickRow {
            at: at.parse().unwrap(),
            url_id: link(url_id),
            visitor: Some(visitor),
            values: [NonZeroI32::new(7), None, NonZeroI32::new(9), None],
            user_id: UserId::new(3).filter(|_| url_id < 10),
            kind,
            is_counted: url_id == 2,
        }
    }

    #[test]
    fn group_has_rows_roll_ups_and_link_counters() {
        use ClickKind::{Bot, Head, Person, Prefetch};
        let mut clicks = [
            click("2026-11-20T23:59:59.9Z", 1, Person, 100),
            click("2026-11-21T00:00:00Z", 1, Person, 100),
            click("2026-11-21T00:59:59Z", 1, Person, 101),
            click("2026-11-21T00:10:00Z", 1, Bot, 102),
            click("2026-11-21T00:20:00Z", 2, Person, 100),
            click("2026-11-21T02:00:00Z", 2, Head, 103),
            click("2026-11-21T02:00:00Z", 20, Prefetch, 104),
        ];
        sort(&mut clicks);
        let day: NaiveDate = "2026-11-21".parse().unwrap();
        let distinct = visitors(&clicks);
        let owner = Subject::User(UserId::new(3).unwrap());
        assert_eq!(distinct[&(Subject::Link(link(1)), day)], [100, 101]);
        assert_eq!(distinct[&(owner, day)], [100, 101]);
        assert!(
            !distinct.contains_key(&(Subject::Link(link(20)), day)),
            "a prefetch does not count as a visitor"
        );
        let counted =
            distinct.iter().map(|(key, set)| (*key, i64::try_from(set.len()).unwrap())).collect();

        let batches = [vec![1; 16]];
        let groups = build_groups(&batches, &SHARDS, &clicks, &counted, WriteMode::Parallel);
        let [group] = &groups[..] else { panic!("few clicks are written in one transaction") };
        assert_eq!(group.rows.len(), 7);
        let mut link_days = group.totals.link_days.iter();
        let link_day = link_days.find(|row| (row.url_id, row.day) == (link(1), day)).unwrap();
        let counts = KindCounts { clicks: 2, bots: 1, ..KindCounts::default() };
        assert_eq!((link_day.counts(), link_day.visitors), (counts, 2));
        assert_eq!(link_day.hours().collect::<Vec<_>>(), [(0, counts)]);
        assert_eq!(link_day.values().collect::<Vec<_>>(), [(7, 2), (9, 2)], "people only");
        let of = |subject| group.totals.days.iter().find(|d| d.subject == subject && d.day == day);
        let counts = KindCounts { clicks: 3, bots: 1, heads: 1, prefetches: 1 };
        assert_eq!(of(Subject::Service).unwrap().counts, counts);
        let counts = KindCounts { clicks: 3, bots: 1, heads: 1, prefetches: 0 };
        assert_eq!(of(owner).unwrap().counts, counts);
        let hours = group.totals.hours.iter().filter(|h| h.subject == owner);
        let hours: Vec<_> = hours.map(|h| (h.hour.to_rfc3339(), h.counts.clicks)).collect();
        let hour = |at: &str, clicks| (at.to_owned(), clicks);
        let expected = [
            hour("2026-11-20T23:00:00+00:00", 1),
            hour("2026-11-21T00:00:00+00:00", 3),
            hour("2026-11-21T02:00:00+00:00", 0),
        ];
        assert_eq!(hours, expected);
        let sevens =
            group.totals.values.iter().filter(|v| v.subject == Subject::Service && v.value_id == 7);
        assert_eq!(sevens.map(|v| v.clicks).sum::<i64>(), 4, "people only");
        let links: Vec<_> = group.totals.links.iter().map(|l| (l.url_id.get(), l.clicks)).collect();
        assert_eq!(links, [(1, 3), (2, 0)], "max_clicks has counted link 2 already");
    }

    #[test]
    fn top_link_has_the_most_clicks() {
        let one = |id| click("2026-11-21T00:00:00Z", id, ClickKind::Person, 1);
        let mut clicks = [one(2), one(1), one(3), one(2), one(20), one(2), one(1)];
        sort(&mut clicks);
        assert_eq!(clicks_of_top_link(&clicks), 3);
        assert_eq!(clicks_of_top_link(&[]), 0);
    }

    #[test]
    fn large_group_is_divided_among_shards_without_loss() {
        let mut clicks: Vec<_> = (0..2_000)
            .map(|n| click("2026-11-21T00:00:00Z", 1 + n % 20, ClickKind::Person, n % 7))
            .collect();
        sort(&mut clicks);
        let none = HashMap::new();
        let whole: Vec<_> = add_up(&clicks, &none).into_values().collect();
        let of = |rows: fn(&ClickTotals) -> usize| whole.iter().map(rows).sum::<usize>();
        let batches = [vec![1; 16]];
        let groups = build_groups(&batches, &SHARDS, &clicks, &none, WriteMode::Parallel);
        assert_eq!(groups.iter().map(|g| &g.shards[..]).collect::<Vec<_>>(), [[1], [2]]);
        let all = |of: fn(&ClickGroup) -> usize| groups.iter().map(of).sum::<usize>();
        assert_eq!(all(|g| g.rows.len()), clicks.len());
        assert_eq!(all(|g| g.totals.link_days.len()), of(|totals| totals.link_days.len()));
        assert_eq!(all(|g| g.totals.hours.len()), of(|totals| totals.hours.len()));
        assert_eq!(all(|g| g.totals.days.len()), of(|totals| totals.days.len()));
        assert_eq!(all(|g| g.totals.values.len()), of(|totals| totals.values.len()));
        assert_eq!(all(|g| g.totals.links.len()), of(|totals| totals.links.len()));
        for group in &groups {
            let subjects = group.totals.days.iter().map(|row| row.subject);
            let subjects =
                subjects.chain(group.totals.link_days.iter().map(|row| Subject::Link(row.url_id)));
            let subjects = subjects.chain(group.rows.iter().map(|row| Subject::Link(row.url_id)));
            assert!(subjects.map(shard_of).all(|shard| group.shards == [shard]));
        }
        let missing = build_groups(&batches, &SHARDS[1..], &clicks, &none, WriteMode::Sequential);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].rows.len(), groups[1].rows.len());
        let sequential = build_groups(&batches, &SHARDS, &clicks, &none, WriteMode::Sequential);
        assert_eq!(sequential.len(), 1);
        assert_eq!(
            (&sequential[0].shards[..], sequential[0].rows.len()),
            (&SHARDS[..], clicks.len())
        );
        assert_eq!(sequential[0].totals.link_days.len(), 20);
    }
}
