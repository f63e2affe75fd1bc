-- The range of a statistics query, in whole hours of the time zone, and whether the caller may read the subject.
--
-- $1      time zone; an unknown one is the error 22023
-- $2, $3  start: a time, or a date in the time zone (both NULL: $7 intervals before the end)
-- $4, $5  end, exclusive: a time, or a date in the time zone (both NULL: now)
-- $6, $7  interval ('hour', 'day' or 'week'), and the number of intervals without a start
-- $8, $9  subject: a link or a user (both NULL: the whole service)
-- $10     visible owner (NULL: all)
WITH given AS (
  SELECT COALESCE($2, $3::date::timestamp AT TIME ZONE $1) AS "from",
         COALESCE($4, $5::date::timestamp AT TIME ZONE $1, now()) AS "to",
         CASE $6::text WHEN 'hour' THEN 'UTC' ELSE $1::text END AS zone,
         ('1 ' || $6)::interval AS step
), ends AS (
  SELECT zone, step, "to" AS given_to,
         COALESCE("from", (date_trunc($6, ("to" - interval '1 microsecond')
             AT TIME ZONE zone) - ($7::int - 1) * step) AT TIME ZONE zone) AS "from"
    FROM given
), hours AS (
  SELECT zone, step, given_to, "from" >= given_to AS is_empty,
         date_trunc('hour', "from", zone) AS "from",
         date_trunc('hour', given_to + interval '1 hour - 1 microsecond', zone)
           AS "to"
    FROM ends
), clocks AS (
  SELECT *, "from" AT TIME ZONE zone AS local_from,
         ("to" - interval '1 microsecond') AT TIME ZONE zone AS local_last
    FROM hours
), buckets AS (
  SELECT *, date_trunc($6, local_from) AS first,
         date_trunc($6, local_last) AS last
    FROM clocks
)
-- `now() AT TIME ZONE $1` checks the time zone even if nothing else uses it.
SELECT "from" AS "from!", "to" AS "to!",
       is_empty OR now() AT TIME ZONE $1 IS NULL AS "is_empty!",
       first AS "first!", last AS "last!",
       1 + (extract(epoch FROM last - first) / extract(epoch FROM step))::bigint
         AS "buckets!",
       ((date_trunc('day', local_from) AT TIME ZONE zone) AT TIME ZONE 'UTC'
         + interval '12 hours - 1 microsecond')::date AS "first_day!",
       (((date_trunc('day', local_last) + interval '1 day') AT TIME ZONE zone)
         AT TIME ZONE 'UTC' + interval '12 hours - 1 microsecond')::date
         AS "end_day!",
       upper(zone) = 'UTC' AND $6 <> 'hour'
         AND "from" = date_trunc('day', "from", 'UTC')
         AND ("to" = date_trunc('day', "to", 'UTC') OR "to" >= now())
         AS "is_whole_days!",
       CASE WHEN $8::bigint IS NOT NULL THEN EXISTS (SELECT FROM urls
              WHERE id = $8 AND ($10::bigint IS NULL OR user_id = $10))
            WHEN $9::bigint IS NOT NULL THEN EXISTS (SELECT FROM users
              WHERE id = $9 AND ($10 IS NULL OR id = $10))
            ELSE $10 IS NULL END AS "is_visible!"
  FROM buckets
