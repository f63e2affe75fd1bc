SET LOCAL lock_timeout = '1s';
-- In the order of statements that insert: they lock the table, then read the counts in a trigger.
LOCK TABLE urls, events IN SHARE ROW EXCLUSIVE MODE;

-- The bytes of these rows that their owner chose: targets and titles of links, details of events as they are stored,
-- responses to requests with an idempotency key. 0 if the rows cannot have half of the quota. The maintenance task
-- `row-quotas` measures, from a sample if there are many rows, and statements that write many rows add to it.
ALTER TABLE owner_row_counts ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

-- The most bytes of a kind of one owner: `links.bytes_per_user`, `links.event_bytes_per_user` or
-- `shortener.idempotency_key_bytes_per_user`, which each connection sets. Without a setting, as in the previous release,
-- or with 0, there is no quota.
CREATE FUNCTION byte_quota(kind text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT COALESCE(NULLIF(NULLIF(current_setting('linnet.' || kind || '_bytes_per_user', true), ''), '0'),
                  '9223372036854775807')::bigint
$$;

-- As before, with the quota of bytes.
CREATE OR REPLACE FUNCTION is_at_quota(owner text, kind text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN EXISTS (SELECT FROM owner_row_counts AS counts
                  WHERE counts.owner = is_at_quota.owner AND counts.kind = is_at_quota.kind
                    AND (counts.rows >= row_quota(is_at_quota.kind) OR counts.bytes >= byte_quota(is_at_quota.kind)));
END
$$;

-- The most bytes that a link or an event can have. An event of 16 KiB of JSON may take more as jsonb.
CREATE FUNCTION max_row_bytes(kind text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE kind WHEN 'links' THEN 10240 ELSE 32768 END
$$;

-- The bytes of a user's links or events, of which there are `rows`. Of more than 5,000 rows, it reads a random sample of
-- about 5,000. The sample is taken from an index by position: rows of a user's choice cannot hide the others.
CREATE FUNCTION measured_bytes(user_id bigint, kind text, rows bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  portion double precision := 5000.0 / GREATEST(rows, 1);
  bytes   double precision;
BEGIN
  IF rows < byte_quota(kind) / 2 / max_row_bytes(kind) THEN
    RETURN 0;
  END IF;
  IF kind = 'links' THEN
    SELECT avg(octet_length(original_url) + COALESCE(octet_length(title), 0)) INTO bytes FROM urls
     WHERE id = ANY (ARRAY(SELECT own.id FROM urls AS own
                            WHERE own.user_id = measured_bytes.user_id AND random() < portion));
  ELSE
    SELECT avg(pg_column_size(details)) INTO bytes FROM events
     WHERE id = ANY (ARRAY(SELECT own.id FROM events AS own
                            WHERE own.user_id = measured_bytes.user_id AND random() < portion));
  END IF;
  RETURN (COALESCE(bytes, 0) * rows)::bigint;
END
$$;

-- Adds rows and bytes that a statement has written to the counts. An owner without a count has few rows, which are
-- counted. The previous release calls the function with three arguments, which adds no bytes.
CREATE FUNCTION count_written_rows(user_id bigint, kind text, written bigint, written_bytes bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  name text := 'user:' || user_id;
  most constant bigint := 9223372036854775807;
  own  bigint;
BEGIN
  IF user_id IS NULL OR (written = 0 AND written_bytes = 0) OR (row_quota(kind) = most AND byte_quota(kind) = most) THEN
    RETURN;
  END IF;
  UPDATE owner_row_counts AS counts
     SET rows = counts.rows + written, bytes = counts.bytes + written_bytes, counted_at = now()
   WHERE counts.owner = name AND counts.kind = count_written_rows.kind;
  IF NOT FOUND THEN
    own := CASE kind
      WHEN 'links' THEN (SELECT count(*) FROM (SELECT FROM urls
        WHERE urls.user_id = count_written_rows.user_id LIMIT row_quota('links')) AS rows)
      WHEN 'events' THEN (SELECT count(*) FROM (SELECT FROM events
        WHERE events.user_id = count_written_rows.user_id LIMIT row_quota('events')) AS rows) END;
    INSERT INTO owner_row_counts (owner, kind, rows, bytes)
    VALUES (name, kind, own, GREATEST(measured_bytes(user_id, kind, own), written_bytes))
    ON CONFLICT ON CONSTRAINT owner_row_counts_pkey
      DO UPDATE SET rows = GREATEST(owner_row_counts.rows + written, EXCLUDED.rows),
                    bytes = GREATEST(owner_row_counts.bytes + written_bytes, EXCLUDED.bytes), counted_at = now();
  END IF;
END
$$;

-- As before, with the quota of bytes.
CREATE OR REPLACE FUNCTION urls_check_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM banned_hosts)
     AND EXISTS (SELECT FROM inserted WHERE taken_down_at IS NULL AND has_banned_host(original_url)) THEN
    RAISE EXCEPTION 'the host of the target is banned'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_host_banned';
  END IF;
  IF EXISTS (SELECT FROM (SELECT DISTINCT user_id FROM inserted) AS owner
               JOIN owner_row_counts AS counts ON counts.owner = 'user:' || owner.user_id
              WHERE counts.kind = 'links' AND (counts.rows >= row_quota('links') OR counts.bytes >= byte_quota('links'))) THEN
    RAISE EXCEPTION 'the owner has too many links' USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_quota';
  END IF;
  IF EXISTS (SELECT FROM inserted JOIN held_codes AS held USING (short_code)
              WHERE held.is_banned OR ((held.user_id = inserted.user_id) IS NOT TRUE
                    AND held.released_at > now() - make_interval(days => held_code_days()))) THEN
    RAISE EXCEPTION 'the short code is held'
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'urls_short_code_key';
  END IF;
  RETURN NULL;
END
$$;

-- As before, with the quota of bytes.
CREATE OR REPLACE FUNCTION events_obey_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM (SELECT DISTINCT user_id FROM inserted
                           WHERE event_type IN ('created', 'updated')) AS actor
               JOIN owner_row_counts AS counts ON counts.owner = 'user:' || actor.user_id
              WHERE counts.kind = 'events'
                AND (counts.rows >= row_quota('events') OR counts.bytes >= byte_quota('events'))) THEN
    RAISE EXCEPTION 'the user has too many events' USING ERRCODE = 'check_violation', CONSTRAINT = 'events_quota';
  END IF;
  RETURN NULL;
END
$$;

-- A link of an owner at its quota of bytes can become shorter, but not longer. Redirects change neither column.
CREATE FUNCTION urls_obey_byte_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM owner_row_counts AS counts
              WHERE counts.owner = 'user:' || NEW.user_id AND counts.kind = 'links'
                AND counts.bytes >= byte_quota('links')) THEN
    RAISE EXCEPTION 'the owner has too many bytes of links'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_quota';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER urls_obey_byte_quota BEFORE UPDATE OF original_url, title ON urls FOR EACH ROW
  WHEN (octet_length(NEW.original_url) + COALESCE(octet_length(NEW.title), 0)
        > octet_length(OLD.original_url) + COALESCE(octet_length(OLD.title), 0))
  EXECUTE FUNCTION urls_obey_byte_quota();
