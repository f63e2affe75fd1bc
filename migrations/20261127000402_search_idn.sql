SET LOCAL lock_timeout = '5s';

-- A target with its host as people read it: `https://xn--mnchen-3ya.de/a` becomes `https://münchen.de/a` (RFC 3492). A
-- label that is no punycode stays as it is. One function, because an index may depend on no other.
CREATE FUNCTION target_for_people(target text) RETURNS text
  LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  parts  text[] := regexp_match(target, '^([A-Za-z][A-Za-z0-9+.-]*://)([^/?#:]*)(.*)$', 's');
  labels text[];
  label  text;
  word   text;
  rest   text;
  -- The state of the decoder, with the names of the RFC.
  n      bigint;
  i      bigint;
  old_i  bigint;
  w      bigint;
  k      bigint;
  t      bigint;
  digit  bigint;
  delta  bigint;
  bias   bigint;
  at     integer;
BEGIN
  IF parts IS NULL THEN
    RETURN target;
  END IF;
  FOREACH label IN ARRAY string_to_array(parts[2], '.') LOOP
    word := label;
    IF label LIKE 'xn--%' THEN
      rest := substr(label, 5);
      at := length(rest) - position('-' IN reverse(rest)) + 1;
      word := CASE WHEN position('-' IN rest) = 0 THEN '' ELSE left(rest, at - 1) END;
      rest := CASE WHEN position('-' IN rest) = 0 THEN rest ELSE substr(rest, at + 1) END;
      n := 128; i := 0; bias := 72; at := 1;
      WHILE word IS NOT NULL AND at <= length(rest) LOOP
        old_i := i; w := 1; k := 36;
        LOOP
          digit := ascii(substr(rest, at, 1));
          digit := CASE WHEN digit BETWEEN 97 AND 122 THEN digit - 97
                        WHEN digit BETWEEN 65 AND 90 THEN digit - 65
                        WHEN digit BETWEEN 48 AND 57 THEN digit - 22 END;
          at := at + 1;
          -- Malformed, or beyond every character.
          IF digit IS NULL OR w > 100000000 THEN
            word := NULL;
            EXIT;
          END IF;
          i := i + digit * w;
          t := CASE WHEN k <= bias THEN 1 WHEN k >= bias + 26 THEN 26 ELSE k - bias END;
          EXIT WHEN digit < t;
          w := w * (36 - t); k := k + 36;
        END LOOP;
        EXIT WHEN word IS NULL;
        delta := (i - old_i) / CASE WHEN old_i = 0 THEN 700 ELSE 2 END;
        delta := delta + delta / (length(word) + 1);
        k := 0;
        WHILE delta > 455 LOOP
          delta := delta / 35; k := k + 36;
        END LOOP;
        bias := k + 36 * delta / (delta + 38);
        n := n + i / (length(word) + 1);
        i := i % (length(word) + 1);
        IF n > 1114111 OR n BETWEEN 55296 AND 57343 THEN
          word := NULL;
        ELSE
          word := left(word, i::integer) || chr(n::integer) || substr(word, i::integer + 1);
          i := i + 1;
        END IF;
      END LOOP;
    END IF;
    labels := labels || COALESCE(word, label);
  END LOOP;
  RETURN parts[1] || COALESCE(array_to_string(labels, '.'), '') || parts[3];
END
$$;

-- `search` finds a part of an internationalized host name. The index has only such targets; it takes about a second for a
-- million links.
CREATE INDEX urls_idn_search_idx ON urls USING gin (target_for_people(original_url) gin_trgm_ops)
  WHERE original_url LIKE '%://%xn--%';
