//! Draws clicks: their time, link and visitor.

use chrono::{DateTime, Datelike, DurationRound, TimeDelta, Timelike, Utc};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rand_distr::Zipf;

use linnet_clicks::{BatchBuilder, PackedClick};
use linnet_domain::LinkId;

use crate::words;

/// Relative numbers of clicks in each hour of a UTC day, and on each weekday from Monday.
const HOURS: [u64; 24] =
    [12, 8, 6, 5, 6, 10, 20, 35, 52, 64, 70, 72, 74, 72, 70, 68, 66, 64, 66, 68, 64, 52, 36, 22];
const WEEKDAYS: [u64; 7] = [100, 104, 105, 103, 95, 62, 58];

const MS_PER_HOUR: u64 = 3_600_000;
const BOTS: f64 = 0.12;
const PREFETCHES: f64 = 0.02;
const HEADS: f64 = 0.01;
/// The share of visitors who opted out of statistics.
const OPTED_OUT: f64 = 0.03;
/// The share of clicks by visitors who return on the same day, and the share of these clicks on the same link.
const RETURNING: f64 = 0.3;
const SAME_LINK: f64 = 0.5;
/// The share of clicks without a referrer.
const DIRECT: f64 = 0.45;
/// The maximum number of visitors who may return.
const REMEMBERED: usize = 4_096;

/// An hour with its number of clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// Its first instant.
    pub start: DateTime<Utc>,
    /// The number of its clicks.
    pub clicks: u64,
}

/// The hours of the `days` days before `now`, oldest first. Their clicks total exactly `clicks`.
pub fn hours(now: DateTime<Utc>, days: u32, clicks: u64) -> impl Iterator<Item = Hour> {
    let end = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let count = days * 24;
    let starts = (1..=count).rev().map(move |back| end - TimeDelta::hours(back.into()));
    let total: u64 = starts.clone().map(share).sum();
    let (mut shares, mut given) = (0_u64, 0_u64);
    starts.map(move |start| {
        shares += share(start);
        let up_to = u128::from(clicks) * u128::from(shares) / u128::from(total.max(1));
        let up_to = u64::try_from(up_to).unwrap_or(clicks);
        let clicks = up_to - given;
        given = up_to;
        Hour { start, clicks }
    })
}

fn share(start: DateTime<Utc>) -> u64 {
    let of = |shares: &[u64], at: u32| {
        shares.get(usize::try_from(at).unwrap_or(usize::MAX)).copied().unwrap_or(1)
    };
    of(&HOURS, start.hour()) * of(&WEEKDAYS, start.weekday().num_days_from_monday())
}

/// A visitor with a browser.
#[derive(Debug, Clone)]
struct Person {
    visitor: Option<u64>,
    agent: usize,
    origin: (&'static str, &'static str),
    url_id: LinkId,
}

/// Draws clicks on links. Its memory is 8 bytes for each link, and up to [`REMEMBERED`] visitors.
pub struct Draw {
    random: StdRng,
    links: Vec<LinkId>,
    popularity: Option<Zipf<f64>>,
    browsers: Vec<String>,
    referrers: Vec<String>,
    people: Vec<Person>,
    day: Option<chrono::NaiveDate>,
}

impl Draw {
    /// `links` are in the order of popularity, the most popular first.
    pub fn new(links: Vec<LinkId>, seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            popularity: zipf(links.len()),
            links,
            browsers: words::browsers(),
            referrers: words::referrers(),
            people: Vec::with_capacity(REMEMBERED),
            day: None,
        }
    }

    /// Adds a click of this hour to the batch, and returns its link.
    pub fn click(&mut self, hour: DateTime<Utc>, batch: &mut BatchBuilder) -> LinkId {
        let day = hour.date_naive();
        if self.day != Some(day) {
            // Unique visitors are counted by day, so visitors return only on the same day.
            self.people.clear();
            self.day = Some(day);
        }
        let start = u64::try_from(hour.timestamp_millis()).unwrap_or_default();
        let mut click = PackedClick {
            at_ms: start + self.random.random_range(0..MS_PER_HOUR),
            url_id: LinkId::MIN,
            is_head: self.random.random_bool(HEADS),
            is_prefetch: false,
            is_counted: false,
            visitor: None,
            agent: None,
            referrer: None,
            language: None,
            country: None,
        };
        if self.random.random_bool(BOTS) {
            click.url_id = self.link();
            click.visitor = Some(self.random.random());
            let bot = words::BOTS.choose(&mut self.random).copied().unwrap_or_default();
            click.agent = batch.intern(bot);
        } else {
            let person = self.person();
            click.url_id = person.url_id;
            click.visitor = person.visitor;
            click.is_prefetch = self.random.random_bool(PREFETCHES);
            click.agent = batch.intern(self.browsers.get(person.agent).map_or("", String::as_str));
            click.country = batch.intern(person.origin.0);
            click.language = batch.intern(person.origin.1);
            if !self.random.random_bool(DIRECT) {
                let at = front(&mut self.random, self.referrers.len());
                click.referrer = batch.intern(self.referrers.get(at).map_or("", String::as_str));
            }
        }
        batch.push(click);
        click.url_id
    }

    fn link(&mut self) -> LinkId {
        let rank = self.popularity.map_or(1.0, |popularity| self.random.sample(popularity));
        self.links.get(index_of(rank)).copied().unwrap_or(LinkId::MIN)
    }

    fn person(&mut self) -> Person {
        let url_id = self.link();
        if self.random.random_bool(RETURNING)
            && let Some(known) = self.people.choose(&mut self.random)
        {
            let mut known = known.clone();
            if !self.random.random_bool(SAME_LINK) {
                known.url_id = url_id;
            }
            return known;
        }
        let origin = front(&mut self.random, words::ORIGINS.len());
        let is_opted_out = self.random.random_bool(OPTED_OUT);
        let person = Person {
            visitor: (!is_opted_out).then(|| self.random.random()),
            agent: front(&mut self.random, self.browsers.len()),
            origin: words::ORIGINS.get(origin).copied().unwrap_or_default(),
            url_id,
        };
        if self.people.len() < REMEMBERED {
            self.people.push(person.clone());
        } else {
            let at = self.random.random_range(0..REMEMBERED);
            if let Some(place) = self.people.get_mut(at) {
                *place = person.clone();
            }
        }
        person
    }
}

