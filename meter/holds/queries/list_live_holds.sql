-- Live holds, oldest first, after the one at ($2, $3), optionally in one state.
SELECT id, account_id, credential_id, model_id, endpoint, amount_picos, state, unknown_reason,
       generation_id, status_code, response_flags, created_at, expires_at
FROM holds
WHERE ($1::text IS NULL OR state = $1)
  AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::uuid))
ORDER BY created_at, id
LIMIT $4
