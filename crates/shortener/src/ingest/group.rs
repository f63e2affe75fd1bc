//! From clicks to rows and roll-ups. No I/O.

use std::collections::{HashMap, HashSet, hash_map::Entry};

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

/// Visitors of a subject on a day.
pub(super) type Visitors = HashMap<(i64, NaiveDate), HashSet<i64>>;

/// The whole service.
pub(super) const EVERYTHING: i64 = 0;

/// The link, its owner, and the whole service.
pub(super) fn subjects(url_id: i64, user_id: Option<i64>) -> impl Iterator<Item = i64> {
    [Some(url_id), user_id.map(|id| -id), Some(EVERYTHING)].into_iter().flatten()
}

/// Who was there, for counting before the group is written.
pub(super) fn visitors(clicks: &[Enriched]) -> Visitors {
    let mut all = Visitors::new();
    for click in clicks.iter().filter(|click| click.kind == ClickKind::Person) {
        let Some(visitor) = click.row.visitor else { continue };
        let day = click.row.at.date_naive();
        for subject in subjects(click.row.url_id, click.user_id) {
            all.entry((subject, day)).or_default().insert(visitor);
        }
    }
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

/// What to write of these clicks in `shards`, a transaction each if it is to be done with as many
/// processors as there are. `visitors` has how many there were so far on each day of each subject.
pub(super) fn build_groups(
    batches: &[Vec<u8>],
    shards: &[i16],
    clicks: &[Enriched],
    visitors: &HashMap<(i64, NaiveDate), i64>,
    pace: Pace,
) -> Vec<ClickGroup> {
    let totals = Totals::of(clicks);
    let is_split = pace == Pace::Hurried && clicks.len() >= SPLIT_FROM;
    let together = if is_split { 1 } else { shards.len() };
    let parts = shards.chunks(together.max(1));
    parts.map(|shards| totals.group(batches, shards, clicks, visitors)).collect()
}

/// Clicks added up, all shards of them.
#[derive(Default)]
struct Totals {
    hours: HashMap<(i64, DateTime<Utc>), KindCounts>,
    days: HashMap<(i64, NaiveDate), KindCounts>,
    values: HashMap<(i64, NaiveDate, i32), i64>,
    links: HashMap<i64, LinkDelta>,
}

impl Totals {
    fn of(clicks: &[Enriched]) -> Self {
        let mut totals = Self::default();
        for click in clicks {
            totals.add(click);
        }
        totals
    }

    fn add(&mut self, click: &Enriched) {
        let at = click.row.at;
        let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
        let day = at.date_naive();
        for subject in subjects(click.row.url_id, click.user_id) {
            add(self.hours.entry((subject, hour)).or_default(), click.kind);
            add(self.days.entry((subject, day)).or_default(), click.kind);
            if click.kind == ClickKind::Person {
                for value in click.row.values.into_iter().flatten() {
                    *self.values.entry((subject, day, value)).or_default() += 1;
                }
            }
        }
        if click.kind == ClickKind::Person {
            let clicks = i64::from(!click.is_counted);
            match self.links.entry(click.row.url_id) {
                Entry::Occupied(mut held) => {
                    let held = held.get_mut();
                    held.clicks += clicks;
                    held.last = held.last.max(at);
                }
                Entry::Vacant(free) => {
                    free.insert(LinkDelta { url_id: click.row.url_id, clicks, last: at });
                }
            }
        }
    }

    /// What of it is of `shards`.
    fn group(
        &self,
        batches: &[Vec<u8>],
        shards: &[i16],
        clicks: &[Enriched],
        visitors: &HashMap<(i64, NaiveDate), i64>,
    ) -> ClickGroup {
        let is_ours = |subject: i64| shards.contains(&shard_of(subject));
        let hours = self.hours.iter().filter(|((subject, _), _)| is_ours(*subject));
        let days = self.days.iter().filter(|((subject, _), _)| is_ours(*subject));
        let values = self.values.iter().filter(|((subject, ..), _)| is_ours(*subject));
        let links = self.links.values().filter(|link| is_ours(link.url_id));
        let rows = clicks.iter().map(|click| click.row).filter(|row| is_ours(row.url_id));
        let mut group = ClickGroup {
            batches: batches.to_vec(),
            shards: shards.to_vec(),
            rows: rows.collect(),
            hours: hours
                .map(|(&(subject, hour), &counts)| HourDelta { subject, hour, counts })
                .collect(),
            days: days
                .map(|(&(subject, day), &counts)| {
                    let visitors = visitors.get(&(subject, day)).copied().unwrap_or(0);
                    DayDelta { subject, day, counts, visitors }
                })
                .collect(),
            values: values
                .map(|(&(subject, day, value_id), &clicks)| ValueDelta {
                    subject,
                    day,
                    value_id,
                    clicks,
                })
                .collect(),
            links: links.copied().collect(),
        };
        sort_for_locking(&mut group);
        group
    }
}

fn add(counts: &mut KindCounts, kind: ClickKind) {
    let count = match kind {
        ClickKind::Person => &mut counts.clicks,
        ClickKind::Bot => &mut counts.bots,
        ClickKind::Prefetch => &mut counts.prefetches,
        ClickKind::Head => &mut counts.heads,
    };
    *count += 1;
}

/// All workers lock rows in one order, so none waits for another in a circle. Links come before users
/// and the whole service, whose rows everybody needs: they are held for the shortest time.
fn sort_for_locking(group: &mut ClickGroup) {
    let shared_last = |subject: i64| (subject <= EVERYTHING, subject);
    group.hours.sort_unstable_by_key(|row| (shared_last(row.subject), row.hour));
    group.days.sort_unstable_by_key(|row| (shared_last(row.subject), row.day));
    group.values.sort_unstable_by_key(|row| (shared_last(row.subject), row.day, row.value_id));
    group.links.sort_unstable_by_key(|row| row.url_id);
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
        let clicks = [
            click("2026-11-20T23:59:59.9Z", 1, Person, 100),
            click("2026-11-21T00:00:00Z", 1, Person, 100),
            click("2026-11-21T00:59:59Z", 1, Person, 101),
            click("2026-11-21T00:10:00Z", 1, Bot, 102),
            click("2026-11-21T00:20:00Z", 2, Person, 100),
            click("2026-11-21T02:00:00Z", 2, Head, 103),
            click("2026-11-21T02:00:00Z", 20, Prefetch, 104),
        ];
        let day: NaiveDate = "2026-11-21".parse().unwrap();
        let seen = visitors(&clicks);
        assert_eq!(seen[&(1, day)], HashSet::from([100, 101]));
        assert_eq!(seen[&(-3, day)], HashSet::from([100, 101]));
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
        let clicks: Vec<_> = (0..2_000)
            .map(|n| click("2026-11-21T00:00:00Z", 1 + n % 20, ClickKind::Person, n % 7))
            .collect();
        let whole = Totals::of(&clicks);
        let none = HashMap::new();
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
