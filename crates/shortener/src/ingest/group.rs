//! From clicks to rows and roll-ups. No I/O.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, DurationRound, NaiveDate, TimeDelta, Utc};

use crate::{
    domain::ClickKind,
    store::{
        ClickGroup, ClickRow, DayDelta, HourDelta, KindCounts, LinkDelta, ValueDelta, shard_of,
    },
};

/// A click with everything that is recorded of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enriched {
    /// The raw row.
    pub(super) row: ClickRow,
    /// What the request was.
    pub(super) kind: ClickKind,
    /// The link's owner.
    pub(super) user_id: Option<i64>,
    /// The link's own counter has it already.
    pub(super) is_counted: bool,
}

/// Visitors of a subject on a day, each once.
pub(super) type Visitors = HashMap<(i64, NaiveDate), Vec<i64>>;

/// The whole service.
pub(super) const EVERYTHING: i64 = 0;

/// The link's owner, and the whole service.
fn shared_subjects(user_id: Option<i64>) -> impl Iterator<Item = i64> {
    [user_id.map(|id| -id), Some(EVERYTHING)].into_iter().flatten()
}

/// The link, its owner, and the whole service.
pub(super) fn subjects(url_id: i64, user_id: Option<i64>) -> impl Iterator<Item = i64> {
    std::iter::once(url_id).chain(shared_subjects(user_id))
}

/// Puts clicks into the order that everything here expects: by link, and by time. Rows of a link then stand
/// beside each other in the table too, and the index by link, the dearest part of adding them, is gone
/// through once instead of from its root for each row.
pub(super) fn sort(clicks: &mut [Enriched]) {
    clicks.sort_unstable_by_key(|click| (click.row.url_id, click.row.at));
}

/// The clicks of each link.
fn by_link(clicks: &[Enriched]) -> impl Iterator<Item = &[Enriched]> {
    clicks.chunk_by(|one, next| one.row.url_id == next.row.url_id)
}

fn day_of(click: &Enriched) -> NaiveDate {
    click.row.at.date_naive()
}

/// Who was there, for counting before the group is written. `clicks` are sorted.
pub(super) fn visitors(clicks: &[Enriched]) -> Visitors {
    let mut all = Visitors::new();
    let days = by_link(clicks).flat_map(|link| link.chunk_by(|a, b| day_of(a) == day_of(b)));
    for clicks in days {
        let people = clicks.iter().filter(|click| click.kind == ClickKind::Person);
        let seen = each_once(people.filter_map(|click| click.row.visitor).collect());
        let Some(first) = clicks.first().filter(|_| !seen.is_empty()) else { continue };
        for subject in shared_subjects(first.user_id) {
            all.entry((subject, day_of(first))).or_default().extend(&seen);
        }
        all.insert((first.row.url_id, day_of(first)), seen);
    }
    for ((subject, _), seen) in &mut all {
        if *subject <= EVERYTHING {
            *seen = each_once(std::mem::take(seen));
        }
    }
    all
}

fn each_once(mut all: Vec<i64>) -> Vec<i64> {
    all.sort_unstable();
    all.dedup();
    all
}

/// How much of PostgreSQL writing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// One backend for roll-ups: redirects need the other processors.
    Steady,
    /// One for each shard.
    Hurried,
}

/// A group of fewer clicks is written by one transaction: a second one would cost more than it gains.
const SPLIT_FROM: usize = 1_000;

/// What to write of these clicks, which are sorted, in `shards`, a transaction each if it is to be done with
/// as many processors as there are. `visitors` has how many there were so far on each day of each subject.
pub(super) fn build_groups(
    batches: &[Vec<u8>],
    shards: &[i16],
    clicks: &[Enriched],
    visitors: &HashMap<(i64, NaiveDate), i64>,
    pace: Pace,
) -> Vec<ClickGroup> {
    let totals = Totals::of(clicks, visitors);
    let is_split = pace == Pace::Hurried && clicks.len() >= SPLIT_FROM;
    let together = if is_split { 1 } else { shards.len() };
    let parts = shards.chunks(together.max(1));
    parts.map(|shards| totals.group(batches, shards, clicks)).collect()
}

/// Clicks added up, all shards of them. All workers lock rows in this one order, so none waits for another
/// in a circle: links come before users and the whole service, whose rows everybody needs, so that
/// those are held for the shortest time.
#[derive(Default)]
struct Totals {
    hours: Vec<HourDelta>,
    days: Vec<DayDelta>,
    values: Vec<ValueDelta>,
    links: Vec<LinkDelta>,
}

