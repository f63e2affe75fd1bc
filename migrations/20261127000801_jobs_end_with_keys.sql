SET LOCAL lock_timeout = '5s';

-- The public id of the key that created the job, or returned it to the queue. NULL for the command line, for callers
-- without a key, and for jobs of the previous release. No foreign key: the keys that ended are deleted after
-- `maintenance.ended_key_days`, and their jobs stay.
ALTER TABLE jobs ADD COLUMN key_id text COLLATE "C";

-- Whether a key was revoked, has expired or was deleted. A job without a key does not end with one.
CREATE FUNCTION is_key_ended(key_id text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT key_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM api_keys WHERE id = key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))
$$;
