SET LOCAL lock_timeout = '5s';

-- Whether a code cannot be taken by this user: it is banned, or held for its former owner. A code whose link had no owner
-- is held for everybody: two callers without a user are not the same caller. Volatile, so that each call sees what was
-- committed before it.
CREATE FUNCTION is_code_held(code text, new_owner bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN EXISTS (SELECT FROM held_codes AS held WHERE held.short_code = code
                  AND (held.is_banned OR ((held.user_id = new_owner) IS NOT TRUE
                       AND held.released_at > now() - make_interval(days => held_code_days()))));
END
$$;

-- As before, with `is_code_held`.
CREATE OR REPLACE FUNCTION urls_obey_bans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    -- A row that is left out is a code that is taken, in every statement that creates links.
    IF is_code_held(NEW.short_code, NEW.user_id) THEN
      RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM owner_row_counts AS counts
                WHERE counts.owner = 'user:' || NEW.user_id AND counts.kind = 'links'
                  AND counts.rows >= row_quota('links')) THEN
      RAISE EXCEPTION 'the owner has too many links' USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_quota';
    END IF;
  ELSIF NEW.original_url = OLD.original_url AND (OLD.is_active OR NOT NEW.is_active)
        AND NEW.taken_down_at IS NULL AND OLD.taken_down_at IS NULL THEN
    RETURN NEW;
  END IF;
  IF NEW.taken_down_at IS NOT NULL THEN
    -- A statement that deactivates a link that is taken down sets the column itself: here, it looks like one that keeps
    -- the state.
    IF OLD.taken_down_at IS NULL OR NEW.is_active THEN
      NEW.active_after_takedown := NEW.is_active;
    END IF;
    NEW.is_active := false;
  ELSIF has_banned_host(NEW.original_url) THEN
    RAISE EXCEPTION 'the host of the target is banned'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_host_banned';
  ELSIF OLD.taken_down_at IS NOT NULL THEN
    NEW.is_active := COALESCE(OLD.active_after_takedown, NEW.is_active);
    NEW.active_after_takedown := NULL;
  END IF;
  RETURN NEW;
END
$$;

-- An insertion waits at the unique index for a concurrent deletion of the same code, which holds the code. The check before
-- the insertion ran before that wait, so it is repeated after it. The error is that of a taken code.
CREATE FUNCTION urls_obey_held_codes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF is_code_held(NEW.short_code, NEW.user_id) THEN
    RAISE EXCEPTION 'the short code is held'
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'urls_short_code_key';
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER urls_obey_held_codes AFTER INSERT ON urls FOR EACH ROW EXECUTE FUNCTION urls_obey_held_codes();
