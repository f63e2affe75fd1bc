SET LOCAL lock_timeout = '5s';

-- Why an administrator took the link down; NULL without a reason. The owner can read it.
ALTER TABLE urls
    ADD COLUMN takedown_reason text,
    -- Not validated, which would scan all links: the column is new.
    ADD CONSTRAINT urls_takedown_reason_check CHECK (char_length(takedown_reason) BETWEEN 1 AND 500) NOT VALID;

-- The number by which the API lists and deletes a ban, and the administrator who set it (NULL for the command line).
-- The table is small: bans are set by hand.
ALTER TABLE banned_hosts
    ADD COLUMN id      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN reason  text CHECK (char_length(reason) BETWEEN 1 AND 500),
    ADD COLUMN user_id bigint;

-- Bans of codes have numbers; codes that are held for their former owners have none.
CREATE SEQUENCE banned_code_ids;
ALTER TABLE held_codes
    ADD COLUMN ban_id    bigint,
    ADD COLUMN reason    text,
    ADD COLUMN banned_by bigint,
    ADD COLUMN banned_at timestamptz,
    ADD CONSTRAINT held_codes_reason_check CHECK (char_length(reason) BETWEEN 1 AND 500) NOT VALID;
CREATE UNIQUE INDEX held_codes_ban_id_idx ON held_codes (ban_id) WHERE is_banned;

-- Every statement that bans a code gives the ban its number, those of the previous release included.
CREATE FUNCTION held_codes_number_bans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.is_banned AND NEW.ban_id IS NULL THEN
    NEW.ban_id := nextval('banned_code_ids');
    NEW.banned_at := now();
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER held_codes_number_bans BEFORE INSERT OR UPDATE OF is_banned ON held_codes
  FOR EACH ROW EXECUTE FUNCTION held_codes_number_bans();
UPDATE held_codes SET is_banned = true WHERE is_banned;

-- As before, and the ban of a code keeps the reason of the takedown.
CREATE OR REPLACE FUNCTION urls_hold_codes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO held_codes (short_code, user_id, is_banned, reason)
  SELECT short_code, user_id, taken_down_at IS NOT NULL, takedown_reason FROM removed
  ON CONFLICT (short_code) DO UPDATE SET user_id = EXCLUDED.user_id, released_at = now(),
    is_banned = held_codes.is_banned OR EXCLUDED.is_banned,
    reason = COALESCE(EXCLUDED.reason, held_codes.reason);
  RETURN NULL;
END
$$;
