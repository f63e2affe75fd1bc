SET LOCAL lock_timeout = '5s';

-- `events_url_id_timestamp_idx` and `events_user_id_timestamp_idx` begin with the same columns. Events are listed by time,
-- and everything else only filters by link or user, so the previous release uses those as well. Each event is in two
-- indexes less. Dropping takes no longer than unlinking their files.
DROP INDEX events_url_id_idx;
DROP INDEX events_user_id_idx;
