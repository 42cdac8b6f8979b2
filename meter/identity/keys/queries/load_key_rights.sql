-- The rights that an administrator gave the keys of an account, the number of its live keys, and
-- whether the asking credential is live.
SELECT clock_timestamp() AS now, a.may_manage_keys, a.is_suspended, p.max_keys, p.self_service_scopes,
       p.key_requests_per_minute AS requests_per_minute,
       p.key_tokens_per_minute AS tokens_per_minute,
       p.key_concurrent_requests AS concurrent_requests,
       p.key_requests_per_day AS requests_per_day,
       p.key_requests_per_month AS requests_per_month,
       (SELECT count(*) FROM credentials k
        WHERE k.account_id = a.id AND k.kind = 'key' AND k.revoked_at IS NULL
          AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())) AS live_keys,
       (SELECT count(*) FROM (
            SELECT FROM credentials k
            WHERE k.account_id = a.id AND k.kind = 'key'
              AND k.created_at > clock_timestamp() - interval '1 day'
            ORDER BY k.created_at DESC LIMIT $3) young) AS keys_of_a_day,
       coalesce((SELECT c.changes FROM account_changes c
                 WHERE c.account_id = a.id
                   AND c.day = (clock_timestamp() AT TIME ZONE 'UTC')::date),
                0) AS changes_of_a_day,
       EXISTS (SELECT FROM live_principals l
               WHERE l.credential_id = $2 AND l.account_id = a.id) AS is_caller_live
FROM accounts a JOIN account_plans p ON p.account_id = a.id
WHERE a.id = $1
