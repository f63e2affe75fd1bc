//! Links' clicks by UTC day, as rows of `click_link_days` have them.

use chrono::NaiveDate;

use linnet_domain::{LinkId, Subject};

use super::{KindCounts, ValueDelta};

/// Numbers of an hour: which of the day (0 to 23), people's clicks, bots, prefetches, `HEAD`s.
const HOUR: usize = 5;

/// Values that a row has, at most; more of them are rows of `click_days_by_value`. With all hours and so many
/// values a row takes 1.4 kB: PostgreSQL moves what is longer than 2 kB out of the page.
const MAX_VALUES: usize = 64;

/// A link's clicks of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkDay<'a> {
    /// The link.
    pub url_id: LinkId,
    /// The UTC day.
    pub day: NaiveDate,
    /// Visitors of the whole day so far.
    pub visitors: i64,
    hours: &'a [i32],
    value_ids: &'a [i32],
    value_clicks: &'a [i64],
}

impl<'a> LinkDay<'a> {
    /// The hours of the day that have any, each once.
    pub fn hours(self) -> impl Iterator<Item = (i32, KindCounts)> + 'a {
        self.hours.chunks_exact(HOUR).filter_map(|hour| {
            let &[hour, clicks, bots, prefetches, heads] = hour else { return None };
            let [clicks, bots, prefetches, heads] =
                [clicks, bots, prefetches, heads].map(i64::from);
            Some((hour, KindCounts { clicks, bots, prefetches, heads }))
        })
    }

    /// Ids of `click_values`, each once, with people's clicks.
    pub fn values(self) -> impl Iterator<Item = (i32, i64)> + 'a {
        self.value_ids.iter().copied().zip(self.value_clicks.iter().copied())
    }

    fn value(self, value_id: i32, clicks: i64) -> ValueDelta {
        ValueDelta { subject: Subject::Link(self.url_id), day: self.day, value_id, clicks }
    }

    /// All hours together.
    pub fn counts(self) -> KindCounts {
        self.hours().fold(KindCounts::default(), |mut counts, (_, hour)| {
            counts += hour;
            counts
        })
    }
}

/// A row without its lists, which end here in those of all rows and begin where those of the row before end.
#[derive(Debug, Clone, Copy)]
struct Row {
    url_id: LinkId,
    day: NaiveDate,
    visitors: i64,
    hours_end: usize,
    values_end: usize,
}

/// Many of them. The lists of all rows are one each, which is also how PostgreSQL gets them.
#[derive(Debug, Clone, Default)]
pub struct LinkDays {
    rows: Vec<Row>,
    pub(super) hours: Vec<i32>,
    pub(super) value_ids: Vec<i32>,
    pub(super) value_clicks: Vec<i64>,
}

/// Where the lists of a row are in those of all rows, as PostgreSQL counts: from 1, both ends included.
pub(super) struct Place {
    pub(super) hours: (i32, i32),
    pub(super) values: (i32, i32),
}

