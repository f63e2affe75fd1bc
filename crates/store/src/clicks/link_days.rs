//! Days of links: the rows of `click_link_days`, each with its hours and values.

use chrono::NaiveDate;

use linnet_domain::{LinkId, Subject};

use super::{KindCounts, ValueDelta};

/// Numbers per hour: the hour of the day (0 to 23), clicks by people, bots, prefetches, `HEAD` requests.
const NUMBERS_PER_HOUR: usize = 5;

/// The maximum number of values of a row. Further values are rows of `click_days_by_value`. A row with all hours and
/// values takes 1.4 kB; PostgreSQL would move a row of more than 2 kB out of the page.
const MAX_VALUES: usize = 64;

/// The clicks on a link on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkDay<'a> {
    /// The link.
    pub url_id: LinkId,
    /// The UTC day.
    pub day: NaiveDate,
    /// Unique visitors of the whole day so far.
    pub visitors: i64,
    hours: &'a [i32],
    value_ids: &'a [i32],
    value_clicks: &'a [i64],
}

impl<'a> LinkDay<'a> {
    /// The hours with requests, each once.
    pub fn hours(self) -> impl Iterator<Item = (i32, KindCounts)> + 'a {
        self.hours.chunks_exact(NUMBERS_PER_HOUR).filter_map(|hour| {
            let &[hour, clicks, bots, prefetches, heads] = hour else { return None };
            let [clicks, bots, prefetches, heads] =
                [clicks, bots, prefetches, heads].map(i64::from);
            Some((hour, KindCounts { clicks, bots, prefetches, heads }))
        })
    }

    /// Ids of `click_values`, each once, with clicks by people.
    pub fn values(self) -> impl Iterator<Item = (i32, i64)> + 'a {
        self.value_ids.iter().copied().zip(self.value_clicks.iter().copied())
    }

    fn value(self, value_id: i32, clicks: i64) -> ValueDelta {
        ValueDelta { subject: Subject::Link(self.url_id), day: self.day, value_id, clicks }
    }

    /// The sum of all hours.
    pub fn counts(self) -> KindCounts {
        self.hours().fold(KindCounts::default(), |mut counts, (_, hour)| {
            counts += hour;
            counts
        })
    }
}

/// A row, whose hours and values are ranges of the lists in [`LinkDays`]. Each range begins where that of the previous
/// row ends.
#[derive(Debug, Clone, Copy)]
struct Row {
    url_id: LinkId,
    day: NaiveDate,
    visitors: i64,
    hours_end: usize,
    values_end: usize,
}

/// Days of many links. Each list has the hours or values of all rows, and PostgreSQL receives it as one array.
#[derive(Debug, Clone, Default)]
pub struct LinkDays {
    rows: Vec<Row>,
    pub(super) hours: Vec<i32>,
    pub(super) value_ids: Vec<i32>,
    pub(super) value_clicks: Vec<i64>,
}

/// The ranges of a row's lists in the lists of all rows, as PostgreSQL's array slices: from 1, both ends inclusive.
pub(super) struct ListRanges {
    pub(super) hours: (i32, i32),
    pub(super) values: (i32, i32),
}

impl LinkDays {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, in the order in which they were added.
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

    pub(super) fn list_ranges(&self) -> impl Iterator<Item = ListRanges> {
        let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
        let mut from = (1, 1);
        self.rows.iter().map(move |row| {
            let to = (number(row.hours_end), number(row.values_end));
            let ranges = ListRanges { hours: (from.0, to.0), values: (from.1, to.1) };
            from = (to.0.saturating_add(1), to.1.saturating_add(1));
            ranges
        })
    }

    /// Adds a row. Its hours and values must be added next.
    pub fn begin(&mut self, url_id: LinkId, day: NaiveDate, visitors: i64) {
        let (hours_end, values_end) = (self.hours.len(), self.value_ids.len());
        self.rows.push(Row { url_id, day, visitors, hours_end, values_end });
    }

    /// Adds a new hour to the last row. Numbers above [`i32::MAX`] are reduced to it.
    pub fn add_hour(&mut self, hour: i32, counts: KindCounts) {
        let KindCounts { clicks, bots, prefetches, heads } = counts;
        let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
        self.extend_hours(&[hour, number(clicks), number(bots), number(prefetches), number(heads)]);
    }

    /// Adds a new value to the last row.
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

    /// Adds a copy of a row.
    pub(super) fn push(&mut self, row: LinkDay<'_>) {
        self.begin(row.url_id, row.day, row.visitors);
        self.extend_hours(row.hours);
        self.extend_values(row.value_ids, row.value_clicks);
    }

