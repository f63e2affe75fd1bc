SET LOCAL lock_timeout = '1s';

-- Every click as it was, by UTC day, as in `clicks`, but in less space: a row has up to 48 clicks of one link that one
-- transaction wrote and that happened in the same second. The first one is in columns, the others are in `more`. Workers
-- of earlier releases still write `clicks`, whose partitions are dropped when they are old enough; the view below has
-- the clicks of both tables.
--
-- The order of columns leaves no gaps, and with eight of them the bits of the NULLs take no space.
CREATE TABLE raw_clicks (
    -- From the events' sequence, since a click is an event.
    id             bigint      NOT NULL DEFAULT nextval('events_id_seq'),
    clicked_at     timestamptz NOT NULL,
    url_id         bigint      NOT NULL,
    -- A keyed hash whose key is forgotten after its day; NULL when the visitor asked to be left out.
    visitor        bigint,
    -- Four times the id of the agent (0 if it is unknown), plus the kind: 0 a person's click, 1 a bot's, 2 a prefetch,
    -- 3 a HEAD.
    agent_and_kind integer     NOT NULL,
    origin_id      integer,
    -- The id of the referrer plus 2^32 times the id of the campaign, each 0 if it is unknown. NULL if both are.
    sources        bigint,
    -- Eight numbers a click, in the order of time: id less the row's id, microseconds after the row's time, upper and lower
    -- half of the visitor, agent and kind, ids of origin, referrer and campaign. 0 for what is unknown.
    more           integer[]
) PARTITION BY RANGE (clicked_at);

-- No primary key: nothing finds a click by its id.
CREATE INDEX raw_clicks_url_id_idx ON raw_clicks (url_id, clicked_at);
-- Groups of clicks arrive in the order of time, so a range of pages contains a few seconds.
CREATE INDEX raw_clicks_clicked_at_idx ON raw_clicks USING brin (clicked_at)
  WITH (pages_per_range = 32, autosummarize = on);

-- The clicks of a row.
CREATE FUNCTION clicks_of(run raw_clicks)
  RETURNS TABLE (id bigint, clicked_at timestamptz, kind smallint, visitor bigint, agent_id integer, origin_id integer,
                 referrer_id integer, campaign_id integer)
  LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT CASE n WHEN 0 THEN run.id ELSE run.id + run.more[8 * n - 7] END,
           CASE n WHEN 0 THEN run.clicked_at ELSE run.clicked_at + run.more[8 * n - 6] * interval '1 microsecond' END,
           (CASE n WHEN 0 THEN run.agent_and_kind ELSE run.more[8 * n - 3] END & 3)::smallint,
           CASE n WHEN 0 THEN run.visitor
             ELSE NULLIF((run.more[8 * n - 5]::bigint << 32) | (run.more[8 * n - 4]::bigint & 4294967295), 0) END,
           NULLIF(CASE n WHEN 0 THEN run.agent_and_kind ELSE run.more[8 * n - 3] END >> 2, 0),
           CASE n WHEN 0 THEN run.origin_id ELSE NULLIF(run.more[8 * n - 2], 0) END,
           NULLIF(CASE n WHEN 0 THEN (run.sources & 4294967295)::integer ELSE run.more[8 * n - 1] END, 0),
           NULLIF(CASE n WHEN 0 THEN (run.sources >> 32)::integer ELSE run.more[8 * n] END, 0)
      FROM generate_series(0, COALESCE(cardinality(run.more), 0) / 8) AS n
$$;

-- The clicks of both tables.
CREATE VIEW all_clicks AS
    SELECT id, clicked_at, url_id, kind, visitor, agent_id, origin_id, referrer_id, campaign_id FROM clicks
    UNION ALL
    SELECT click.id, click.clicked_at, url_id, kind, click.visitor, agent_id, click.origin_id, referrer_id, campaign_id
      FROM raw_clicks CROSS JOIN LATERAL clicks_of(raw_clicks) AS click;
