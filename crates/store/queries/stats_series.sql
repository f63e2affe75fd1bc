-- The series of a statistics query: one row for each interval, also for intervals without clicks.
--
-- $1       starts of the intervals, ascending
-- $2       whether visitors are counted
-- $3       whether UTC days are enough
-- $4       roll-up key of the subject
-- $5, $6   range of hours, the end exclusive
-- $7, $8   range of UTC days, the end exclusive
--
-- An hour is counted in the interval in which it begins, and the visitors of a UTC day in the interval of its noon.
-- width_bucket is the number of starts at or before an instant.
WITH counted AS (
  SELECT place::int AS place, 0::bigint AS clicks, 0::bigint AS visitors, 0::bigint AS bots,
         0::bigint AS prefetches, 0::bigint AS heads
    FROM generate_subscripts($1::timestamptz[], 1) AS place
  UNION ALL
  SELECT width_bucket(day::timestamp AT TIME ZONE 'UTC', $1), clicks, 0, bots, prefetches, heads
    FROM click_totals_by_day
   WHERE $3 AND subject = $4 AND day >= $7 AND day < $8
  UNION ALL
  SELECT width_bucket(hour, $1), clicks, 0, bots, prefetches, heads
    FROM click_totals_by_hour
   WHERE NOT $3::boolean AND subject = $4 AND hour >= $5 AND hour < $6
     AND day >= ($5 AT TIME ZONE 'UTC')::date AND day <= ($6 AT TIME ZONE 'UTC')::date
  UNION ALL
  SELECT width_bucket((day + time '12:00') AT TIME ZONE 'UTC', $1), 0, visitors, 0, 0, 0
    FROM click_totals_by_day
   WHERE $2::boolean AND subject = $4 AND day >= $7 AND day < $8
)
SELECT ($1::timestamptz[])[place] AS "start!", sum(clicks)::bigint AS "clicks!",
       sum(visitors)::bigint AS "visitors!", sum(bots)::bigint AS "bots!",
       sum(prefetches)::bigint AS "prefetches!", sum(heads)::bigint AS "heads!"
  FROM counted GROUP BY place ORDER BY place
