SET LOCAL lock_timeout = '5s';

-- Whether the link is active again when its takedown ends: as its owner had set it before, or has set it since. NULL while
-- the link is not taken down, and for takedowns from before this column, which end with an active link.
ALTER TABLE urls ADD COLUMN active_after_takedown boolean;

-- As before, and the end of a takedown restores the state that the owner chose, whichever release ends it.
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
