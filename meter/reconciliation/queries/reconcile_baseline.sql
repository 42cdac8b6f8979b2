-- What is known of what a key was billed outside these books. A drop of usage begins anew: which
-- charges in it were provisional is gone with it.
SELECT outside_least_picos AS least_picos, outside_most_picos AS most_picos
FROM provider_totals
WHERE provider = $1 AND key_version = $2
  AND recorded_at > (SELECT coalesce(max(dropped_at), '-infinity') FROM dropped_months
                     WHERE kind = 'usage')
ORDER BY id DESC
LIMIT 1
