SET LOCAL lock_timeout = '5s';

-- Every click as it was, by UTC day: what `clicks` was before, in two thirds of its size. Workers of earlier releases still
-- write `clicks`, whose partitions are dropped when they are old enough; the view below has both. Ids come from the
-- events' sequence, since a click is an event.
--
-- The order of columns leaves no gaps, and eight of them need no second byte for the NULLs, which would take eight.
CREATE TABLE raw_clicks (
    id             bigint      NOT NULL DEFAULT nextval('events_id_seq'),
    clicked_at     timestamptz NOT NULL,
    url_id         bigint      NOT NULL,
    -- A keyed hash whose key is forgotten after its day; NULL when the visitor asked to be left out.
    visitor        bigint,
    -- Four times the id of the agent (0 if it is unknown), plus the kind: 0 a person's click, 1 a bot's, 2 a prefetch,
    -- 3 a HEAD.
    agent_and_kind integer     NOT NULL,
    origin_id      integer,
    referrer_id    integer,
    campaign_id    integer
) PARTITION BY RANGE (clicked_at);

-- No primary key: nothing finds a click by its id.
CREATE INDEX raw_clicks_url_id_idx ON raw_clicks (url_id, clicked_at);
-- Groups of clicks arrive in the order of time, so a range of pages contains a few seconds.
CREATE INDEX raw_clicks_clicked_at_idx ON raw_clicks USING brin (clicked_at)
  WITH (pages_per_range = 32, autosummarize = on);

-- The clicks of both tables.
CREATE VIEW all_clicks AS
    SELECT id, clicked_at, url_id, kind, visitor, agent_id, origin_id, referrer_id, campaign_id FROM clicks
    UNION ALL
    SELECT id, clicked_at, url_id, (agent_and_kind & 3)::smallint, visitor, NULLIF(agent_and_kind >> 2, 0),
           origin_id, referrer_id, campaign_id
      FROM raw_clicks;
