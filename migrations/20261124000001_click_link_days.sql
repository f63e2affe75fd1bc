SET LOCAL lock_timeout = '5s';

-- All of a link's clicks of a UTC day in one row: hours, values and visitors are changed together, at the cost of one row,
-- however many of its numbers change. Links write here and no longer into `click_hours` and `click_days`; users and
-- the whole service still do, and so did links of releases before this one. The views below have everything.
CREATE TABLE click_link_days (
    -- Users and the whole service are other subjects, and no link has their numbers.
    url_id       bigint    NOT NULL CHECK (url_id > 0),
    day          date      NOT NULL,
    clicks       bigint    NOT NULL,
    bots         bigint    NOT NULL,
    prefetches   bigint    NOT NULL,
    heads        bigint    NOT NULL,
    visitors     bigint    NOT NULL,
    -- Five numbers an hour: which of the day (0 to 23), people's clicks, bots, prefetches, HEADs.
    hours        integer[] NOT NULL,
    -- People's clicks by what they have in common. What finds no room here (64 values a day) is in `click_days_by_value`.
    value_ids    integer[] NOT NULL,
    value_clicks bigint[]  NOT NULL,
    PRIMARY KEY (url_id, day)
) WITH (fillfactor = 75);

-- A month's rows are read once, as those of `click_days_by_value`.
CREATE INDEX click_link_days_day_idx ON click_link_days USING brin (day);

-- What there is of each subject. An hour or a value may be in several rows, which are to be added up. `day` is there for
-- the index of the rows of links: an hour alone would not find them.
CREATE VIEW click_totals_by_hour AS
    SELECT subject, (hour AT TIME ZONE 'UTC')::date AS day, hour, clicks, bots, prefetches, heads
      FROM click_hours
    UNION ALL
    SELECT url_id, day, (day + make_interval(hours => hours[at])) AT TIME ZONE 'UTC',
           hours[at + 1]::bigint, hours[at + 2]::bigint, hours[at + 3]::bigint, hours[at + 4]::bigint
      FROM click_link_days CROSS JOIN LATERAL generate_series(1, cardinality(hours), 5) AS at;

-- One row for a subject and day: visitors are those of the whole day so far in each table, so the higher number has the other.
CREATE VIEW click_totals_by_day AS
    SELECT subject, day, sum(clicks)::bigint AS clicks, sum(bots)::bigint AS bots,
           sum(prefetches)::bigint AS prefetches, sum(heads)::bigint AS heads, max(visitors) AS visitors
      FROM (SELECT subject, day, clicks, bots, prefetches, heads, visitors FROM click_days
            UNION ALL
            SELECT url_id, day, clicks, bots, prefetches, heads, visitors FROM click_link_days) AS held
     GROUP BY subject, day;

CREATE VIEW click_totals_by_value AS
    SELECT subject, day, value_id, clicks FROM click_days_by_value
    UNION ALL
    SELECT url_id, day, value.id, value.clicks
      FROM click_link_days CROSS JOIN LATERAL UNNEST(value_ids, value_clicks) AS value (id, clicks);
