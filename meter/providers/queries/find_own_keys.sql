-- The sealed keys that an account has stored. The house keeps its keys under a name that may be the
-- id of an account as well.
SELECT provider, owner, key_version, sealed, updated_at,
       coalesce(refused_at > clock_timestamp() - make_interval(secs => $2), false) AS is_refused
FROM provider_keys WHERE owner = $1 AND owner <> 'system'
