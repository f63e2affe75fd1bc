SET LOCAL lock_timeout = '5s';

-- For a link that got its first limit: when clicks count against it. Clicks from before, which no statement counted at
-- once, have reached the row by then. Null for a link that has been limited since its creation.
ALTER TABLE urls ADD COLUMN limit_counts_from timestamptz;

-- `links.limit_settle_ms`, which each connection sets; 2 s for a release that sets none.
CREATE FUNCTION urls_limit_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.limit_counts_from := clock_timestamp() + make_interval(
    secs => COALESCE(NULLIF(current_setting('linnet.limit_settle_ms', true), ''), '2000')::float8 / 1000);
  RETURN NEW;
END
$$;
-- For every statement that sets the limit. Counting clicks does not change this column.
CREATE TRIGGER urls_limit_begins BEFORE UPDATE OF max_clicks ON urls
  FOR EACH ROW WHEN (OLD.max_clicks IS NULL AND NEW.max_clicks IS NOT NULL)
  EXECUTE FUNCTION urls_limit_begins();
