-- An account's postings between two instants, after the position $4 and up to $5 and $6, oldest
-- first, with the request that each settled.
SELECT p.id, p.seq, p.template, p.account_id, p.reason, p.recorded_at, moved.amount_picos,
       u.model_id, u.credential_id, u.prompt_tokens, u.completion_tokens,
       u.generation_id, u.request_id
FROM postings p
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount_picos), 0)::bigint AS amount_picos FROM entries e
    WHERE e.posting_id = p.id AND e.booked_at = p.booked_at
      AND e.ledger_account = 'customer'
) moved
LEFT JOIN usage_records u
    ON u.hold_id = p.hold_id AND u.placed_at = p.booked_at AND u.revision = 0
WHERE p.account_id = $1 AND p.recorded_at >= $2 AND p.recorded_at < $3
  AND p.seq > $4 AND p.seq <= least($5, $6::bigint)
ORDER BY p.seq
LIMIT $7
