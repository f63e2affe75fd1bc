SET LOCAL lock_timeout = '1s';

-- New links and events are checked by five queries for each row; triggers took two fifths of the time of a new link. Now one
-- query remains for each link, the one that leaves out a held code. The others run once for a statement, after its rows.
-- Every statement fails for the same reasons as before, those of earlier releases included.

-- As before for updates; for new links only what changes or leaves out the row.
CREATE OR REPLACE FUNCTION urls_obey_bans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    -- A row that is left out is a code that is taken, in every statement that creates links. The condition is that of
    -- `is_code_held`, without its call.
    IF EXISTS (SELECT FROM held_codes AS held WHERE held.short_code = NEW.short_code
                AND (held.is_banned OR ((held.user_id = NEW.user_id) IS NOT TRUE
                     AND held.released_at > now() - make_interval(days => held_code_days())))) THEN
      RETURN NULL;
    END IF;
    IF NEW.taken_down_at IS NOT NULL THEN
      NEW.active_after_takedown := NEW.is_active;
      NEW.is_active := false;
    END IF;
    RETURN NEW;
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

-- The checks of all new links of a statement. An insertion waits at the unique index for a concurrent deletion of the same
-- code, which holds the code; the check before the insertion ran before that wait, so it is repeated here. Its error is
-- that of a taken code.
CREATE FUNCTION urls_check_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM banned_hosts)
     AND EXISTS (SELECT FROM inserted WHERE taken_down_at IS NULL AND has_banned_host(original_url)) THEN
    RAISE EXCEPTION 'the host of the target is banned'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'urls_host_banned';
  END IF;
  IF EXISTS (SELECT FROM (SELECT DISTINCT user_id FROM inserted) AS owner
               JOIN owner_row_counts AS counts ON counts.owner = 'user:' || owner.user_id
              WHERE counts.kind = 'links' AND counts.rows >= row_quota('links')) THEN
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
DROP TRIGGER urls_obey_held_codes ON urls;
CREATE TRIGGER urls_check_inserted AFTER INSERT ON urls REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION urls_check_inserted();

-- As before, for all new events of a statement.
CREATE OR REPLACE FUNCTION events_obey_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM (SELECT DISTINCT user_id FROM inserted
                           WHERE event_type IN ('created', 'updated')) AS actor
               JOIN owner_row_counts AS counts ON counts.owner = 'user:' || actor.user_id
              WHERE counts.kind = 'events' AND counts.rows >= row_quota('events')) THEN
    RAISE EXCEPTION 'the user has too many events' USING ERRCODE = 'check_violation', CONSTRAINT = 'events_quota';
  END IF;
  RETURN NULL;
END
$$;
DROP TRIGGER events_obey_quota ON events;
CREATE TRIGGER events_obey_quota AFTER INSERT ON events REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION events_obey_quota();
