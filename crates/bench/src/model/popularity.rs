//! Which share of the requests each link gets: Zipf's law for people, and an even share for bots that visit every link.
//!
//! A billion links do not fit in memory, so neighboring ranks form a group whose links count as equally popular. The first
//! [`EXACT`] ranks are single; a later group has at most 2 % more ranks than those before it need to grow by 2 %, which
//! changes hit ratios by less than 0.1 points.

/// Ranks that form a group of their own.
const EXACT: f64 = 1_000.0;
/// A later group ends at this multiple of its first rank.
const GROWTH: f64 = 1.02;

/// Links that are equally popular.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Number of links.
    pub links: f64,
    /// Share of all requests that each of them gets.
    pub share: f64,
}

/// Popularity of all links, the most popular group first. The shares of all links add up to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Popularity {
    groups: Vec<Group>,
    links: f64,
}

impl Popularity {
    /// Zipf's law with `exponent` over `links` links (at least 1) for a share `1 - even` of the requests; the share `even`
    /// is spread evenly over all links. An exponent of 0 is uniform.
    pub fn zipf(links: f64, exponent: f64, even: f64) -> Self {
        let mut groups = Vec::new();
        let mut first = 1.0;
        while first <= links {
            let last = if first < EXACT { first } else { (first * GROWTH).floor().min(links) };
            let count = last - first + 1.0;
            groups.push(Group { links: count, share: weight(first, last, exponent) / count });
            first = last + 1.0;
        }
        let total: f64 = groups.iter().map(|group| group.links * group.share).sum();
        for group in &mut groups {
            group.share = (1.0 - even) * group.share / total + even / links;
        }
        Self { groups, links }
    }

    /// Groups of equally popular links.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Number of links.
    pub fn links(&self) -> f64 {
        self.links
    }

    /// The sum of `value` over all links.
    pub fn sum(&self, value: impl Fn(&Group) -> f64) -> f64 {
        self.groups.iter().map(|group| group.links * value(group)).sum()
    }

    /// Expected number of distinct links among `requests` requests.
    pub fn distinct(&self, requests: f64) -> f64 {
        self.sum(|group| -(-requests * group.share).exp_m1())
    }
}

/// The sum of `rank ^ -exponent` over the ranks from `first` to `last`, by the midpoint rule, which is exact to 10⁻⁷ from
/// rank 1,000 on.
fn weight(first: f64, last: f64, exponent: f64) -> f64 {
    if first.total_cmp(&last).is_eq() {
        return first.powf(-exponent);
    }
    let (low, high) = (first - 0.5, last + 0.5);
    if (exponent - 1.0).abs() < 1e-9 {
        (high / low).ln()
    } else {
        (high.powf(1.0 - exponent) - low.powf(1.0 - exponent)) / (1.0 - exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact_share(rank: u32, links: u32, exponent: f64) -> f64 {
        let sum: f64 = (1..=links).map(|rank| f64::from(rank).powf(-exponent)).sum();
        f64::from(rank).powf(-exponent) / sum
    }

    #[test]
    fn shares_add_up_to_one_for_every_size() {
        for links in [1.0, 10.0, 1_000.0, 12_345.0, 1e6, 1e9] {
            for exponent in [0.0, 0.8, 1.0, 1.2] {
                let popularity = Popularity::zipf(links, exponent, 0.1);
                assert!(
                    (popularity.sum(|group| group.share) - 1.0).abs() < 1e-9,
                    "{links} {exponent}"
                );
                assert!((popularity.sum(|_| 1.0) - links).abs() < 0.5, "{links} {exponent}");
            }
        }
    }

    #[test]
    fn shares_are_those_of_zipf_law() {
        let popularity = Popularity::zipf(100_000.0, 1.0, 0.0);
        let first = popularity.groups().first().unwrap().share;
        assert!((first / exact_share(1, 100_000, 1.0) - 1.0).abs() < 1e-5);
        // Few groups even for a billion links.
        assert!(Popularity::zipf(1e9, 1.0, 0.0).groups().len() < 2_000);
    }

    #[test]
    fn distinct_links_are_those_of_the_cold_zipf_row() {
        // docs/BENCHMARKS.md, `cold_zipf`: 2 M draws over 1 M links had 342,343 distinct codes.
        let distinct = Popularity::zipf(1e6, 1.0, 0.0).distinct(2e6);
        assert!((distinct / 342_343.0 - 1.0).abs() < 0.005, "{distinct}");
    }
}