    /// Moves all rows of `other` to the end.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        for row in std::mem::take(other).iter() {
            self.push(row);
        }
    }

    /// Adds the sum of two rows of the same link and day: `stored`, if the database has one, and `added`. Values beyond
    /// [`MAX_VALUES`] go to `overflow`.
    pub(super) fn push_sum(
        &mut self,
        stored: Option<LinkDay<'_>>,
        added: LinkDay<'_>,
        overflow: &mut Vec<ValueDelta>,
    ) {
        let Some(stored) = stored else {
            let count = added.value_ids.len().min(MAX_VALUES);
            let (value_ids, more_ids) = added.value_ids.split_at(count);
            let (value_clicks, more_clicks) = added.value_clicks.split_at(count);
            self.push(LinkDay { value_ids, value_clicks, ..added });
            let more = more_ids.iter().zip(more_clicks);
            overflow.extend(more.map(|(id, clicks)| added.value(*id, *clicks)));
            return;
        };
        let (hours_at, values_at) = (self.hours.len(), self.value_ids.len());
        self.push(LinkDay { visitors: stored.visitors.max(added.visitors), ..stored });
        for hour in added.hours.chunks_exact(NUMBERS_PER_HOUR) {
            let sums = self.hours.get_mut(hours_at..).unwrap_or_default();
            match sums.chunks_exact_mut(NUMBERS_PER_HOUR).find(|sum| sum.first() == hour.first()) {
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
            let index = ids.iter().position(|stored| *stored == id);
            match index.and_then(|index| self.value_clicks.get_mut(values_at + index)) {
                Some(sum) => *sum += clicks,
                None if ids.len() < MAX_VALUES => self.add_value(id, clicks),
                None => overflow.push(added.value(id, clicks)),
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
    fn a_sum_has_the_hours_and_values_of_both_rows() {
        let stored = row(7, 5, &[(3, 10), (4, 20)], &[1, 2]);
        let added = row(7, 4, &[(4, 1), (9, 2)], &[2, 3]);
        let (mut sums, mut overflow) = (row(6, 0, &[(0, 1)], &[9]), Vec::new());
        sums.push_sum(stored.last(), added.last().unwrap(), &mut overflow);
        let sum = sums.last().unwrap();
        assert_eq!((sum.url_id, sum.visitors), (link(7), 5));
        let hours = [(3, counts(10, 1)), (4, counts(21, 2)), (9, counts(2, 1))];
        assert_eq!(sum.hours().collect::<Vec<_>>(), hours);
        assert_eq!(sum.counts(), counts(33, 4));
        assert_eq!(sum.values().collect::<Vec<_>>(), [(1, 2), (2, 4), (3, 2)]);
        assert_eq!(overflow, []);
        let first = sums.iter().next().unwrap();
        assert_eq!(
            (first.url_id, first.values().next()),
            (link(6), Some((9, 2))),
            "the row before is unchanged"
        );
        let ranges = sums.list_ranges().nth(1).unwrap();
        assert_eq!((ranges.hours, ranges.values), ((6, 20), (2, 4)));
    }

    #[test]
    fn values_beyond_the_limit_of_a_row_overflow() {
        let many: Vec<i32> = (0..70).collect();
        let (mut sums, mut overflow) = (LinkDays::default(), Vec::new());
        sums.push_sum(None, row(1, 0, &[(0, 70)], &many).last().unwrap(), &mut overflow);
        let ids = |values: &[ValueDelta]| values.iter().map(|v| v.value_id).collect::<Vec<_>>();
        assert_eq!(ids(&overflow), [64, 65, 66, 67, 68, 69]);
        let stored = std::mem::take(&mut sums);
        overflow.clear();
        sums.push_sum(stored.last(), row(1, 0, &[], &[63, 69]).last().unwrap(), &mut overflow);
        assert_eq!(ids(&overflow), [69], "the row is still full");
        assert_eq!(sums.last().unwrap().values().last(), Some((63, 4)));
        assert_eq!(sums.last().unwrap().values().count(), 64);
    }

    #[test]
    fn append_adds_rows_at_the_end() {
        let mut days = row(1, 0, &[(1, 1)], &[]);
        days.append(&mut row(2, 3, &[], &[5]));
        let all: Vec<_> = days.iter().map(|row| (row.url_id, row.counts().clicks)).collect();
        assert_eq!(all, [(link(1), 1), (link(2), 0)]);
        assert_eq!(days.last().unwrap().values().collect::<Vec<_>>(), [(5, 2)]);
    }
}
