SET LOCAL lock_timeout = '5s';

-- A host as bans store it. An IPv6 address that contains an IPv4 address is the IPv4 address: mapped (`::ffff:0:0/96`),
-- translated (`64:ff9b::/96`) or compatible (`::/96`, without `::` and `::1`). Every other host is returned as it is.
CREATE FUNCTION canonical_host(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  address inet;
  network inet;
BEGIN
  IF left(name, 1) <> '[' THEN
    RETURN name;
  END IF;
  address := btrim(name, '[]')::inet;
  network := CASE
    WHEN address << '::ffff:0:0/96' THEN '::ffff:0:0'
    WHEN address << '64:ff9b::/96' THEN '64:ff9b::'
    WHEN address << '::/96' AND address >= '::1:0' THEN '::'
  END;
  RETURN COALESCE(host('0.0.0.0'::inet + (address - network)), name);
EXCEPTION WHEN invalid_text_representation THEN
  RETURN name;
END
$$;

-- As before, for the canonical host.
CREATE OR REPLACE FUNCTION has_banned_host(target text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  name text := rtrim(lower(substring(target FROM '^[A-Za-z][A-Za-z0-9+.-]*://(\[[^]]*\]|[^/:?#]*)')), '.');
BEGIN
  IF NOT EXISTS (SELECT FROM banned_hosts) THEN
    RETURN false;
  END IF;
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
