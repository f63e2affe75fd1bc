SET LOCAL lock_timeout = '5s';

-- Bulk work. A row is the truth about a job; the streams in Redis only say that there is something to take.
-- `state` and `worker`, `lease_until`: a job runs while its worker holds the lease; every chunk of rows is written in one
-- transaction with the place that is reached, under this row's lock, so a worker whose job was taken over or cancelled
-- writes nothing. `dead_at`: given up after all attempts, to be looked at by a person.
CREATE TABLE jobs (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('import_users', 'import_urls')),
    state           text        NOT NULL DEFAULT 'queued'
                                CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    user_id         bigint      REFERENCES users (id) ON DELETE CASCADE,
    -- Whether the rows may name others than the owner and ids of their own.
    by_admin        boolean     NOT NULL,
    format          text        NOT NULL CHECK (format IN ('csv', 'json', 'ndjson')),
    on_conflict     text        NOT NULL CHECK (on_conflict IN ('skip', 'update', 'fail')),
    dry_run         boolean     NOT NULL,
    -- The file's name in the upload area, and its unpacked size.
    upload          text        NOT NULL,
    upload_bytes    bigint      NOT NULL,
    is_large        boolean     NOT NULL,
    -- Where the next attempt begins: after the last committed chunk. Line 0 is before the first row.
    resume_offset   bigint      NOT NULL DEFAULT 0,
    resume_line     bigint      NOT NULL DEFAULT 0,
    rows_read       bigint      NOT NULL DEFAULT 0,
    rows_written    bigint      NOT NULL DEFAULT 0,
    rows_skipped    bigint      NOT NULL DEFAULT 0,
    rows_failed     bigint      NOT NULL DEFAULT 0,
    columns         text[]      NOT NULL DEFAULT '{}',
    unknown_columns text[]      NOT NULL DEFAULT '{}',
    -- Attempts since a chunk was last committed.
    attempts        integer     NOT NULL DEFAULT 0,
    run_after       timestamptz NOT NULL DEFAULT now(),
    -- When it was last put into the stream; NULL when it waits for its owner's other jobs.
    announced_at    timestamptz,
    worker          text,
    lease_until     timestamptz,
    error_code      text,
    error_message   text,
    dead_at         timestamptz,
    -- Number of the latest event: those of bad rows are in the table below, the others are this row as it is.
    last_event      bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz
);

CREATE INDEX jobs_user_id_idx ON jobs (user_id, id);
CREATE INDEX jobs_active_idx ON jobs (id) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_dead_idx ON jobs (id) WHERE dead_at IS NOT NULL;
CREATE INDEX jobs_finished_at_idx ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- What is wrong with which row, by the number of the event that told it.
CREATE TABLE job_row_errors (
    job_id bigint NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    event  bigint NOT NULL,
    line   bigint NOT NULL,
    -- [{"column", "code", "message"}]
    errors jsonb  NOT NULL,
    -- The row as it came, an array in the order of the job's columns, so that it can be mended and sent again.
    cells  jsonb  NOT NULL,
    PRIMARY KEY (job_id, event)
);
