SET LOCAL lock_timeout = '5s';

-- 'receiving' until a job is created with the upload, then 'kept'; 'removed' from the moment when no job needs it: its pieces
-- are being deleted. An upload that was not changed for 5 min is no longer being received. An existing upload may have a
-- job; if it has none, the task `uploads` deletes it 1 h after its last piece, as before.
ALTER TABLE uploads ADD COLUMN state text NOT NULL DEFAULT 'kept'
    CHECK (state IN ('receiving', 'kept', 'removed'));
ALTER TABLE uploads ALTER COLUMN state SET DEFAULT 'receiving';

-- The stored bytes of uploads that were deleted within the last two hours: their space is not free before a vacuum, and a
-- vacuum frees nothing while an older snapshot is open. The task `uploads` deletes older rows.
CREATE TABLE removed_upload_bytes (
    -- The owner; NULL without one. No reference: it counts after the deletion of its user, too.
    user_id      bigint,
    -- The start of the ten minutes within which the uploads were deleted.
    since        timestamptz NOT NULL,
    stored_bytes bigint      NOT NULL,
    UNIQUE NULLS NOT DISTINCT (user_id, since)
);