/// What users and the whole service have, in the order of locking.
#[derive(Default)]
struct Shared {
    hours: BTreeMap<(i64, DateTime<Utc>), KindCounts>,
    days: BTreeMap<(i64, NaiveDate), KindCounts>,
    values: BTreeMap<(i64, NaiveDate, i32), i64>,
}

impl Shared {
    fn add(&mut self, subject: i64, link: &Totals) {
        for row in &link.hours {
            *self.hours.entry((subject, row.hour)).or_default() += row.counts;
        }
        for row in &link.days {
            *self.days.entry((subject, row.day)).or_default() += row.counts;
        }
        for row in &link.values {
            *self.values.entry((subject, row.day, row.value_id)).or_default() += row.clicks;
        }
    }

    fn into_totals(self) -> Totals {
        let hours = self.hours.into_iter();
        let days = self.days.into_iter();
        let values = self.values.into_iter();
        Totals {
            hours: hours
                .map(|((subject, hour), counts)| HourDelta { subject, hour, counts })
                .collect(),
            days: days
                .map(|((subject, day), counts)| DayDelta { subject, day, counts, visitors: 0 })
                .collect(),
            values: values
                .map(|((subject, day, value_id), clicks)| ValueDelta {
                    subject,
                    day,
                    value_id,
                    clicks,
                })
                .collect(),
            links: Vec::new(),
        }
    }
}

impl Totals {
    fn of(clicks: &[Enriched], visitors: &HashMap<(i64, NaiveDate), i64>) -> Self {
        let mut totals = Self::default();
        let mut shared = Shared::default();
        let mut link = Self::default();
        for clicks in by_link(clicks) {
            link.add_clicks(clicks);
            let user_id = clicks.first().and_then(|click| click.user_id);
            for subject in shared_subjects(user_id) {
                shared.add(subject, &link);
            }
            totals.append(&mut link);
        }
        totals.append(&mut shared.into_totals());
        for row in &mut totals.days {
            row.visitors = visitors.get(&(row.subject, row.day)).copied().unwrap_or(0);
        }
        totals
    }

    /// Adds the clicks of one link, in the order of time, to totals that have nothing else.
    fn add_clicks(&mut self, clicks: &[Enriched]) {
        for click in clicks {
            let ClickRow { at, url_id: subject, .. } = click.row;
            let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
            let day = at.date_naive();
            let counts = KindCounts::one(click.kind);
            match self.hours.last_mut() {
                Some(row) if row.hour == hour => row.counts += counts,
                _ => self.hours.push(HourDelta { subject, hour, counts }),
            }
            match self.days.last_mut() {
                Some(row) if row.day == day => row.counts += counts,
                _ => self.days.push(DayDelta { subject, day, counts, visitors: 0 }),
            }
            if click.kind == ClickKind::Person {
                let values = click.row.values.into_iter().flatten();
                let rows = values.map(|value_id| ValueDelta { subject, day, value_id, clicks: 1 });
                self.values.extend(rows);
                let clicks = i64::from(!click.is_counted);
                match self.links.last_mut() {
                    Some(row) => (row.clicks, row.last) = (row.clicks + clicks, at),
                    None => self.links.push(LinkDelta { url_id: subject, clicks, last: at }),
                }
            }
        }
        self.values.sort_unstable_by_key(|row| (row.day, row.value_id));
        self.values.dedup_by(|next, row| {
            let is_same = (next.day, next.value_id) == (row.day, row.value_id);
            if is_same {
                row.clicks += next.clicks;
            }
            is_same
        });
    }

    fn append(&mut self, other: &mut Self) {
        self.hours.append(&mut other.hours);
        self.days.append(&mut other.days);
        self.values.append(&mut other.values);
        self.links.append(&mut other.links);
    }

    /// What of it is of `shards`.
    fn group(&self, batches: &[Vec<u8>], shards: &[i16], clicks: &[Enriched]) -> ClickGroup {
        let is_ours = |subject: i64| shards.contains(&shard_of(subject));
        let rows = clicks.iter().map(|click| click.row).filter(|row| is_ours(row.url_id));
        ClickGroup {
            batches: batches.to_vec(),
            shards: shards.to_vec(),
            rows: rows.collect(),
            hours: only(&self.hours, |row| is_ours(row.subject)),
            days: only(&self.days, |row| is_ours(row.subject)),
            values: only(&self.values, |row| is_ours(row.subject)),
            links: only(&self.links, |row| is_ours(row.url_id)),
        }
    }
}

