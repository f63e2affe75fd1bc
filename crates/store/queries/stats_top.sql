-- The visitors of a range, and the most frequent values of each dimension.
--
-- $1          roll-up key of the subject
-- $2, $3      range of UTC days, the end exclusive
-- $4, $5, $6  dimensions: kind of value, part, and whether clicks without a value have a label
-- $7          most values of each dimension
--
-- `months` is the part of the range whose months are folded. The clicks without any value of a kind are the clicks of
-- the days minus those with a value; one statement computes both, so that they are of the same moment.
WITH folded AS (
  SELECT COALESCE(max(month) + interval '1 month', '-infinity') AS "end"
    FROM click_months
), months AS (
  SELECT first, GREATEST(first, LEAST(date_trunc('month', $3::date::timestamp),
                                      "end")::date) AS "end"
    FROM folded, LATERAL (SELECT (date_trunc('month', ($2::date - 1)::timestamp)
                                  + interval '1 month')::date AS first) AS bounds
), by_value AS MATERIALIZED (
  SELECT value_id, sum(clicks)::bigint AS clicks
    FROM (SELECT value_id, clicks FROM click_totals_by_value
           WHERE subject = $1 AND day >= $2
             AND day < LEAST($3, (SELECT first FROM months))
          UNION ALL
          SELECT value_id, clicks FROM click_months_by_value
           WHERE subject = $1 AND month >= (SELECT first FROM months)
             AND month < (SELECT "end" FROM months)
          UNION ALL
          SELECT value_id, clicks FROM click_totals_by_value
           WHERE subject = $1 AND day >= (SELECT "end" FROM months)
             AND day < $3) AS counted
   WHERE $7::bigint > 0
   GROUP BY value_id
), valued AS MATERIALIZED (
  SELECT kind, parts, clicks FROM by_value JOIN click_values ON id = value_id
), total AS (
  SELECT COALESCE(sum(clicks), 0)::bigint AS clicks,
         COALESCE(sum(visitors), 0)::bigint AS visitors
    FROM click_totals_by_day WHERE subject = $1 AND day >= $2 AND day < $3
), dimension AS (
  SELECT * FROM unnest($4::smallint[], $5::int[], $6::boolean[])
    AS dimension (kind, part, has_label)
), named AS (
  SELECT dimension.kind, part, parts[part] AS value, clicks
    FROM valued JOIN dimension USING (kind)
   WHERE has_label OR parts[part] <> ''
  UNION ALL
  SELECT kind, part, '', total.clicks - COALESCE((SELECT sum(valued.clicks)
           FROM valued WHERE valued.kind = dimension.kind), 0)
    FROM dimension, total WHERE has_label AND $7 > 0
), ranked AS (
  SELECT kind, part, value, sum(clicks)::bigint AS clicks,
         row_number() OVER (PARTITION BY kind, part
                            ORDER BY sum(clicks) DESC, value = '', value)
           AS place
    FROM named GROUP BY kind, part, value HAVING sum(clicks) > 0
)
SELECT visitors AS "visitors!", kind AS "kind?", part AS "part?", value AS "value?",
       ranked.clicks AS "clicks?"
  FROM total LEFT JOIN ranked ON place <= $7
 ORDER BY kind, part, place
