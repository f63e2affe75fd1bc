-- Changes links to the values of imported rows, with their events and outbox rows. Returns the ids of the changed
-- links.
--
-- $1        ids of the links
-- $2        target URLs, which every row gives
-- $3 - $7   titles, is_active, redirect statuses, expiries and click limits
-- $8 - $12  whether a row gives these values
-- $13       visible owner (NULL: all), who is also the user in the events
WITH changed AS (
  UPDATE urls SET
    original_url = row.original_url,
    title = CASE WHEN row.has_title THEN row.title ELSE urls.title END,
    is_active = CASE WHEN row.has_active THEN row.is_active ELSE urls.is_active END,
    active_after_takedown = CASE WHEN urls.taken_down_at IS NULL THEN NULL
                                 WHEN row.has_active THEN row.is_active
                                 ELSE urls.active_after_takedown END,
    redirect_status = CASE WHEN row.has_status THEN row.redirect_status
                           ELSE urls.redirect_status END,
    expires_at = CASE WHEN row.has_expiry THEN row.expires_at ELSE urls.expires_at END,
    max_clicks = CASE WHEN row.has_limit THEN row.max_clicks ELSE urls.max_clicks END,
    version = nextval('url_version_seq'),
    updated_at = now()
   FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::smallint[],
               $6::timestamptz[], $7::bigint[], $8::boolean[], $9::boolean[],
               $10::boolean[], $11::boolean[], $12::boolean[])
     AS row (id, original_url, title, is_active, redirect_status, expires_at, max_clicks,
             has_title, has_active, has_status, has_expiry, has_limit)
  WHERE urls.id = row.id AND ($13::bigint IS NULL OR urls.user_id = $13)
  RETURNING urls.id, urls.short_code, urls.original_url, urls.version
), event AS (
  INSERT INTO events (url_id, user_id, event_type, details)
  SELECT id, $13, 'updated', jsonb_build_object('original_url', original_url)
    FROM changed
), outbox AS (
  INSERT INTO cache_invalidations (kind, subject, version)
  SELECT 'link', short_code, version FROM changed
)
SELECT id AS "id!: LinkId" FROM changed
