-- One page of events and clicks, in the order of time and id.
--
-- $1, $2  sort key before the page: time (NULL: before all) and id
-- $3      latest time, exclusive (NULL: no limit)
-- $4      visible owner (NULL: all)
-- $5      link (NULL: all)
-- $6      user who caused the event (NULL: all; clicks have no user)
-- $7      event type (NULL: all)
-- $8, $9  page size and offset
-- $10     roll-up key of the visible owner (NULL if $4 is not a user)
-- $11     most bytes of the details of all rows; the first row is returned in any case
--
-- The filters leave at most two branches. Each follows an index in the order of the list and ends with the page, so a
-- page costs as much as it contains. Conditions on parameters alone disable whole branches, in a generic plan too.
--
-- `hours` bounds the days in which clicks on an owner's links are looked up: from the first hour after the sort key to
-- the hour in which the roll-ups have enough clicks for the page. Without it, each link would be looked up in every
-- day.
--
-- `clicks` has the clicks that workers of earlier releases have written. A row of `raw_clicks` has clicks of one second.
-- Those after the sort key are therefore in rows that begin up to a second before it, and in as many rows after it as
-- the page has clicks, in the order of their first clicks.
--
-- `raw_clicks` has no index in the order of time. `span` finds a time in which enough rows for a page of all links begin:
-- each step makes it four times as long, but at most an hour longer, or continues to the next hour with clicks. There is
-- no LIMIT within a step: the planner would expect to find enough rows soon, and read the table from its beginning.
WITH RECURSIVE days AS (
  SELECT min(day)::timestamp AT TIME ZONE 'UTC' AS first,
         (max(day) + 1)::timestamp AT TIME ZONE 'UTC' AS last
    FROM (SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day
            FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
           WHERE inhparent = 'raw_clicks'::regclass AND relname ~ '^raw_clicks_[0-9]{8}$') AS partition
), span AS (
  SELECT GREATEST($1, first) AS since, GREATEST($1, first) AS until, 0::bigint AS found,
         LEAST(last, $3::timestamptz) AS last
    FROM days
   -- Otherwise it would be computed for every list.
   WHERE $4::bigint IS NULL AND $5::bigint IS NULL AND $6::bigint IS NULL
     AND COALESCE($7::text, 'click') = 'click'
  UNION ALL
  SELECT since, next.until,
         found + (SELECT count(*) FROM raw_clicks
                   WHERE clicked_at >= span.until AND clicked_at < next.until
                     AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2::bigint)),
         span.last
    FROM span CROSS JOIN LATERAL (
      SELECT LEAST(span.last, GREATEST(
               LEAST(until + 3 * (until - since) + interval '250 ms', until + interval '1 hour'),
               COALESCE((SELECT hour FROM click_hours
                          WHERE subject = 0 AND hour >= date_trunc('hour', span.until, 'UTC')
                          ORDER BY hour LIMIT 1), span.last))) AS until) AS next
   WHERE found < $8::bigint + $9::bigint AND span.until < span.last
), hours AS (
  SELECT first, COALESCE((SELECT hour
     FROM (SELECT hour, sum(clicks + bots + prefetches + heads) OVER (ORDER BY hour)
                          AS seen
             FROM click_hours
            WHERE subject = $10::bigint AND hour >= first
              AND hour > COALESCE($1::timestamptz, '-infinity')) AS counted
    WHERE seen >= $8 + $9 ORDER BY hour LIMIT 1), 'infinity') AS last
    FROM (SELECT GREATEST(date_trunc('hour', $1, 'UTC'),
            LEAST((SELECT first FROM days),
                  date_trunc('hour', (SELECT min(clicked_at) FROM clicks), 'UTC'))) AS first) AS oldest
), event AS (
  -- The events of every link.
  (SELECT * FROM events
    WHERE $4 IS NULL AND $5 IS NULL AND $6 IS NULL
      AND $7 IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
      AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
      AND timestamp < COALESCE($3, 'infinity')
    ORDER BY timestamp, id LIMIT $8 + $9)
  UNION ALL
  -- The events of one link.
  (SELECT * FROM events
    WHERE url_id = $5 AND ($6 IS NULL OR user_id = $6)
      AND ($4 IS NULL OR user_id = $4
           OR EXISTS (SELECT FROM urls WHERE urls.id = $5 AND urls.user_id = $4))
      AND $7 IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
      AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
      AND timestamp < COALESCE($3, 'infinity')
    ORDER BY timestamp, id LIMIT $8 + $9)
  UNION ALL
  -- The events that a user caused, and those of each of its links.
  ((SELECT * FROM events
     WHERE $5 IS NULL AND user_id = COALESCE($4, $6) AND ($6 IS NULL OR user_id = $6)
       AND $7 IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
       AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
       AND timestamp < COALESCE($3, 'infinity')
     ORDER BY timestamp, id LIMIT $8 + $9)
   UNION
   (SELECT found.* FROM urls CROSS JOIN LATERAL (
      SELECT * FROM events
       WHERE events.url_id = urls.id AND ($6 IS NULL OR events.user_id = $6)
         AND ($7 IS NULL OR event_type = $7)
         AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
         AND timestamp < COALESCE($3, 'infinity')
       ORDER BY timestamp, id LIMIT $8 + $9) AS found
     WHERE urls.user_id = $4 AND $5 IS NULL AND $7 IS DISTINCT FROM 'click'
     ORDER BY timestamp, id LIMIT $8 + $9))
), clicked AS (
  SELECT urls.id AS clicked_id, day FROM urls JOIN click_link_days ON url_id = urls.id
   WHERE urls.user_id = $4
     AND day >= (SELECT (first AT TIME ZONE 'UTC')::date FROM hours)
     AND day <= (SELECT (last AT TIME ZONE 'UTC')::date FROM hours)
  -- A day may be in both tables. UNION lists its clicks once.
  UNION
  SELECT urls.id, day FROM urls JOIN click_days ON subject = urls.id
   WHERE urls.user_id = $4
     AND day >= (SELECT (first AT TIME ZONE 'UTC')::date FROM hours)
     AND day <= (SELECT (last AT TIME ZONE 'UTC')::date FROM hours)
), earlier_click AS (
  -- The clicks on every link.
  (SELECT id, url_id, clicked_at, kind, agent_id, origin_id, referrer_id, campaign_id FROM clicks
    WHERE $4 IS NULL AND $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
      AND clicked_at >= COALESCE($1, '-infinity')
      AND clicked_at < COALESCE($3, 'infinity')
      AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
    ORDER BY clicked_at, id LIMIT $8 + $9)
  UNION ALL
  -- The clicks on one link.
  (SELECT id, url_id, clicked_at, kind, agent_id, origin_id, referrer_id, campaign_id FROM clicks
    WHERE url_id = $5 AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
      AND ($4 IS NULL
           OR EXISTS (SELECT FROM urls WHERE urls.id = $5 AND urls.user_id = $4))
      AND clicked_at >= COALESCE($1, '-infinity')
      AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
      AND clicked_at < COALESCE($3, 'infinity')
    ORDER BY clicked_at, id LIMIT $8 + $9)
  UNION ALL
  -- The clicks on each link of a user.
  (SELECT found.* FROM clicked CROSS JOIN LATERAL (
      SELECT id, url_id, clicked_at, kind, agent_id, origin_id, referrer_id, campaign_id FROM clicks
       WHERE url_id = clicked_id
         AND clicked_at >= GREATEST(day::timestamp AT TIME ZONE 'UTC',
                                    COALESCE($1, '-infinity'))
         AND clicked_at < LEAST((day + 1)::timestamp AT TIME ZONE 'UTC',
                                (SELECT last + interval '1 hour' FROM hours),
                                COALESCE($3, 'infinity'))
         AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
       ORDER BY clicked_at, id LIMIT $8 + $9) AS found
    WHERE $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
    ORDER BY clicked_at, id LIMIT $8 + $9)
), run AS (
  -- The clicks on every link.
  (SELECT * FROM raw_clicks
    WHERE $4 IS NULL AND $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
      AND clicked_at >= (SELECT max(since) - interval '1 second' FROM span)
      AND clicked_at < (SELECT max(until) FROM span))
  UNION ALL
  -- The clicks on one link.
  (SELECT found.* FROM (
      (SELECT * FROM raw_clicks
        WHERE url_id = $5 AND clicked_at >= $1 - interval '1 second' AND clicked_at <= $1
          AND (clicked_at, id) <= ($1, $2))
      UNION ALL
      (SELECT * FROM raw_clicks
        WHERE url_id = $5 AND clicked_at >= COALESCE($1, '-infinity')
          AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
          AND clicked_at < COALESCE($3, 'infinity')
        ORDER BY clicked_at, id LIMIT $8 + $9)) AS found
    WHERE $5 IS NOT NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
      AND ($4 IS NULL
           OR EXISTS (SELECT FROM urls WHERE urls.id = $5 AND urls.user_id = $4)))
  UNION ALL
  -- The clicks on each link of a user.
  (SELECT found.* FROM clicked CROSS JOIN LATERAL (
      (SELECT * FROM raw_clicks
        WHERE url_id = clicked_id AND day = ($1 AT TIME ZONE 'UTC')::date
          AND clicked_at >= $1 - interval '1 second' AND clicked_at <= $1
          AND (clicked_at, id) <= ($1, $2))
      UNION ALL
      (SELECT * FROM raw_clicks
        WHERE url_id = clicked_id
          AND clicked_at >= GREATEST(day::timestamp AT TIME ZONE 'UTC',
                                     COALESCE($1, '-infinity'))
          AND clicked_at < LEAST((day + 1)::timestamp AT TIME ZONE 'UTC',
                                 (SELECT last + interval '1 hour' FROM hours),
                                 COALESCE($3, 'infinity'))
          AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
        ORDER BY clicked_at, id LIMIT $8 + $9)) AS found
    WHERE $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click')
), click AS (
  SELECT found.id, url_id, found.clicked_at, kind, agent_id, found.origin_id, referrer_id,
         campaign_id
    FROM run CROSS JOIN LATERAL clicks_of(
           ROW (run.id, run.clicked_at, run.url_id, run.visitor, run.agent_and_kind, run.origin_id,
                run.sources, run.more)::raw_clicks) AS found
   WHERE (found.clicked_at, found.id) > (COALESCE($1, '-infinity'), $2)
     AND found.clicked_at < COALESCE($3, 'infinity')
   ORDER BY found.clicked_at, found.id LIMIT $8 + $9
), page AS (
  SELECT id, url_id, user_id, event_type, timestamp, details, NULL::smallint AS kind,
         NULL::integer AS agent_id, NULL::integer AS origin_id,
         NULL::integer AS referrer_id, NULL::integer AS campaign_id
    FROM event
  UNION ALL
  SELECT id, url_id, NULL, 'click', clicked_at, NULL, kind,
         agent_id, origin_id, referrer_id, campaign_id
    FROM earlier_click
  UNION ALL
  SELECT id, url_id, NULL, 'click', clicked_at, NULL, kind,
         agent_id, origin_id, referrer_id, campaign_id
    FROM click
   ORDER BY timestamp, id LIMIT $8 OFFSET $9
), sized AS (
  SELECT *, count(*) OVER () AS rows, row_number() OVER (ORDER BY timestamp, id) AS number,
         sum(COALESCE(octet_length(details::text), 0)) OVER (ORDER BY timestamp, id) AS bytes
    FROM page
)
-- Subqueries, because joins would read all values instead of a page's.
SELECT id AS "id!: EventId", url_id AS "url_id: LinkId",
       user_id AS "user_id: UserId", event_type AS "event_type!",
       timestamp AS "timestamp!", details AS "details?: EventDetails", rows AS "rows!", kind AS "kind?",
       (SELECT parts FROM click_values WHERE id = agent_id) AS agent,
       (SELECT parts FROM click_values WHERE id = origin_id) AS origin,
       (SELECT parts FROM click_values WHERE id = referrer_id) AS referrer,
       (SELECT parts FROM click_values WHERE id = campaign_id) AS campaign
  FROM sized
 WHERE bytes <= $11::bigint OR number = 1
 ORDER BY timestamp, id
