-- The range of what was billed to a key outside these books. Dropping usage starts a new range,
-- because the provisional charges in it are no longer known.
SELECT outside_least_picos AS least_picos, outside_most_picos AS most_picos
FROM provider_totals
WHERE provider = $1 AND key_version = $2
  AND recorded_at > (SELECT coalesce(max(dropped_at), '-infinity') FROM dropped_months
                     WHERE kind = 'usage')
ORDER BY id DESC
LIMIT 1
