SET LOCAL lock_timeout = '5s';

-- How many rows of a kind an owner has: `links`, `events` or `idempotency_keys`. The maintenance task `row-quotas` counts
-- every few minutes, and statements that write many rows add them. Owners with few rows have no row here. The task
-- deletes what it has not counted again.
CREATE TABLE owner_row_counts (
    -- As in `idempotency_keys`: `user:7`, or for callers without a user the keyed hash of their address.
    owner      text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('links', 'events', 'idempotency_keys')),
    rows       bigint      NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, kind)
);

-- The most rows of a kind of one owner: `links.per_user`, `links.events_per_user` or
-- `shortener.idempotency_keys_per_user`, which each connection sets. Without a setting, as in the previous release, or
-- with 0, there is no quota.
CREATE FUNCTION row_quota(kind text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT COALESCE(NULLIF(NULLIF(current_setting('linnet.' || kind || '_per_user', true), ''), '0'),
                  '9223372036854775807')::bigint
$$;

CREATE FUNCTION is_at_quota(owner text, kind text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN EXISTS (SELECT FROM owner_row_counts AS counts
                  WHERE counts.owner = is_at_quota.owner AND counts.kind = is_at_quota.kind
                    AND counts.rows >= row_quota(is_at_quota.kind));
END
$$;

-- Adds rows that a statement has written to the counts. An owner without a count has few rows, which are counted.
CREATE FUNCTION count_written_rows(user_id bigint, kind text, written bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  name  text := 'user:' || user_id;
  quota bigint := row_quota(kind);
BEGIN
  IF user_id IS NULL OR written = 0 OR quota = 9223372036854775807 THEN
    RETURN;
  END IF;
  UPDATE owner_row_counts AS counts SET rows = counts.rows + written, counted_at = now()
   WHERE counts.owner = name AND counts.kind = count_written_rows.kind;
  IF NOT FOUND THEN
    INSERT INTO owner_row_counts (owner, kind, rows)
    SELECT name, count_written_rows.kind, CASE count_written_rows.kind
      WHEN 'links' THEN (SELECT count(*) FROM (SELECT FROM urls
        WHERE urls.user_id = count_written_rows.user_id LIMIT quota) AS own)
      WHEN 'events' THEN (SELECT count(*) FROM (SELECT FROM events
        WHERE events.user_id = count_written_rows.user_id LIMIT quota) AS own) END
    ON CONFLICT ON CONSTRAINT owner_row_counts_pkey
      DO UPDATE SET rows = GREATEST(owner_row_counts.rows + written, EXCLUDED.rows), counted_at = now();
  END IF;
END
$$;

-- As before, and a link of an owner at its quota is refused.
CREATE OR REPLACE FUNCTION urls_obey_bans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    -- A row that is left out is a code that is taken, in every statement that creates links.
    IF EXISTS (SELECT FROM held_codes AS held WHERE held.short_code = NEW.short_code
                AND (held.is_banned OR (held.user_id IS DISTINCT FROM NEW.user_id
                     AND held.released_at > now() - make_interval(days => held_code_days())))) THEN
      RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM owner_row_counts AS counts
                WHERE counts.owner = 'user:' || NEW.user_id AND counts.kind = 'links'
                  AND counts.rows >= row_quota('links')) THEN
      RAISE EXCEPTION 'the owner has too many links' USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_quota';
    END IF;
  ELSIF NEW.original_url = OLD.original_url AND (OLD.is_active OR NOT NEW.is_active)
        AND NEW.taken_down_at IS NULL THEN
    RETURN NEW;
  END IF;
  IF NEW.taken_down_at IS NOT NULL THEN
    NEW.is_active := false;
  ELSIF has_banned_host(NEW.original_url) THEN
    RAISE EXCEPTION 'the host of the target is banned'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_host_banned';
  END IF;
  RETURN NEW;
END
$$;

-- A user at its quota of events cannot create or change links, but delete them. Clients' own events are checked by the
-- statements that write them: their types are free.
CREATE FUNCTION events_obey_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM owner_row_counts AS counts
              WHERE counts.owner = 'user:' || NEW.user_id AND counts.kind = 'events'
                AND counts.rows >= row_quota('events')) THEN
    RAISE EXCEPTION 'the user has too many events' USING ERRCODE = 'check_violation', CONSTRAINT = 'events_quota';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER events_obey_quota BEFORE INSERT ON events FOR EACH ROW
  WHEN (NEW.user_id IS NOT NULL AND NEW.event_type IN ('created', 'updated'))
  EXECUTE FUNCTION events_obey_quota();
