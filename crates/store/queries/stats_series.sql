-- The series of a statistics query: one row for each interval, also for intervals without clicks.
--
-- $1, $2   first and last interval, in local time
-- $3, $4   interval and time zone
-- $5       whether UTC days are enough
-- $6       roll-up key of the subject
-- $7, $8   range of hours, the end exclusive
-- $9, $10  range of UTC days, the end exclusive
--
-- The visitors of a UTC day are counted in the interval of the day's noon.
WITH counted AS (
  SELECT generate_series($1::timestamp, $2::timestamp, ('1 ' || $3::text)::interval)
           AS local,
         0::bigint AS clicks, 0::bigint AS visitors, 0::bigint AS bots,
         0::bigint AS prefetches, 0::bigint AS heads
  UNION ALL
  SELECT date_trunc($3, day::timestamp), clicks, 0, bots, prefetches, heads
    FROM click_totals_by_day
   WHERE $5 AND subject = $6 AND day >= $9 AND day < $10
  UNION ALL
  SELECT date_trunc($3, hour AT TIME ZONE $4::text), clicks, 0, bots, prefetches, heads
    FROM click_totals_by_hour
   WHERE NOT $5::boolean AND subject = $6 AND hour >= $7 AND hour < $8
     AND day >= ($7 AT TIME ZONE 'UTC')::date AND day <= ($8 AT TIME ZONE 'UTC')::date
  UNION ALL
  SELECT date_trunc($3, (day + time '12:00') AT TIME ZONE 'UTC' AT TIME ZONE $4),
         0, visitors, 0, 0, 0
    FROM click_totals_by_day
   WHERE $3 <> 'hour' AND subject = $6 AND day >= $9 AND day < $10
)
SELECT local AT TIME ZONE $4 AS "start!", sum(clicks)::bigint AS "clicks!",
       sum(visitors)::bigint AS "visitors!", sum(bots)::bigint AS "bots!",
       sum(prefetches)::bigint AS "prefetches!", sum(heads)::bigint AS "heads!"
  FROM counted GROUP BY local ORDER BY local
