SET LOCAL lock_timeout = '1s';

-- The last 32 visits that used up a click of a link with `max_clicks`, as hashes of nginx's ids of requests. nginx repeats a
-- request whose shortener has died, and the repetition must not use up another click. A visit that was repeated, or whose
-- click was given back, is removed. Without `max_clicks` the column is not written.
ALTER TABLE urls ADD COLUMN recent_visits bigint[];
