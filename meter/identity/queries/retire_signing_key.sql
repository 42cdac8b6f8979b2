-- Sets the end of publication of the key that a new one follows.
UPDATE signing_keys k SET published_until = $3
WHERE k.id = (SELECT s.id FROM signing_keys s WHERE s.id <> $1 AND s.signs_from <= $2
              ORDER BY s.signs_from DESC, s.id LIMIT 1)
  AND (k.published_until IS NULL OR k.published_until > $2)
