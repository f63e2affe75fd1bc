SET LOCAL lock_timeout = '5s';

-- When each task of the upkeep ran last, so that no worker repeats what another has just done. A row is written only
-- under the task's advisory lock.
CREATE TABLE maintenance_runs (
    task         text        COLLATE "C" PRIMARY KEY,
    started_at   timestamptz NOT NULL,
    -- These three are NULL while the task runs, and after a process that died in it.
    finished_at  timestamptz,
    outcome      text        CHECK (outcome IN ('succeeded', 'failed', 'timed_out', 'stopped')),
    error        text,
    -- When the last run that succeeded began: the task is due an interval later.
    succeeded_at timestamptz,
    -- Runs that began since then and did not end well; one that has begun counts until it has.
    failures     integer     NOT NULL DEFAULT 0
);

-- Links that have had their time are found without reading the others. Most links never expire, so the index is small;
-- creating it reads the table once, and writes wait for that (about a second for a million links).
CREATE INDEX urls_expires_at_idx ON urls (expires_at) WHERE expires_at IS NOT NULL;
