-- An account's postings, newest first, before a position, with the request that each settled.
SELECT p.id, p.seq, p.template, p.reason, p.recorded_at, moved.amount_picos,
       u.model_id, u.credential_id, u.prompt_tokens, u.completion_tokens,
       u.generation_id, u.request_id
FROM postings p
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount_picos), 0) AS amount_picos FROM entries e
    WHERE e.posting_id = p.id AND e.booked_at = p.booked_at
      AND e.ledger_account = 'customer'
) moved
LEFT JOIN usage_records u
    ON u.hold_id = p.hold_id AND u.placed_at = p.booked_at AND u.revision = 0
WHERE p.account_id = $1 AND p.seq < coalesce($2, 9223372036854775807)
ORDER BY p.seq DESC
LIMIT $3
