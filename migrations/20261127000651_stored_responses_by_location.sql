SET LOCAL lock_timeout = '5s';

-- Finds the stored responses that contain a user or its links, to delete them with the user. Rows live for a day, so
-- the table is small: a million rows take about two seconds.
CREATE INDEX idempotency_keys_location_idx ON idempotency_keys (location) WHERE location IS NOT NULL;
