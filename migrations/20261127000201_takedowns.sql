SET LOCAL lock_timeout = '5s';

-- When an administrator took the link down. Only `linnet-shortener admin restore-link` clears it. While it is set, the
-- trigger below keeps the link inactive, whichever statement changes it.
ALTER TABLE urls ADD COLUMN taken_down_at timestamptz;

-- Hosts that no target may have. A host covers its subdomains. In lower case and punycode, as in targets.
CREATE TABLE banned_hosts (
    host       text        PRIMARY KEY CHECK (octet_length(host) BETWEEN 1 AND 253 AND host = lower(host)),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Codes of deleted links. No link gets a banned code; any other one is held for its former owner, so that no other user
-- inherits printed codes. The maintenance task `expired-links` deletes rows that hold nothing.
CREATE TABLE held_codes (
    short_code  text        COLLATE "C" PRIMARY KEY,
    -- The former owner. There is no foreign key: the code is held when the user is gone, too.
    user_id     bigint,
    is_banned   boolean     NOT NULL DEFAULT false,
    released_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX held_codes_released_at_idx ON held_codes (released_at) WHERE NOT is_banned;

-- Days for which a code is held: `links.hold_codes_days`, which each connection sets; 90 for a release that sets none.
CREATE FUNCTION held_code_days() RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT COALESCE(NULLIF(current_setting('linnet.hold_codes_days', true), ''), '90')::integer
$$;

-- Whether a target's host, or a domain above it, is banned. Stored targets have no user name and a normalized host.
CREATE FUNCTION has_banned_host(target text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  name text := rtrim(lower(substring(target FROM '^[A-Za-z][A-Za-z0-9+.-]*://(\[[^]]*\]|[^/:?#]*)')), '.');
BEGIN
  IF NOT EXISTS (SELECT FROM banned_hosts) THEN
    RETURN false;
  END IF;
  WHILE name <> '' LOOP
    IF EXISTS (SELECT FROM banned_hosts WHERE host = name) THEN
      RETURN true;
    END IF;
    -- An address has no domain above it.
    EXIT WHEN position('.' IN name) = 0 OR name ~ '^[0-9.]+$';
    name := substr(name, position('.' IN name) + 1);
  END LOOP;
  RETURN false;
END
$$;

CREATE FUNCTION urls_obey_bans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    -- A row that is left out is a code that is taken, in every statement that creates links.
    IF EXISTS (SELECT FROM held_codes AS held WHERE held.short_code = NEW.short_code
                AND (held.is_banned OR (held.user_id IS DISTINCT FROM NEW.user_id
                     AND held.released_at > now() - make_interval(days => held_code_days())))) THEN
      RETURN NULL;
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
-- Counting clicks changes none of these columns.
CREATE TRIGGER urls_obey_bans
  BEFORE INSERT OR UPDATE OF short_code, original_url, is_active, taken_down_at ON urls
  FOR EACH ROW EXECUTE FUNCTION urls_obey_bans();

CREATE FUNCTION urls_hold_codes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO held_codes (short_code, user_id, is_banned)
  SELECT short_code, user_id, taken_down_at IS NOT NULL FROM removed
  ON CONFLICT (short_code) DO UPDATE SET user_id = EXCLUDED.user_id, released_at = now(),
    is_banned = held_codes.is_banned OR EXCLUDED.is_banned;
  RETURN NULL;
END
$$;
CREATE TRIGGER urls_hold_codes AFTER DELETE ON urls REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION urls_hold_codes();

-- One source of new ids: the sequence continues after users that were created on the command line.
SELECT setval('users_id_seq', max(id)) FROM users
HAVING max(id) > COALESCE(pg_sequence_last_value('users_id_seq'), 0);
