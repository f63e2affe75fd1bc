SET LOCAL lock_timeout = '1s';

-- Uploads with `jobs.upload_store = postgres`: the unpacked file between the request that creates a job and the end of the
-- job. `jobs.upload` names one as `postgres:` and its id. A row is inserted before the first piece. The process that ends
-- the job deletes it; the task `uploads` deletes those that no job needs 1 h after their last piece.
CREATE TABLE uploads (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The owner; NULL without one. No reference: the deletion of a user would wait for the deletion of all pieces.
    user_id       bigint,
    -- Bytes of the pieces, unpacked and as stored.
    content_bytes bigint      NOT NULL DEFAULT 0,
    stored_bytes  bigint      NOT NULL DEFAULT 0,
    -- When the last piece was added.
    changed_at    timestamptz NOT NULL DEFAULT now()
);

-- The pieces of an upload, without gaps. `starts_at`: bytes of the unpacked file before the piece.
CREATE TABLE upload_pieces (
    upload_id bigint NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    starts_at bigint NOT NULL,
    -- Compressed as a zlib stream.
    content   bytea  NOT NULL,
    PRIMARY KEY (upload_id, starts_at)
);

-- Nothing is gained from compressing it again.
ALTER TABLE upload_pieces ALTER COLUMN content SET STORAGE EXTERNAL;

-- A gigabyte is deleted with one job. Its space is reused only after a vacuum, so that this is due after some large files
-- instead of after a fifth of the table.
ALTER TABLE upload_pieces SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 100000
);
