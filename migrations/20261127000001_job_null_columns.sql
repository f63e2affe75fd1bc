SET LOCAL lock_timeout = '5s';

-- The columns of an import in which the word `null` clears a field; an empty cell leaves the field as it is.
ALTER TABLE jobs ADD COLUMN null_columns text[] NOT NULL DEFAULT '{}';
