-- A key that another key created ends with its maker.
SET LOCAL lock_timeout = '5s';

-- The key that created this one; NULL for a key of the command line, or when the maker's user was deleted. Revoking a key
-- revokes the keys below it. The table is small: a user has some dozens of keys.
ALTER TABLE api_keys ADD COLUMN parent_id text COLLATE "C";
ALTER TABLE api_keys ADD CONSTRAINT api_keys_parent_id_fkey
    FOREIGN KEY (parent_id) REFERENCES api_keys (id) ON DELETE SET NULL NOT VALID;
CREATE INDEX api_keys_parent_id_idx ON api_keys (parent_id) WHERE parent_id IS NOT NULL;
