SET LOCAL lock_timeout = '5s';

-- What many clicks have in common, once, so that a click is a few numbers. `kind` and its `parts`:
--   1 agent     {browser, operating system, device class}
--   2 origin    {country, language}
--   3 referrer  {host}
--   4 campaign  {utm_source, utm_medium, utm_campaign}
-- A part that is not known is ''. The kinds' numbers are in domain/click.rs.
CREATE TABLE click_values (
    id    integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind  smallint NOT NULL CHECK (kind BETWEEN 1 AND 4),
    parts text[]   NOT NULL,
    UNIQUE (kind, parts)
);

-- Every click as it was, by UTC day. Partitions are made ahead and dropped by the worker; one per day keeps dropping
-- cheap. There is no foreign key: history outlives links. Ids come from the events' sequence, since a click is an event.
CREATE TABLE clicks (
    id          bigint      NOT NULL DEFAULT nextval('events_id_seq'),
    clicked_at  timestamptz NOT NULL,
    url_id      bigint      NOT NULL,
    -- 0 a person's click, 1 a bot's, 2 a prefetch, 3 a HEAD
    kind        smallint    NOT NULL,
    -- A keyed hash whose key is forgotten after its day; NULL when the visitor asked to be left out.
    visitor     bigint,
    agent_id    integer,
    origin_id   integer,
    referrer_id integer,
    campaign_id integer,
    PRIMARY KEY (clicked_at, id)
) PARTITION BY RANGE (clicked_at);

CREATE INDEX clicks_url_id_idx ON clicks (url_id, clicked_at, id);

-- Roll-ups. `subject` is a link's id, or a user's id negated (all links of that user), or 0 (the whole service). Totals
-- and charts read these only, and they stay when raw clicks go. `clicks` counts people; bots, prefetches and HEADs stand
-- beside it and in no other roll-up.
CREATE TABLE click_hours (
    subject    bigint      NOT NULL,
    hour       timestamptz NOT NULL,
    clicks     bigint      NOT NULL DEFAULT 0,
    bots       bigint      NOT NULL DEFAULT 0,
    prefetches bigint      NOT NULL DEFAULT 0,
    heads      bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, hour)
) WITH (fillfactor = 90);

-- By UTC day, which is also the day of the visitors' key: only within it can a visitor be told from another.
CREATE TABLE click_days (
    subject    bigint NOT NULL,
    day        date   NOT NULL,
    clicks     bigint NOT NULL DEFAULT 0,
    bots       bigint NOT NULL DEFAULT 0,
    prefetches bigint NOT NULL DEFAULT 0,
    heads      bigint NOT NULL DEFAULT 0,
    visitors   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, day)
) WITH (fillfactor = 90);

-- People's clicks by what they have in common.
CREATE TABLE click_days_by_value (
    subject  bigint  NOT NULL,
    day      date    NOT NULL,
    value_id integer NOT NULL,
    clicks   bigint  NOT NULL,
    PRIMARY KEY (subject, day, value_id)
) WITH (fillfactor = 90);

-- A month's rows are read and added up once, some days after its end, since a year of a busy link is tens of thousands
-- of them. The rows come in the order of days, so the index of blocks stays tiny and finds a month.
CREATE INDEX click_days_by_value_day_idx ON click_days_by_value USING brin (day);

-- The months that are in the table below: all up to the newest. Those after it are read by day.
CREATE TABLE click_months (
    month     date        PRIMARY KEY CHECK (month = date_trunc('month', month::timestamp)),
    folded_at timestamptz NOT NULL DEFAULT now()
);

-- `click_days_by_value` by UTC month.
CREATE TABLE click_months_by_value (
    subject  bigint  NOT NULL,
    month    date    NOT NULL,
    value_id integer NOT NULL,
    clicks   bigint  NOT NULL,
    PRIMARY KEY (subject, month, value_id)
);

-- Batches that are in the tables above: one that comes again changes nothing. Kept for a week.
CREATE TABLE click_batches (
    id          bytea       PRIMARY KEY CHECK (octet_length(id) = 16),
    ingested_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX click_batches_ingested_at_idx ON click_batches (ingested_at);

-- The keys of the visitors' hashes, by UTC day. Made a day ahead and deleted a day after.
CREATE TABLE visitor_keys (
    day date  PRIMARY KEY,
    key bytea NOT NULL CHECK (octet_length(key) = 16)
);

-- Events are listed in the order of time, beside clicks.
CREATE INDEX events_timestamp_idx ON events (timestamp, id);
CREATE INDEX events_url_id_timestamp_idx ON events (url_id, timestamp, id);
CREATE INDEX events_user_id_timestamp_idx ON events (user_id, timestamp, id);