impl LinkDays {
    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = LinkDay<'_>> {
        let mut from = (0, 0);
        self.rows.iter().map(move |row| {
            let from = std::mem::replace(&mut from, (row.hours_end, row.values_end));
            self.row(*row, from)
        })
    }

    /// The row that was added last.
    pub fn last(&self) -> Option<LinkDay<'_>> {
        let row = self.rows.last()?;
        let before = self.rows.len().checked_sub(2).and_then(|at| self.rows.get(at));
        let from = before.map_or((0, 0), |row| (row.hours_end, row.values_end));
        Some(self.row(*row, from))
    }

    fn row(&self, row: Row, (hours, values): (usize, usize)) -> LinkDay<'_> {
        let (hours, values) = (hours..row.hours_end, values..row.values_end);
        LinkDay {
            url_id: row.url_id,
            day: row.day,
            visitors: row.visitors,
            hours: self.hours.get(hours).unwrap_or_default(),
            value_ids: self.value_ids.get(values.clone()).unwrap_or_default(),
            value_clicks: self.value_clicks.get(values).unwrap_or_default(),
        }
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
        let mut from = (1, 1);
        self.rows.iter().map(move |row| {
            let to = (number(row.hours_end), number(row.values_end));
            let place = Place { hours: (from.0, to.0), values: (from.1, to.1) };
            from = (to.0.saturating_add(1), to.1.saturating_add(1));
            place
        })
    }

    /// Adds a row, whose hours and values come next.
    pub fn begin(&mut self, url_id: LinkId, day: NaiveDate, visitors: i64) {
        let (hours_end, values_end) = (self.hours.len(), self.value_ids.len());
        self.rows.push(Row { url_id, day, visitors, hours_end, values_end });
    }

    /// Adds an hour, which it does not have yet, to the row that was begun last. More than
    /// [`i32::MAX`] of a kind count as so many.
    pub fn add_hour(&mut self, hour: i32, counts: KindCounts) {
        let KindCounts { clicks, bots, prefetches, heads } = counts;
        let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
        self.extend_hours(&[hour, number(clicks), number(bots), number(prefetches), number(heads)]);
    }

    /// Adds a value, which it does not have yet, to the row that was begun last.
    pub fn add_value(&mut self, id: i32, clicks: i64) {
        self.extend_values(&[id], &[clicks]);
    }

    pub(super) fn extend_hours(&mut self, hours: &[i32]) {
        self.hours.extend_from_slice(hours);
        if let Some(row) = self.rows.last_mut() {
            row.hours_end = self.hours.len();
        }
    }

    pub(super) fn extend_values(&mut self, ids: &[i32], clicks: &[i64]) {
        self.value_ids.extend_from_slice(ids);
        self.value_clicks.extend_from_slice(clicks);
        if let Some(row) = self.rows.last_mut() {
            row.values_end = self.value_ids.len();
        }
    }

    /// Adds a row as it is.
    pub(super) fn push(&mut self, row: LinkDay<'_>) {
        self.begin(row.url_id, row.day, row.visitors);
        self.extend_hours(row.hours);
        self.extend_values(row.value_ids, row.value_clicks);
    }

    /// Moves all rows of `other` behind the ones here.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        for row in std::mem::take(other).iter() {
            self.push(row);
        }
    }

    /// Adds a row that is `held`, if there is one, and `added`, which is of the same link and day. Values
    /// that find no room are left to `others`.
    pub(super) fn push_sum(
        &mut self,
        held: Option<LinkDay<'_>>,
        added: LinkDay<'_>,
        others: &mut Vec<ValueDelta>,
    ) {
        let Some(held) = held else {
            let room = added.value_ids.len().min(MAX_VALUES);
            let (value_ids, more_ids) = added.value_ids.split_at(room);
            let (value_clicks, more_clicks) = added.value_clicks.split_at(room);
            self.push(LinkDay { value_ids, value_clicks, ..added });
            let more = more_ids.iter().zip(more_clicks);
            others.extend(more.map(|(id, clicks)| added.value(*id, *clicks)));
            return;
        };
        let (hours_at, values_at) = (self.hours.len(), self.value_ids.len());
        self.push(LinkDay { visitors: held.visitors.max(added.visitors), ..held });
        for hour in added.hours.chunks_exact(HOUR) {
            let sums = self.hours.get_mut(hours_at..).unwrap_or_default();
            match sums.chunks_exact_mut(HOUR).find(|sum| sum.first() == hour.first()) {
                Some(sum) => {
                    for (sum, count) in sum.iter_mut().zip(hour).skip(1) {
                        *sum = sum.saturating_add(*count);
                    }
                }
                None => self.extend_hours(hour),
            }
        }
        for (id, clicks) in added.values() {
            let ids = self.value_ids.get(values_at..).unwrap_or_default();
            let place = ids.iter().position(|held| *held == id);
            match place.and_then(|place| self.value_clicks.get_mut(values_at + place)) {
                Some(sum) => *sum += clicks,
                None if ids.len() < MAX_VALUES => self.add_value(id, clicks),
                None => others.push(added.value(id, clicks)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(clicks: i64, bots: i64) -> KindCounts {
        KindCounts { clicks, bots, ..KindCounts::default() }
    }

    fn link(number: i64) -> LinkId {
        LinkId::new(number).unwrap()
    }

    fn row(url_id: i64, visitors: i64, hours: &[(i32, i64)], values: &[i32]) -> LinkDays {
        let mut days = LinkDays::default();
        days.begin(link(url_id), NaiveDate::default(), visitors);
        for (hour, clicks) in hours {
            days.add_hour(*hour, counts(*clicks, 1));
        }
        for id in values {
            days.add_value(*id, 2);
        }
        days
    }

    #[test]
    fn a_row_is_added_to_the_one_that_is_held() {
        let held = row(7, 5, &[(3, 10), (4, 20)], &[1, 2]);
        let added = row(7, 4, &[(4, 1), (9, 2)], &[2, 3]);
        let (mut sums, mut others) = (row(6, 0, &[(0, 1)], &[9]), Vec::new());
        sums.push_sum(held.last(), added.last().unwrap(), &mut others);
        let sum = sums.last().unwrap();
        assert_eq!((sum.url_id, sum.visitors), (link(7), 5));
        let hours = [(3, counts(10, 1)), (4, counts(21, 2)), (9, counts(2, 1))];
        assert_eq!(sum.hours().collect::<Vec<_>>(), hours);
        assert_eq!(sum.counts(), counts(33, 4));
        assert_eq!(sum.values().collect::<Vec<_>>(), [(1, 2), (2, 4), (3, 2)]);
        assert_eq!(others, []);
        let first = sums.iter().next().unwrap();
        assert_eq!((first.url_id, first.values().next()), (link(6), Some((9, 2))), "as it was");
        let place = sums.places().nth(1).unwrap();
        assert_eq!((place.hours, place.values), ((6, 20), (2, 4)));
    }

    #[test]
    fn values_without_room_are_left_to_others() {
        let many: Vec<i32> = (0..70).collect();
        let (mut sums, mut others) = (LinkDays::default(), Vec::new());
        sums.push_sum(None, row(1, 0, &[(0, 70)], &many).last().unwrap(), &mut others);
        let left = |others: &[ValueDelta]| others.iter().map(|v| v.value_id).collect::<Vec<_>>();
        assert_eq!(left(&others), [64, 65, 66, 67, 68, 69]);
        let held = std::mem::take(&mut sums);
        others.clear();
        sums.push_sum(held.last(), row(1, 0, &[], &[63, 69]).last().unwrap(), &mut others);
        assert_eq!(left(&others), [69], "it has no room now either");
        assert_eq!(sums.last().unwrap().values().last(), Some((63, 4)));
        assert_eq!(sums.last().unwrap().values().count(), 64);
    }

    #[test]
    fn rows_are_put_behind_others() {
        let mut days = row(1, 0, &[(1, 1)], &[]);
        days.append(&mut row(2, 3, &[], &[5]));
        let all: Vec<_> = days.iter().map(|row| (row.url_id, row.counts().clicks)).collect();
        assert_eq!(all, [(link(1), 1), (link(2), 0)]);
        assert_eq!(days.last().unwrap().values().collect::<Vec<_>>(), [(5, 2)]);
    }
}
