SET LOCAL lock_timeout = '5s';

-- Changes that caches have yet to hear of. A row is written in the transaction that changes a link or
-- a key and deleted once Redis has the news, so an absent Redis delays the news and never loses it.
CREATE TABLE cache_invalidations (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text        NOT NULL CHECK (kind IN ('link', 'key')),
    subject    text        NOT NULL,
    version    bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The first answer to a request that carried an `Idempotency-Key`, kept for 24 h.
CREATE TABLE idempotency_keys (
    owner        text        NOT NULL,
    key          text        NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    request_hash bytea       NOT NULL,
    status       smallint    NOT NULL,
    location     text,
    body         text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
);

CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
