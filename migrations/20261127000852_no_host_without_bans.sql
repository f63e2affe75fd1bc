SET LOCAL lock_timeout = '5s';

-- As before, but the host is parsed only if any host is banned. The expression took an eighth of the processor time of a
-- new link, in every statement that creates links.
CREATE OR REPLACE FUNCTION has_banned_host(target text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  name text;
BEGIN
  IF NOT EXISTS (SELECT FROM banned_hosts) THEN
    RETURN false;
  END IF;
  name := rtrim(lower(substring(target FROM '^[A-Za-z][A-Za-z0-9+.-]*://(\[[^]]*\]|[^/:?#]*)')), '.');
  -- Only an address in brackets is worth a call.
  IF left(name, 1) = '[' THEN
    name := canonical_host(name);
  END IF;
  WHILE name <> '' LOOP
    IF EXISTS (SELECT FROM banned_hosts WHERE host = name) THEN
      RETURN true;
    END IF;
    -- An address has no domain above it.
    EXIT WHEN position('.' IN name) = 0 OR name ~ '^[0-9.]+$';
    name := substr(name, position('.' IN name) + 1);
  END LOOP;
  RETURN false;
END
$$;