fn only<T: Copy>(rows: &[T], is_ours: impl Fn(&T) -> bool) -> Vec<T> {
    rows.iter().filter(|row| is_ours(row)).copied().collect()
}

#[cfg(test)]
mod tests {
    use crate::store::SHARDS;

    use super::*;

    fn click(at: &str, url_id: i64, kind: ClickKind, visitor: i64) -> Enriched {
        let values = [Some(7), None, Some(9), None];
        let row = ClickRow {
            at: at.parse().unwrap(),
            url_id,
            kind: kind as i16,
            visitor: Some(visitor),
            values,
        };
        Enriched { row, kind, user_id: (url_id < 10).then_some(3), is_counted: url_id == 2 }
    }

    #[test]
    fn a_group_adds_up() {
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
        let seen = visitors(&clicks);
        assert_eq!(seen[&(1, day)], [100, 101]);
        assert_eq!(seen[&(-3, day)], [100, 101]);
        assert!(!seen.contains_key(&(20, day)), "a prefetch is no visitor");
        let counted =
            seen.iter().map(|(key, set)| (*key, i64::try_from(set.len()).unwrap())).collect();

        let groups = build_groups(&[vec![1; 16]], &SHARDS, &clicks, &counted, Pace::Hurried);
        let [group] = &groups[..] else { panic!("few clicks are one transaction") };
        assert_eq!(group.rows.len(), 7);
        let of = |subject: i64| group.days.iter().find(|d| d.subject == subject && d.day == day);
        let counts = KindCounts { clicks: 2, bots: 1, ..KindCounts::default() };
        assert_eq!((of(1).unwrap().counts, of(1).unwrap().visitors), (counts, 2));
        let counts = KindCounts { clicks: 3, bots: 1, heads: 1, prefetches: 1 };
        assert_eq!(of(EVERYTHING).unwrap().counts, counts);
        let counts = KindCounts { clicks: 3, bots: 1, heads: 1, prefetches: 0 };
        assert_eq!(of(-3).unwrap().counts, counts);
        let hours: i64 =
            group.hours.iter().filter(|h| h.subject == 1).map(|h| h.counts.clicks).sum();
        assert_eq!(hours, 3);
        let sevens = group.values.iter().filter(|v| v.subject == EVERYTHING && v.value_id == 7);
        assert_eq!(sevens.map(|v| v.clicks).sum::<i64>(), 4, "people only");
        let links: Vec<_> = group.links.iter().map(|l| (l.url_id, l.clicks)).collect();
        assert_eq!(links, [(1, 3), (2, 0)], "what the limit counted is not counted again");
        assert_eq!(group.days.last().unwrap().subject, EVERYTHING, "shared rows come last");
    }

    #[test]
    fn a_large_group_is_divided_among_shards_and_loses_nothing() {
        let mut clicks: Vec<_> = (0..2_000)
            .map(|n| click("2026-11-21T00:00:00Z", 1 + n % 20, ClickKind::Person, n % 7))
            .collect();
        sort(&mut clicks);
        let none = HashMap::new();
        let whole = Totals::of(&clicks, &none);
        let batches = [vec![1; 16]];
        let groups = build_groups(&batches, &SHARDS, &clicks, &none, Pace::Hurried);
        assert_eq!(groups.iter().map(|g| &g.shards[..]).collect::<Vec<_>>(), [[1], [2]]);
        let all = |of: fn(&ClickGroup) -> usize| groups.iter().map(of).sum::<usize>();
        assert_eq!(all(|g| g.rows.len()), clicks.len());
        assert_eq!(all(|g| g.hours.len()), whole.hours.len());
        assert_eq!(all(|g| g.days.len()), whole.days.len());
        assert_eq!(all(|g| g.values.len()), whole.values.len());
        assert_eq!(all(|g| g.links.len()), whole.links.len());
        for group in &groups {
            let subjects = group.days.iter().map(|row| row.subject);
            let subjects = subjects.chain(group.rows.iter().map(|row| row.url_id));
            assert!(subjects.map(shard_of).all(|shard| group.shards == [shard]));
        }
        let missing = build_groups(&batches, &SHARDS[1..], &clicks, &none, Pace::Steady);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].rows.len(), groups[1].rows.len());
        let steady = build_groups(&batches, &SHARDS, &clicks, &none, Pace::Steady);
        assert_eq!(steady.len(), 1);
        assert_eq!((&steady[0].shards[..], steady[0].rows.len()), (&SHARDS[..], clicks.len()));
    }
}