/// Zipf's law: draws rank k, from 1 to `ranks`, in proportion to 1 / k. `None` if `ranks` is 0.
fn zipf(ranks: usize) -> Option<Zipf<f64>> {
    Zipf::new(f64::from(u32::try_from(ranks).ok()?), 1.0).ok()
}

/// The index of a rank, which is a whole number from 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number from 1 to the number of links"
)]
fn index_of(rank: f64) -> usize {
    (rank as usize).saturating_sub(1)
}

/// Draws an index of a list, in which lower indexes are more likely: the first tenth gets almost half of the draws.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lists of some hundred, and a product between 0 and their length"
)]
fn front(random: &mut impl Rng, length: usize) -> usize {
    let point: f64 = random.random();
    (point.powi(3) * length as f64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-21T10:37:11Z".parse().unwrap()
    }

    #[test]
    fn hours_add_up_and_follow_the_day() {
        for (days, clicks) in [(1, 0), (1, 7), (30, 100_003), (365, 10_000_000)] {
            let all: Vec<Hour> = hours(now(), days, clicks).collect();
            assert_eq!(all.len(), usize::try_from(days).unwrap() * 24);
            assert_eq!(all.iter().map(|hour| hour.clicks).sum::<u64>(), clicks);
            assert_eq!(all.last().unwrap().start.to_rfc3339(), "2026-11-21T09:00:00+00:00");
            assert!(all.is_sorted_by_key(|hour| hour.start));
        }
        let all: HashMap<_, _> = hours(now(), 7, 1_000_000).map(|h| (h.start, h.clicks)).collect();
        let of = |text: &str| all[&text.parse::<DateTime<Utc>>().unwrap()];
        assert!(of("2026-11-18T12:00:00Z") > 10 * of("2026-11-18T03:00:00Z"));
        assert!(of("2026-11-18T12:00:00Z") > of("2026-11-15T12:00:00Z"));
    }

    #[test]
    fn clicks_are_of_many_kinds_and_a_seed_decides_them() {
        let hour = now().duration_trunc(TimeDelta::hours(1)).unwrap();
        let batch = |seed| {
            let mut draw = Draw::new((1..=1_000).filter_map(LinkId::new).collect(), seed);
            let mut builder = BatchBuilder::default();
            for _ in 0..20_000 {
                draw.click(hour, &mut builder);
            }
            builder.finish([1; 16])
        };
        let made = batch(1);
        assert_eq!(made, batch(1));
        assert_ne!(made, batch(2));
        let share_of = |count: usize| f64::from(u32::try_from(count).unwrap()) / 20_000.0;
        let share = |is: &dyn Fn(&PackedClick) -> bool| {
            share_of(made.clicks.iter().filter(|click| is(click)).count())
        };
        let start = u64::try_from(hour.timestamp_millis()).unwrap();
        assert!(made.clicks.iter().all(|c| (start..start + MS_PER_HOUR).contains(&c.at_ms)));
        // H(1000) = 7.4855, so the first link gets a share of 0.1336.
        assert!((share(&|click| click.url_id == LinkId::MIN) - 0.1336).abs() < 0.02);
        assert!((share(&|click| click.country.is_none()) - BOTS).abs() < 0.02);
        assert!((share(&|click| click.is_head) - HEADS).abs() < 0.01);
        let visitors: HashSet<_> = made.clicks.iter().filter_map(|click| click.visitor).collect();
        let repeated = 1.0 - share_of(visitors.len());
        assert!((0.2..0.4).contains(&repeated), "{repeated}");
        let agents: HashSet<_> = made.clicks.iter().map(|click| click.agent).collect();
        assert!(agents.len() > 200, "{}", agents.len());
    }
}
